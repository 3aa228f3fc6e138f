//! What can't be meant is told in one sentence, with what could.

use crate::run;

#[test]
fn a_mistake_on_the_command_line_is_exit_2_and_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &str); 31] = [
        (&["check"], "were not provided: --assert <EXPR>; see --help"),
        (
            &["-p", "abc", "ps"],
            "invalid value 'abc' for '--pid <PID>'",
        ),
        (&["ps", "-f", "xml"], "[possible values: table, json, csv"),
        (&["snapsho"], "a similar subcommand exists: 'snapshot'"),
        (
            &["--theme", "pink"],
            "choose one of dark, light, contrast, mono",
        ),
        (&["export", "--listen", "here"], "e.g. 127.0.0.1:9752"),
        (&["explain", "FD-HEADROOM"], "did you mean fd-headroom?"),
        (&["explain", "nope"], "`shmtop explain` lists all"),
        (&["replay", "/"], "Is a directory"),
        (&["snapshot", "-d", "5"], "give a unit"),
        (&["explain", "fd-headrom"], "did you mean fd-headroom?"),
        (&["replay", "/nonexistent"], "/nonexistent: No such file"),
        (&["--sort", "speed", "ps"], "no such column"),
        (&["ps", "-f", "csv"], "no format csv"),
        (
            &["check", "--assert", "rps>0", "-f", "json"],
            "no format json",
        ),
        (&["diff", "a", "b", "-f", "json"], "no format json"),
        (
            &["doctor", "--filter", "shm"],
            "--filter is for lists of clients (dashboard, snapshot, replay on a terminal); here -p and --name choose",
        ),
        // What is printed of a recording lists none.
        (
            &["replay", "/nonexistent", "--sort", "p99"],
            "--sort is for lists of clients",
        ),
        (
            &["replay", "/nonexistent", "--at", "5s", "--filter", "shm"],
            "--filter is for lists of clients",
        ),
        (
            &["ps", "--sort", "p99"],
            "--sort is for lists of clients (dashboard, snapshot, replay on a terminal)",
        ),
        (
            &["explain", "--sort", "p99"],
            "--sort is for lists of clients",
        ),
        (
            &["man", "--filter", "shm"],
            "--filter is for lists of clients",
        ),
        (
            &["completions", "bash", "--filter", "shm"],
            "--filter is for lists of clients",
        ),
        // What would be expected to change what is printed, and does not, is refused.
        (&["ps", "-n", "3"], "-n is for snapshot and record"),
        (&["config", "-f", "json"], "no formats"),
        (&["record", "/nonexistent/r", "-f", "json"], "no formats"),
        (
            &["doctor", "-d", "15s"],
            "a delay of 15 s is too long for hints: they compare looks that are at most 10 s apart",
        ),
        (&["snapshot", "-n", "0"], "0 is not in"),
        (
            &["snapshot", "-n", "2", "-f", "prom"],
            "a file of metrics holds one sample",
        ),
        (
            &["diff", "/dev/null", "/dev/null"],
            "not a shmtop recording",
        ),
        (&["frobnicate"], "unrecognized subcommand"),
    ];
    for (args, says) in cases {
        let (code, out, err) = run(dir.path(), args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(err.contains(says), "{args:?}: {err}");
        assert!(
            err.starts_with("shmtop: ") && err.lines().count() == 1,
            "{args:?}: {err}"
        );
    }
    let (code, out, err) = run(dir.path(), &["check", "--assert", "rps>1 && p99us<5"]);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    let shown = "no figure has this name; did you mean p99_us?\n  rps>1 && p99us<5\n           ^\n";
    assert!(err.ends_with(shown), "{err}");
}
