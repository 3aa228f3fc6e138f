//! The shmtop command: a thin shell around the library.

fn main() -> std::process::ExitCode {
    shmtop::run(std::env::args_os())
}
