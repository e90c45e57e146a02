//! Where a call goes: per function a set of destinations, a [policy](Policy) to choose among them, the latency
//! measured of each, and whether it is in use, set aside or being probed.
//!
//! Pure decisions: no I/O, no clock, no global randomness. Time is a `Duration` since an arbitrary start and randomness a
//! generator, both handed in, so that a simulation runs the very same code as a broker.
//!
//! ```
//! use std::time::Duration;
//! use nigh_routing::{Demand, Member, Observation, Policy, Scope, Table};
//! use rand::SeedableRng as _;
//!
//! let mut rng = rand::rngs::ChaCha8Rng::seed_from_u64(1);
//! let mut table = Table::new(Policy::default());
//! let start = Duration::ZERO;
//! let computer = |destination| Member { destination, is_final: true };
//! table.set_destinations("echo", &["near", "far"].map(computer), start);
//! let demand = Demand { scope: Scope::Overall, exclude: None, payload_bytes: 100 };
//! let pick = table.pick("echo", demand, start, &mut rng)?;
//! let latency = Duration::from_millis(3);
//! table.observe("echo", &pick, Observation::answered(latency), start + latency);
//! # Ok::<(), nigh_routing::PickError>(())
//! ```

mod budget;
mod choice;
mod conf;
pub mod estimate;
pub mod forwarding;
mod health;
pub mod install;
mod latency;
mod outcome;
mod peak;
mod peer;
mod percentile;
mod policy;
mod predict;
mod route;
mod slot;
mod table;
mod tree;

pub use budget::RetryBudget;
pub use conf::{Conf, ConfError};
pub use health::{
    Cause, DEAD_PROBE_PATIENCE, DEAD_WAIT_MAX, DEAD_WAIT_MIN, REFUSING_PROBE_PATIENCE, REFUSING_WAIT_DEFAULT,
    REFUSING_WAIT_MAX,
};
pub use latency::LATENCY_TAU;
pub use outcome::{Demand, Observation, Pick, PickError, Report, Scope, State, View};
pub use percentile::Latencies;
pub use policy::{Policy, Strategy};
pub use route::CHOICES_PER_MEASUREMENT;
pub use slot::{STALE_AFTER_MAX, STALE_AFTER_MIN};
pub use table::{Member, Table};
