//! Whom a request goes to, and what its failures mean to a person.

use std::future::Future;
use std::time::Duration;

use nigh_proto::{Endpoint, PlatformError, Reason, Remote, Role, channel, status};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

/// Time for a request that is neither a call nor an upload.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What is told of an answer that makes no sense.
pub(crate) fn foreign(role: &str, what: &str) -> PlatformError {
    PlatformError::new(Reason::Protocol, format!("the {role}'s answer has no valid {what}; is it of this release?"))
}

/// The other end of a connection. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// What it should be: `broker`, `controller`, `node`.
    role: &'static str,
    remote: Remote,
    channel: Channel,
}

impl Peer {
    /// Connects with the first request, and again whenever the connection is lost.
    pub(crate) fn new(role: &'static str, remote: Remote, roles: &'static [Role]) -> Self {
        let remote = remote.expecting(roles);
        let channel = channel::connect_lazy(remote.clone());
        Self { role, remote, channel }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.remote.endpoint
    }

    /// Where it is and how it is connected to.
    pub(crate) fn remote(&self) -> &Remote {
        &self.remote
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The answer to a request, if it comes within [`REQUEST_TIMEOUT`].
    pub(crate) async fn request<T>(
        &self,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, PlatformError> {
        self.request_within(REQUEST_TIMEOUT, answer).await
    }

    pub(crate) async fn request_within<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, PlatformError> {
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => Ok(answer.map_err(|status| self.explain(status))?.into_inner()),
            Err(_) => Err(self.silent(limit)),
        }
    }

    /// No answer came in this time.
    pub(crate) fn silent(&self, limit: Duration) -> PlatformError {
        let (role, endpoint) = (self.role, self.endpoint());
        PlatformError::new(Reason::Late, format!("no answer from the {role} at {endpoint} within {limit:?}"))
    }

    /// What a status means. One that comes from the peer says so itself; one that the connection made needs the names of
    /// those who should be connected.
    pub(crate) fn explain(&self, status: Status) -> PlatformError {
        let (role, endpoint) = (self.role, self.endpoint());
        if let Some(why) = status::refused_by_tls(&status) {
            let message = format!("no connection to the {role} at {endpoint}: {why}");
            return PlatformError::new(Reason::Unauthenticated, message);
        }
        let cause = status::innermost_cause(&status);
        let is_unproved = status.code() == Code::Unauthenticated;
        let is_foreign = status.code() == Code::Unimplemented;
        let mut error = PlatformError::from(status);
        if is_unproved {
            error.message = format!("the {role} at {endpoint} does not know who this is: {}", error.message);
        } else if is_foreign {
            error.message = format!(
                "what answers at {endpoint} is no {role} of this release ({}); is the address right?",
                error.message
            );
        } else if let Some(cause) = cause {
            error.message = match error.reason {
                Reason::Unreachable => {
                    format!("cannot connect to the {role} at {endpoint} ({cause}); is `nigh up` running there?")
                }
                Reason::Disconnected => {
                    format!(
                        "the connection to the {role} at {endpoint} broke ({cause}); what was asked for may have been done"
                    )
                }
                Reason::Late => format!("no answer from the {role} at {endpoint} before the deadline"),
                _ => format!("{} (the {role} at {endpoint}: {cause})", error.message),
            };
        }
        error
    }
}
