//! How one peer is called: over a kept stream that small calls share, each of which then costs neither a request of its own in
//! HTTP/2 nor a task on either side; by itself where there is no stream, or it is full, or the call is large.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::caller::{CallStream, StreamLimits, Unanswered};
use super::{OPEN_TIMEOUT, PART_BYTES};
use crate::call::Call;
use crate::v1;
use crate::v1::functions_client::FunctionsClient;

/// After one could not be opened, when the next try may be …
const OPEN_AGAIN: Duration = Duration::from_secs(1);
/// … and where the peer knows nothing of streams.
const OPEN_AGAIN_WHERE_UNKNOWN: Duration = Duration::from_secs(60);
/// Calls under way on the stream; further ones go by themselves.
const SHARED_CALLS_MAX: usize = 512;
/// Bytes that a call may carry to share the stream, so that it holds up nobody.
const SHARED_BYTES_MAX: usize = PART_BYTES;
/// Bytes of all answers arriving in parts on the stream, in multiples of the largest.
const ANSWERS_MAX: usize = 4;

/// The way to one peer. Clones share the stream.
#[derive(Debug, Clone)]
pub struct Pipeline {
    client: FunctionsClient<Channel>,
    limits: Arc<StreamLimits>,
    line: Arc<Mutex<Line>>,
}

#[derive(Debug)]
enum Line {
    /// Nobody has called yet: a lone call is no reason to open one.
    Unused,
    Closed {
        not_before: Option<Instant>,
    },
    Opening,
    Open(Arc<CallStream>),
}

impl Pipeline {
    /// To whom this client is connected, who may answer so much.
    pub fn new(client: FunctionsClient<Channel>, answer_bytes_max: usize) -> Self {
        let limits = StreamLimits {
            calls_max: SHARED_CALLS_MAX,
            answer_bytes_max,
            answers_bytes_max: answer_bytes_max.saturating_mul(ANSWERS_MAX),
        };
        Self { client, limits: Arc::new(limits), line: Arc::new(Mutex::new(Line::Unused)) }
    }

    /// The connection that it goes over.
    pub fn client(&self) -> &FunctionsClient<Channel> {
        &self.client
    }

    /// Makes one call and waits for its outcome. Dropping the future cancels the call.
    ///
    /// # Errors
    /// The peer's status, or the connection's.
    pub async fn invoke(&self, call: &Call) -> Result<v1::InvokeResponse, Status> {
        if call.carried_bytes() <= SHARED_BYTES_MAX
            && let Some(stream) = self.stream()
            && let Some(under_way) = stream.try_begin()
        {
            match under_way.make(call).await {
                Err(Unanswered::NotLookedAt(_)) => {}
                Err(Unanswered::Status(status)) => return Err(status),
                Ok(response) => return Ok(response),
            }
        }
        let response = self.client.clone().invoke(call.to_request(Instant::now())).await?;
        Ok(response.into_inner())
    }

    /// The stream, if there is one. Where there is none, it will be there for a later call.
    fn stream(&self) -> Option<Arc<CallStream>> {
        let mut line = self.line.lock();
        match &*line {
            Line::Open(stream) if !stream.is_over() => return Some(stream.clone()),
            Line::Unused => *line = Line::Closed { not_before: None },
            Line::Closed { not_before: Some(not_before) } if Instant::now() < *not_before => {}
            Line::Open(_) | Line::Closed { .. } => {
                *line = Line::Opening;
                tokio::spawn(open(self.client.clone(), self.limits.clone(), Arc::downgrade(&self.line)));
            }
            Line::Opening => {}
        }
        None
    }
}

async fn open(client: FunctionsClient<Channel>, limits: Arc<StreamLimits>, line: Weak<Mutex<Line>>) {
    let opened = tokio::time::timeout(OPEN_TIMEOUT, CallStream::open(client, &limits)).await;
    let Some(line) = line.upgrade() else { return };
    let again = match opened {
        Ok(Ok(stream)) => {
            *line.lock() = Line::Open(Arc::new(stream));
            return;
        }
        Ok(Err(status)) if status.code() == Code::Unimplemented => OPEN_AGAIN_WHERE_UNKNOWN,
        Ok(Err(_)) | Err(_) => OPEN_AGAIN,
    };
    *line.lock() = Line::Closed { not_before: Some(Instant::now() + again) };
}
