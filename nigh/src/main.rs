//! The program `nigh`.

fn main() -> std::process::ExitCode {
    nigh::cli::main()
}
