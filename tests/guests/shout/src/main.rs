//! A plain program without the SDK: standard input in capitals to standard output. It fails on input without letters.

use std::io::{Read, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut input = String::new();
    if let Err(error) = std::io::stdin().read_to_string(&mut input) {
        return fail(&format!("cannot read: {error}"));
    }
    if !input.chars().any(char::is_alphabetic) {
        return fail("nothing to shout");
    }
    match std::io::stdout().write_all(input.to_uppercase().as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot write: {error}")),
    }
}

fn fail(why: &str) -> ExitCode {
    // Standard error is the function's log; failing to write there changes nothing.
    let _ = writeln!(std::io::stderr(), "{why}");
    ExitCode::from(3)
}
