//! States: named data of the application, beside the calls. A function reads and writes those that it was deployed with
//! (`nigh deploy --state NAME`), and no others.
//!
//! ```
//! use nigh_sdk::{Error, Request, Response, state};
//!
//! fn count(_: Request) -> Result<Response, Error> {
//!     let visits: u64 = state::get_text("visits")?.and_then(|visits| visits.parse().ok()).unwrap_or(0);
//!     state::put("visits", (visits + 1).to_string())?;
//!     Ok(Response::text(format!("{} visits", visits + 1)))
//! }
//!
//! assert_eq!(count(Request::new("")).unwrap().payload(), b"1 visits");
//! assert_eq!(count(Request::new("")).unwrap().payload(), b"2 visits");
//! ```
//!
//! As long as a call runs, no other call uses its states, on whichever computer. What it writes takes place once it has
//! answered: a call that fails, panics or runs out of time has written nothing.
//!
//! On other targets than Wasm, as in a crate's tests, each thread has states of its own, all of them declared.

use crate::Error;

/// The content of a state; nothing where there is none.
///
/// # Errors
/// `undeclared-state` where the function was not deployed with it.
pub fn get(name: &str) -> Result<Option<Vec<u8>>, Error> {
    host::get(name).map_err(|code| refused(name, code))
}

/// The content of a state as text; nothing where there is none.
///
/// # Errors
/// As [`get`]; `failed` where the content is not UTF-8.
pub fn get_text(name: &str) -> Result<Option<String>, Error> {
    let content = get(name)?.map(String::from_utf8).transpose();
    content.map_err(|_| Error::failed(format!("the state {name} is not UTF-8 text")))
}

/// Gives a state this content.
///
/// # Errors
/// `undeclared-state` where the function was not deployed with it, `state-too-large` where that is more than it was deployed to
/// write.
pub fn put(name: &str, content: impl AsRef<[u8]>) -> Result<(), Error> {
    host::put(name, content.as_ref()).map_err(|code| refused(name, code))
}

/// Takes a state's content away; one that has none stays as it is.
///
/// # Errors
/// As [`get`].
pub fn delete(name: &str) -> Result<(), Error> {
    host::delete(name).map_err(|code| refused(name, code))
}

/// What the host said instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Undeclared,
    TooLarge,
    /// A host of another release.
    Other(i64),
}

impl Refused {
    /// What a code other than a length stands for.
    #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "natively there is no host"))]
    pub(crate) fn of(code: i64) -> Self {
        match code {
            -2 => Self::Undeclared,
            -3 => Self::TooLarge,
            other => Self::Other(other),
        }
    }
}

fn refused(name: &str, refused: Refused) -> Error {
    match refused {
        Refused::Undeclared => Error::new(
            "undeclared-state",
            format!("the function was not deployed with the state {name}; deploy it with --state {name}"),
        ),
        Refused::TooLarge => Error::new(
            "state-too-large",
            format!(
                "that is more than the function may write to the state {name}; deploy it with a larger --state-bytes"
            ),
        ),
        Refused::Other(code) => Error::failed(format!("the host does not know the state {name} ({code})")),
    }
}

#[cfg(target_arch = "wasm32")]
use crate::abi::state as host;

#[cfg(not(target_arch = "wasm32"))]
mod host {
    use std::cell::RefCell;
    use std::collections::HashMap;

    use super::Refused;

    thread_local! {
        static STATES: RefCell<HashMap<String, Vec<u8>>> = RefCell::default();
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the host of a computer has it")]
    pub(super) fn get(name: &str) -> Result<Option<Vec<u8>>, Refused> {
        Ok(STATES.with_borrow(|states| states.get(name).cloned()))
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the host of a computer has it")]
    pub(super) fn put(name: &str, content: &[u8]) -> Result<(), Refused> {
        STATES.with_borrow_mut(|states| states.insert(name.to_owned(), content.to_vec()));
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the host of a computer has it")]
    pub(super) fn delete(name: &str) -> Result<(), Refused> {
        STATES.with_borrow_mut(|states| states.remove(name));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_kept_for_a_thread() {
        assert_eq!(get("cart").unwrap(), None);
        put("cart", "apple").unwrap();
        assert_eq!(get_text("cart").unwrap().as_deref(), Some("apple"));
        put("cart", [0xff]).unwrap();
        assert_eq!(get_text("cart").unwrap_err().kind(), "failed");
        delete("cart").unwrap();
        assert_eq!(get("cart").unwrap(), None);
    }

    #[test]
    fn what_the_host_refuses_says_what_to_do() {
        let error = refused("cart", Refused::of(-2));
        assert_eq!(error.kind(), "undeclared-state");
        assert!(error.message().contains("--state cart"), "{}", error.message());
        assert_eq!(refused("cart", Refused::of(-3)).kind(), "state-too-large");
        assert_eq!(refused("cart", Refused::of(-9)).kind(), "failed");
    }
}
