//! The whole system: in one process, as real processes, with hostile guests, and the invariants of its code.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::cast_possible_truncation, reason = "the tests' numbers are small")]

mod asynchronous;
mod clients;
mod cloudevents;
mod corpus;
mod doors;
mod edge;
mod flows;
mod hostile;
mod hostile_abi;
mod hostile_neighbour;
mod http;
mod http_door;
mod lambda;
mod load;
mod modelled;
#[path = "../../store/tests/it/nats_server.rs"]
mod nats_server;
mod network;
mod openfaas;
mod openwhisk;
mod processes;
mod remote;
mod shared;
mod states;
mod tidy;
mod tls;
mod triggers;
mod watching;

/// Time for anything that a test waits for.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
