//! A computer as its callers see it: guests in WAT go in by `deploy`, calls by `handle` or over its port.

// So that clippy takes all of it for tests.
#![cfg(test)]

mod ahead;
mod cache;
mod compile;
mod directories;
mod goes_away;
mod guests;
mod isolation;
mod limits;
mod metrics;
mod modelled;
mod outcomes;
mod remote;
mod residency;
mod role;
mod set_up;
mod slices;
