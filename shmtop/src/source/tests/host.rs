//! Promises about the machine and its CPUs.

use super::Tree;
use crate::reading::WhyKind;
use crate::sample::{Cpu, Fact, LoadAverage, Memory};
use crate::source::cpu::CpuReader;
use crate::source::host::HostReader;
use crate::source::isolation::Isolation;

pub(super) const CPU: &[(&str, &str)] = &[
    (
        "proc/stat",
        "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 3 4 5 6 7 8 0 0\ncpu2 10 20 30 40 50 60 70 80 0 0\nintr 5\n",
    ),
    ("sys/devices/system/cpu/isolated", "\n"),
    ("sys/fs/cgroup/cpuset.cpus.isolated", "2\n"),
    (
        "sys/devices/system/cpu/cpu0/topology/thread_siblings_list",
        "0,2\n",
    ),
    ("sys/devices/system/cpu/cpu0/cache/index0/level", "1\n"),
    (
        "sys/devices/system/cpu/cpu0/cache/index0/shared_cpu_list",
        "0\n",
    ),
    ("sys/devices/system/cpu/cpu0/cache/index1/level", "3\n"),
    (
        "sys/devices/system/cpu/cpu0/cache/index1/shared_cpu_list",
        "0-2\n",
    ),
    ("sys/devices/system/cpu/cpu0/node1/x", ""),
    ("sys/devices/system/node/online", "0-1\n"),
];

fn cpus(tree: &Tree, hypervisor: bool) -> Vec<Cpu> {
    let mut reader = CpuReader::new(&tree.proc(), &tree.sys());
    reader.look_who_is_isolated();
    assert_eq!(reader.numa_nodes(), Ok(2));
    let nominal = Ok(vec![2_400_000, 2_500_000]);
    reader
        .read(&mut Vec::new(), &nominal, &Ok(hypervisor))
        .unwrap()
}

#[test]
fn cpus_tell_their_time_their_place_and_who_shares_it() {
    let cpus = cpus(&Tree::with(CPU), true);
    assert_eq!(
        cpus.iter().map(|c| c.cpu).collect::<Vec<_>>(),
        [0, 2],
        "CPU 1 is offline"
    );
    assert_eq!((cpus[1].jiffies.user, cpus[1].jiffies.steal), (10, 80));
    assert_eq!(cpus[0].jiffies.total(), 36);
    assert_eq!(cpus[0].isolated, Fact::Known(false));
    assert_eq!(cpus[1].isolated, Fact::Known(true));
    assert_eq!(cpus[0].siblings, Fact::Known(vec![0, 2]));
    assert_eq!(cpus[0].llc.get(), Ok(0));
    assert_eq!(cpus[0].node.get(), Ok(1));
    assert_eq!(cpus[1].llc.why().unwrap().kind, WhyKind::NotThere);
}

#[test]
fn cpus_that_a_container_numbers_anew_are_none_of_the_kernel_s() {
    let read = |present: &str, offline: &str| {
        let tree = Tree::with(CPU);
        tree.write("sys/devices/system/cpu/present", present);
        tree.write("sys/devices/system/cpu/offline", offline);
        let mut reader = CpuReader::new(&tree.proc(), &tree.sys());
        let read = reader.read(&mut Vec::new(), &Ok(Vec::new()), &Ok(true));
        read.map(|cpus| cpus.len())
    };
    assert_eq!(read("0-2\n", "1,3-7\n"), Ok(2));
    let why = read("0-7\n", "\n").unwrap_err();
    assert!(why.text.contains("numbered anew"), "{why}");
}

/// Which CPUs are isolated on a machine with these files, as far as it can tell; of CPUs 0 to 5.
fn isolated(files: &[(&str, &str)]) -> [Option<bool>; 6] {
    let tree = Tree::with(files);
    let isolation = Isolation::read(&tree.proc(), &tree.sys());
    std::array::from_fn(|cpu| isolation.of(cpu as u32).known().copied())
}

