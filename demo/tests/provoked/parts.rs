//! The parts that the test program plays itself: processes that misbehave in a way no option of the demo's programs offers, and
//! those programs and shmtop as another user or under a filter.
//!
//! The command line is a list of conditions (`nobody`, `ipc`, `noperf`, `nofile=N`, …) and then a part with its arguments.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use transport::error::RequestError;
use transport::stats::registry::default_dir;
use transport::{Config, Membrane, Reply, Synapse, WaitPolicy};

use crate::kernel;

type Played = Result<(), Box<dyn Error>>;

/// Plays a part, if these words name one.
pub(crate) fn play(words: &[String]) -> Option<ExitCode> {
    let mut words: &[String] = words;
    loop {
        let (first, rest) = words.split_first()?;
        let set_up = match first.as_str() {
            "nobody" => kernel::become_nobody(),
            "ipc" => {
                kernel::own_ipc().and_then(|()| std::fs::write("/proc/sys/kernel/shmmax", "4096"))
            }
            "noperf" => kernel::forbid(libc::SYS_perf_event_open, None, libc::EACCES),
            "lock-what-comes" => kernel::lock_what_comes(),
            condition => match limit(condition) {
                Some(set) => set,
                None => return part(first, rest),
            },
        };
        if let Err(e) = set_up {
            eprintln!("{first}: {e}");
            return Some(ExitCode::from(99));
        }
        words = rest;
    }
}

/// `nofile=N` or `memlock=BYTES`.
fn limit(condition: &str) -> Option<std::io::Result<()>> {
    let (name, value) = condition.split_once('=')?;
    let resource = match name {
        "nofile" => libc::RLIMIT_NOFILE,
        "memlock" => libc::RLIMIT_MEMLOCK,
        _ => return None,
    };
    Some(kernel::limit(0, resource, Some(value.parse().ok()?)))
}

fn part(name: &str, args: &[String]) -> Option<ExitCode> {
    let command_line = || std::iter::once(name).chain(args.iter().map(String::as_str));
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let played = match name {
        "shmtop" => return Some(shmtop::run(command_line())),
        "exchange" => return Some(demo::exchange::main(command_line().map(Into::into))),
        "trader" => return Some(demo::trader::main(command_line().map(Into::into))),
        "server" => server(&words),
        "client" => client(&words),
        "hog" => hog(&words, None),
        "knocker" => hog(&words, Some(Duration::from_millis(2))),
        "holder" => holder(&words),
        "eater" => eater(&words),
        _ => return None,
    };
    Some(match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{name} {words:?}: {e}");
            ExitCode::from(98)
        }
    })
}

/// Says that it is ready; whoever started it waits for the line.
fn ready(what: &str) -> Played {
    let mut out = std::io::stdout();
    writeln!(out, "{what}")?;
    out.flush()?;
    Ok(())
}

/// Until it is killed.
fn stay() -> ! {
    loop {
        std::thread::park();
    }
}

/// A server whose surroundings or handler are broken.
fn server(words: &[&str]) -> Played {
    let mut config = Config {
        name: "server".into(),
        ..Config::default()
    };
    let kind = words.first().copied().unwrap_or_default();
    match kind {
        "huge-pages" => config.huge_pages = true,
        "small-rings" => config = small(config),
        _ => {}
    }
    let count = std::sync::atomic::AtomicU64::new(0);
    let tail = kind == "tail";
    let handler = move |request: &[u8], reply: &mut Reply<'_>| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // Hundreds a second: of each window's timed requests, few as they are, some meet it.
        if tail && n.is_multiple_of(200) {
            std::thread::sleep(Duration::from_millis(2));
        }
        // A reply that does not fit is the client's error to see.
        _ = reply.extend_from_slice(request);
    };
    let membrane = Membrane::bind(default_dir().join("exchange.sock"), &config, handler)?;
    let locked = vec![
        1u8;
        if kind == "locks-most" {
            5 << 20
        } else {
            64 << 10
        }
    ];
    let mut in_flight = Vec::new();
    match kind {
        "no-memfd" => kernel::forbid(libc::SYS_memfd_create, None, libc::EPERM)?,
        "no-seals" => kernel::forbid(libc::SYS_fcntl, Some(libc::F_ADD_SEALS as u32), 0)?,
        "locks-a-key" | "locks-most" => kernel::lock(&locked)?,
        "in-flight" => in_flight = fill_the_air()?,
        _ => {}
    }
    ready(&format!("listening on {}", membrane.path().display()))?;
    let _kept = (in_flight, locked);
    stay()
}

fn small(config: Config) -> Config {
    Config {
        ring_bytes: 64 << 10,
        max_message_bytes: 16 << 10,
        ..config
    }
}

/// Sends descriptors that nobody receives until the kernel wants no more of this user's in flight.
fn fill_the_air() -> Result<Vec<UnixStream>, Box<dyn Error>> {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let (a, b) = UnixStream::pair()?;
    let fds = [a.as_raw_fd(); 16];
    loop {
        let rights = [ControlMessage::ScmRights(&fds)];
        let part = [std::io::IoSlice::new(b"x")];
        match sendmsg::<()>(a.as_raw_fd(), &part, &rights, MsgFlags::MSG_DONTWAIT, None) {
            Ok(_) => {}
            Err(nix::errno::Errno::ETOOMANYREFS) => return Ok(vec![a, b]),
            Err(e) => return Err(e.into()),
        }
    }
}

