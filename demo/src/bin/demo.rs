//! The demo; see [`demo::demo`].

fn main() -> std::process::ExitCode {
    demo::demo::main(std::env::args_os())
}