#[test]
fn a_cpu_is_isolated_by_the_boot_line_or_a_partition_and_in_a_container_nobody_knows_that_it_is_not()
 {
    const DIR: &str = "sys/fs/cgroup";
    const EFFECTIVE: &str = "cpuset.cpus.effective";
    const PARTITION: &str = "cpuset.cpus.partition";
    let boot = [
        ("sys/devices/system/cpu/isolated", "1-2\n"),
        ("sys/devices/system/cpu/nohz_full", "2-3\n"),
    ];
    let with = |files: &[(&str, &str)]| {
        let files = files
            .iter()
            .map(|(name, text)| (format!("{DIR}/{name}"), *text));
        let files: Vec<_> = files.collect();
        let all = files.iter().map(|(path, text)| (path.as_str(), *text));
        isolated(&boot.into_iter().chain(all).collect::<Vec<_>>())
    };
    let (yes, no) = (Some(true), Some(false));
    // No file system of control groups: nobody knows of the others.
    assert_eq!(with(&[]), [None, yes, yes, None, None, None]);
    let listed = with(&[
        ("cgroup.controllers", "cpuset\n"),
        ("cpuset.cpus.isolated", "4\n"),
    ]);
    assert_eq!(listed, [no, yes, yes, no, yes, no]);
    // A kernel that does not list them: a partition of a partition, one that is none for now, and groups that are none.
    let name = |group: &str, file: &str| format!("{group}/{file}");
    let (outer, inner) = (name("rt", PARTITION), name("rt/inner", PARTITION));
    let (inner_cpus, off) = (name("rt/inner", EFFECTIVE), name("off", PARTITION));
    let (off_cpus, member) = (name("off", EFFECTIVE), name("user.slice", PARTITION));
    let older = with(&[
        ("cgroup.controllers", "cpuset\n"),
        (&outer, "root\n"),
        (&inner, "isolated\n"),
        (&inner_cpus, "3-4\n"),
        (
            &off,
            "isolated invalid (Cpu list in cpuset.cpus not exclusive)\n",
        ),
        (&off_cpus, "5\n"),
        (&member, "member\n"),
    ]);
    assert_eq!(older, [no, yes, yes, yes, yes, no]);
    // A container: what is above its group can't be seen.
    let contained = |kind| {
        with(&[
            ("cgroup.controllers", "cpuset\n"),
            ("cgroup.type", "domain\n"),
            (PARTITION, kind),
            (EFFECTIVE, "3\n"),
        ])
    };
    assert_eq!(contained("member\n"), [None, yes, yes, None, None, None]);
    assert_eq!(contained("isolated\n"), [None, yes, yes, yes, None, None]);
    // Version 1.
    let balanced = "cpuset/cpuset.sched_load_balance";
    assert_eq!(with(&[(balanced, "1\n")]), [no, yes, yes, no, no, no]);
    assert_eq!(
        with(&[(balanced, "0\n")]),
        [None, yes, yes, None, None, None]
    );
}

#[test]
fn a_cpu_without_ticks_is_not_isolated_by_that() {
    let tree = Tree::with(&[("sys/devices/system/cpu/nohz_full", "2-3\n")]);
    let isolation = Isolation::read(&tree.proc(), &tree.sys());
    let tickless = [0, 1, 2, 3].map(|cpu| isolation.is_tickless(cpu));
    assert_eq!(tickless, [false, false, true, true]);
}

#[test]
fn where_there_are_no_cpusets_only_the_boot_line_isolates() {
    let (yes, no) = (Some(true), Some(false));
    let boot = ("sys/devices/system/cpu/isolated", "1\n");
    let known = [no, yes, no, no, no, no];
    let unknown = [None, yes, None, None, None, None];
    const STATUS: &str = "proc/self/status";
    let with_cpusets = (STATUS, "Name:\tshmtop\nMems_allowed:\t1\n");
    let listed = |line| isolated(&[boot, with_cpusets, ("proc/cgroups", line)]);
    assert_eq!(isolated(&[boot, (STATUS, "Name:\tshmtop\n")]), known);
    assert_eq!(listed("cpuset\t0\t1\t1\n"), known, "in no hierarchy");
    assert_eq!(listed("cpuset\t0\t1\t0\n"), known, "off");
    assert_eq!(listed("cpuset\t3\t9\t1\n"), unknown, "mounted elsewhere");
    assert_eq!(listed("cpuset\t0\t9\t1\n"), unknown, "of version 2");
    assert_eq!(listed("memory\t0\t1\t1\n"), unknown);
}

#[test]
fn frequency_without_cpufreq_is_unknown_in_a_vm_and_labelled_elsewhere() {
    let tree = Tree::with(CPU);
    let in_vm = cpus(&tree, true).remove(0).frequency;
    assert_eq!(
        in_vm.current_khz.why().unwrap().text,
        "hidden by the hypervisor"
    );
    assert!(in_vm.governor.why().is_some() && in_vm.max_khz.why().is_some());
    assert_eq!(in_vm.cpuinfo_khz.get(), Ok(2_400_000));
    let bare = cpus(&tree, false).remove(1).frequency;
    assert_eq!(
        (bare.current_khz.get(), &*bare.current_source),
        (Ok(2_500_000), "/proc/cpuinfo")
    );
}

