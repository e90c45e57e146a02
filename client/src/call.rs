//! Having functions run.

use nigh_proto::{Call, Endpoint, PlatformError, Reply};

/// What a caller accepts and does at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerLimits {
    /// Bytes of an answer's payload, at most.
    pub answer_bytes_max: usize,
    /// Payloads over this many bytes travel in parts, so that they hold up nobody else on the connection.
    pub unary_bytes_max: usize,
    /// Calls under way on one [`CallStream`]; further ones wait, within their deadline.
    pub stream_calls_max: usize,
}

impl Default for CallerLimits {
    fn default() -> Self {
        Self { answer_bytes_max: 64 << 20, unary_bytes_max: 1 << 20, stream_calls_max: 512 }
    }
}

/// Has functions run by one broker (or one computer). Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Caller {}

impl Caller {
    /// A caller of this broker; connects with the first call and again whenever the connection is lost.
    pub fn new(_broker: Endpoint, _limits: CallerLimits) -> Self {
        unimplemented!()
    }

    /// Makes one call and waits for its outcome, no longer than its deadline.
    ///
    /// # Errors
    /// [`PlatformError`]; an error of the function itself is an outcome, not an error.
    pub async fn invoke(&self, _call: Call) -> Result<Reply, PlatformError> {
        unimplemented!()
    }

    /// Opens a stream that many calls share.
    ///
    /// # Errors
    /// [`PlatformError`] where the broker cannot be reached.
    pub async fn open_stream(&self) -> Result<CallStream, PlatformError> {
        unimplemented!()
    }
}

/// One stream to a broker with many calls under way on it.
#[derive(Debug)]
pub struct CallStream {}

impl CallStream {
    /// Makes one call; dropping the future cancels it.
    ///
    /// # Errors
    /// As [`Caller::invoke`].
    pub async fn invoke(&self, _call: Call) -> Result<Reply, PlatformError> {
        unimplemented!()
    }
}
