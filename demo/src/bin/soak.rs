//! The soak; see [`demo::soak`].

fn main() -> std::process::ExitCode {
    demo::soak::main(std::env::args_os())
}