fn connect(config: &Config) -> Result<Synapse, Box<dyn Error>> {
    let synapse = Synapse::connect(default_dir().join("exchange.sock"), config)?;
    ready(if synapse.is_shm() {
        "on shm"
    } else {
        "on the socket"
    })?;
    Ok(synapse)
}

/// The exchange does not understand what these clients say, which is an answer too.
fn answered(reply: Result<&[u8], RequestError>) -> Result<(), RequestError> {
    match reply {
        Ok(_) | Err(RequestError::Remote { .. }) => Ok(()),
        Err(e) => Err(e),
    }
}

/// A client that does what no good one does.
fn client(words: &[&str]) -> Played {
    let kind = words.first().copied().unwrap_or_default();
    let mut config = Config {
        name: kind.to_owned(),
        wait: WaitPolicy::Park,
        ..Config::default()
    };
    match kind {
        // Sends, and never looks for a reply.
        "deaf" => {
            let mut synapse = connect(&config)?;
            for _ in 0..8 {
                synapse.submit(&[7; 1000])?;
            }
            stay()
        }
        // Sends until there is no room anywhere, and goes on trying.
        "greedy" => {
            config = small(config);
            config.request_timeout = Duration::from_secs(3600);
            let mut synapse = connect(&config)?;
            loop {
                match synapse.submit(&[7; 10_000]) {
                    Ok(_) | Err(RequestError::Full { .. }) => std::thread::yield_now(),
                    Err(e) => return Err(e.into()),
                }
            }
        }
        // Sends what is larger than agreed.
        "too-large" => {
            let mut synapse = connect(&small(config))?;
            let request = vec![7; synapse.max_message() + 1];
            loop {
                match synapse.fire_bytes(&request) {
                    Err(RequestError::TooLarge { .. }) => {
                        std::thread::sleep(Duration::from_millis(100));
                    }
                    other => return Err(format!("{other:?}").into()),
                }
            }
        }
        // Waits less long than the handler takes.
        "impatient" => {
            config.request_timeout = Duration::from_millis(2);
            let mut synapse = connect(&config)?;
            loop {
                match synapse.fire_bytes(&[7; 100]) {
                    Ok(_) | Err(RequestError::Timeout { .. } | RequestError::Remote { .. }) => {}
                    Err(e) => return Err(e.into()),
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        // Has no place for a descriptor that it is sent.
        "no-room" => {
            // The socket takes the last one; nothing is left for the rings.
            let free: u64 = words.get(1).ok_or("how many?")?.parse()?;
            kernel::leave_descriptors(std::process::id() as i32, free)?;
            let _synapse = connect(&config)?;
            stay()
        }
        // Takes fresh memory for every tenth request and gives it back. Not for each: a thread that waits for less than half of
        // its CPU time is told at info only, and what a fault costs differs by machine (huge pages, a hypervisor).
        "forgetful" => {
            let mut synapse = connect(&config)?;
            loop {
                // More than malloc ever keeps: it comes from the kernel, and untouched.
                let mut request = vec![0u8; 33 << 20];
                let pages = request.iter_mut().step_by(4096);
                pages.take(2).for_each(|b| *b = 7);
                for _ in 0..10 {
                    answered(synapse.fire_bytes(&request[..64]))?;
                }
                std::hint::black_box(&request);
            }
        }
        "plain" => {
            config.request_timeout = Duration::from_secs(3600);
            config.max_message_bytes = 16 << 10;
            let mut synapse = connect(&config)?;
            loop {
                answered(synapse.fire_bytes(&[7; 100]))?;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        other => Err(format!("no client is {other:?}").into()),
    }
}

/// Keeps a CPU busy, or wants it for 100 µs after each pause.
fn hog(words: &[&str], pause: Option<Duration>) -> Played {
    let mut cpus = nix::sched::CpuSet::new();
    cpus.set(words.first().ok_or("which CPU?")?.parse()?)?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpus)?;
    ready("busy")?;
    let parent = std::os::unix::process::parent_id();
    // Its end is the test's business, but a hog without a test would stay for ever.
    while std::os::unix::process::parent_id() == parent {
        let until = std::time::Instant::now() + Duration::from_micros(100);
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
        if let Some(pause) = pause {
            std::thread::sleep(pause);
        }
    }
    Ok(())
}

/// Opens a file and keeps it.
fn holder(words: &[&str]) -> Played {
    let _file = File::open(words.first().ok_or("which file?")?)?;
    ready("held")?;
    stay()
}

/// Waits for a file, then takes so many bytes of memory.
fn eater(words: &[&str]) -> Played {
    let [bytes, file] = words else {
        return Err("how much, and when?".into());
    };
    ready("hungry")?;
    while !std::path::Path::new(file).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let eaten = vec![1u8; bytes.parse()?];
    std::hint::black_box(&eaten);
    ready("full")
}
