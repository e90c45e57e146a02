//! A computer: it admits a call, takes an instance, runs the guest within hard limits, and says where the time went.
//!
//! The rooms, in the order that a call meets them:
//!
//! | room | what happens |
//! |---|---|
//! | `ingress` | a message becomes a checked call |
//! | `states` | the states that its function depends on are leased to it |
//! | `admission` | is the function ready, is there room, can the deadline be met? If not, a typed refusal at once |
//! | `schedule` | calls wait: first come first served within a function, functions in turn, all within the budgets |
//! | `crew` | the call computes in slices: a brief one where it arrived, others on threads of their own |
//! | `run`, `pool`, `instance` | a fresh instance: newly made, or one kept that was made as new (or, where deployed so, left as it was) |
//! | `native`, `command`, `http` | the three ways into a guest |
//! | `host` | what the guest may touch |
//! | `outcome`, `measure`, `estimate`, `metrics`, `logs`, `utilisation` | what is said and remembered of it |
//!
//! Beside them: `engine`, `epoch`, `module`, `compile`, `expose`, `bulk`, `sections` and `cache` make code ready to run, `residency` says how
//! much of it stays in memory; `reset`, `pages` and `faults` make an instance as new; `discovery` learns from the controller
//! what to run, and announces what can be run; `serve` is the computer's life as a role.
//!
//! All that `serve`, `ingress` and `discovery` know of a computer is `computing`. Where its functions do not run here, `front` takes
//! the place of the rooms from `admission` to `host`, with one of two behind it: `modelled` hardware, or a `remote` system.
//!
//! A guest is hostile from its first instruction: every number that it hands over is checked, every resource is
//! bounded, a trapped instance is never used again, and no byte of one call is visible to the next unless its function
//! was deployed with reuse.

mod admission;
mod bulk;
mod cache;
mod chain;
mod command;
mod compile;
mod computer;
mod computing;
mod config;
mod crew;
mod discovery;
mod engine;
mod epoch;
mod error;
mod estimate;
mod expose;
mod faults;
mod front;
mod function;
mod host;
mod http;
mod ingress;
mod instance;
mod logs;
mod measure;
mod metrics;
mod modelled;
mod module;
mod native;
mod number;
mod outcome;
mod pages;
mod pool;
mod probe;
mod remote;
mod reset;
mod residency;
mod run;
mod schedule;
mod sections;
mod serve;
mod span;
mod states;
mod threads;
mod utilisation;

/// What is done to a module before it is compiled, for the benches to compare with what is not.
#[doc(hidden)]
pub use bulk::in_pieces as in_pieces_for_benches;
pub use compile::child::compile_for_parent;
/// The engine that a computer of this configuration has, for the benches to compare with.
#[doc(hidden)]
pub use engine::start as engine_for_benches;
/// The door of a computer for HTTP, for the benches to have it without a controller.
#[doc(hidden)]
pub use ingress::serve_http as serve_http_for_benches;

pub use computer::Computer;
pub use config::{Backend, CompilerProgram, Config, OfferedDirectory};
pub use error::{Error, PrepareError};
pub use remote::{Credentials, RemoteApi, RemoteFunction, RemoteSettings, RootUrl, UrlTemplate};
pub use serve::{Listeners, run};
