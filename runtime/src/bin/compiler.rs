//! Compiles one module for a computer and ends. The program `nigh` does the same under `nigh compile`; this one is for the
//! tests and benches of this crate, and for those who embed it.

fn main() -> std::process::ExitCode {
    nigh_runtime::compile_for_parent()
}
