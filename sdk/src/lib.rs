//! What a Nigh function is written against.
//!
//! A function is one Rust function from [`Request`] to [`Result<Response, Error>`](Error), named to [`function!`]:
//!
//! ```
//! use nigh_sdk::{Error, Request, Response};
//!
//! nigh_sdk::function!(greet);
//!
//! fn greet(request: Request) -> Result<Response, Error> {
//!     let name = request.text()?;
//!     if name.is_empty() {
//!         return Err(Error::bad_input("whom shall I greet? Send a name as payload"));
//!     }
//!     nigh_sdk::info!("greeting {name}");
//!     Ok(Response::text(format!("Hello, {name}!")))
//! }
//!
//! // The same function runs under plain `cargo test`:
//! assert_eq!(greet(Request::new("Ada")).unwrap().payload(), b"Hello, Ada!");
//! assert_eq!(greet(Request::new("")).unwrap_err().kind(), "bad-input");
//! ```
//!
//! Built for `wasm32-wasip1` (`nigh build` does it) the crate becomes a *native* module in the terms of the platform: a
//! reactor that is given its input straight in its own memory. It may use all of `std` that WASI offers; files and
//! network are there only where they were granted when the function was deployed, and so are [`state`]s.

mod entry;
mod io;
mod log;

#[doc(hidden)]
pub mod abi;
pub mod state;

pub use io::{Error, Request, Response};
pub use log::{Level, log};
