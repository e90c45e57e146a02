//! What every door for HTTP asks of a request before it looks at what the request is for: may its sender call, is its body
//! within its limit, does it come in time, and is there room for it.

use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;

use super::http::request;
use crate::access;
use crate::call::CallLimits;
use crate::connections::ServerLimits;
use crate::intake::{Intake, Share};
use crate::status::PlatformError;
use crate::tls::HttpClients;
use crate::tls::connection::{Peer, Proof};

/// The limits of one door for HTTP. What comes through several with one gate counts together.
#[derive(Debug, Clone)]
pub struct Gate {
    clients: HttpClients,
    limits: CallLimits,
    intake: Intake,
}

impl Gate {
    /// For a door with these limits.
    pub fn new(clients: HttpClients, limits: CallLimits, server: &ServerLimits) -> Self {
        Self { clients, limits, intake: Intake::new(server) }
    }

    /// What is accepted of one call.
    pub fn limits(&self) -> &CallLimits {
        &self.limits
    }

    /// Whether this peer may call.
    ///
    /// # Errors
    /// As of [`access::allow`].
    pub fn check(&self, peer: &Peer) -> Result<(), PlatformError> {
        match (self.clients, &*peer.proof) {
            (HttpClients::Anybody, Proof::Nobody) => Ok(()),
            _ => access::allow(peer, "call functions", access::CALLERS),
        }
    }

    /// Reads a body of at most so many bytes, which has to come in time.
    ///
    /// # Errors
    /// [`Reason::TooLarge`](crate::Reason::TooLarge), [`Reason::Late`](crate::Reason::Late),
    /// [`Reason::OutOfBudget`](crate::Reason::OutOfBudget) where all bodies together are too large, or
    /// [`Reason::Malformed`](crate::Reason::Malformed) where it breaks off.
    pub async fn read<B>(
        &self,
        headers: &HeaderMap,
        body: B,
        bytes_max: usize,
        deadline: Instant,
    ) -> Result<Arrived, PlatformError>
    where
        B: Body<Data = Bytes, Error: std::fmt::Display>,
    {
        let share = self.intake.share();
        let until = deadline.min(Instant::now() + self.intake.timeout());
        let bytes = request::payload(headers, body, bytes_max, &share, until).await?;
        Ok(Arrived { bytes, _share: share })
    }
}

/// A body that is whole. It counts until this is dropped.
#[derive(Debug)]
pub struct Arrived {
    /// The body.
    pub bytes: Bytes,
    _share: Share,
}
