//! The program `nigh` itself, once more as a binary of this package, so that the tests need not look for it.

fn main() -> std::process::ExitCode {
    nigh::cli::main()
}
