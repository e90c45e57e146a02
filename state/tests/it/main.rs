//! The keeping of states: moves under crashes, leases, sessions.

mod moves;
mod sessions;
mod world;
