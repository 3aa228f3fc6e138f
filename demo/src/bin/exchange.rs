//! The exchange; see [`demo::exchange`].

fn main() -> std::process::ExitCode {
    demo::exchange::main(std::env::args_os())
}