#[test]
fn frequency_governor_and_heat_come_from_cpufreq() {
    let tree = Tree::with(CPU);
    let dir = "sys/devices/system/cpu/cpu0";
    for (file, text) in [
        ("cpufreq/scaling_cur_freq", "1200000\n"),
        ("cpufreq/cpuinfo_min_freq", "800000\n"),
        ("cpufreq/cpuinfo_max_freq", "3600000\n"),
        ("cpufreq/scaling_governor", "powersave\n"),
        ("thermal_throttle/core_throttle_count", "7\n"),
        ("thermal_throttle/core_throttle_total_time_ms", "120\n"),
    ] {
        tree.write(&format!("{dir}/{file}"), text);
    }
    let cpu = cpus(&tree, true).remove(0);
    assert_eq!(
        (cpu.frequency.current_khz.get(), cpu.frequency.max_khz.get()),
        (Ok(1_200_000), Ok(3_600_000))
    );
    assert!(cpu.frequency.current_source.ends_with("scaling_cur_freq"));
    assert_eq!(cpu.frequency.governor, Fact::Known("powersave".into()));
    assert_eq!(cpu.core_throttle_count.get(), Ok(7));
    assert_eq!(cpu.core_throttle_ms.get(), Ok(120));
    assert!(cpu.package_throttle_count.why().is_some());
    tree.write(&format!("{dir}/cpufreq/scaling_governor"), "\n");
    let governor = cpus(&tree, true).remove(0).frequency.governor;
    assert!(governor.why().is_some(), "an empty governor is no governor");
}

#[test]
fn the_machine_is_read_from_its_files() {
    let tree = Tree::with(CPU);
    for (path, text) in [
        ("cpuinfo", "processor\t: 0\nflags\t\t: fpu hypervisor sse\n"),
        ("meminfo", include_str!("fixtures/meminfo")),
        ("loadavg", "1.50 0.25 0.05 1/100 4711\n"),
        ("sys/fs/file-nr", "1024\t24\t9223372036854775807\n"),
        ("sys/kernel/shmmax", "18446744073692774399\n"),
        ("sys/kernel/perf_event_paranoid", "-1\n"),
        ("sys/kernel/numa_balancing", "1\n"),
        (
            "vmstat",
            "numa_hint_faults_local 3\nnuma_hint_faults 7\nnuma_pages_migrated 1\n",
        ),
        (
            "sys/kernel/random/boot_id",
            "59807616-e1fa-2540-724b-fbac14d7976d\n",
        ),
        (
            "pressure/cpu",
            "some avg10=1.25 avg60=0.00 avg300=0.00 total=77\n",
        ),
    ] {
        tree.write(&format!("proc/{path}"), text);
    }
    tree.write(
        "sys/kernel/mm/transparent_hugepage/shmem_enabled",
        "always within_size [advise] never\n",
    );
    let host = HostReader::new(&tree.options()).read(1, &mut Vec::new());
    assert_eq!(host.hypervisor.get(), Ok(true));
    let memory = Memory {
        total_bytes: 16_000_000 << 10,
        available_bytes: 9_000_000 << 10,
        swap_used_bytes: Some(3 << 10),
    };
    assert_eq!(host.memory.get(), Ok(memory));
    let huge = host.huge_pages.get().unwrap();
    assert_eq!((huge.total, huge.free, huge.reserved), (32, 5, 2));
    assert_eq!(huge.size_bytes, 2 << 20);
    assert_eq!(
        host.load.get(),
        Ok(LoadAverage {
            one: 1.5,
            five: 0.25,
            fifteen: 0.05
        })
    );
    assert_eq!(host.file_nr.get().unwrap().used, 1000);
    assert_eq!(host.numa_hint_faults.get(), Ok(7));
    assert_eq!(host.shmmax_bytes.get(), Ok(18446744073692774399));
    assert_eq!(host.perf_event_paranoid.get(), Ok(-1));
    assert_eq!(
        host.boot_id,
        Fact::Known("59807616e1fa2540724bfbac14d7976d".into())
    );
    assert_eq!(host.shmem_enabled, Fact::Known("advise".into()));
    let cpu = host.pressure["cpu"].known().unwrap();
    assert_eq!(
        (cpu.some.avg10, cpu.some.total_us, cpu.full),
        (1.25, 77, None)
    );
    assert!(host.pressure["io"].why().is_some());
    assert!(host.memfd_noexec.why().is_some());
}
