//! The trader; see [`demo::trader`].

fn main() -> std::process::ExitCode {
    demo::trader::main(std::env::args_os())
}
