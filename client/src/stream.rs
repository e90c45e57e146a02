//! Many calls on one stream: pipelined, their payloads in parts, each cancelled by itself.

use std::time::Instant;

use nigh_proto::stream;
use nigh_proto::v1::functions_client::FunctionsClient;
use nigh_proto::{Call, PlatformError, Reply};
use tonic::Response;
use tonic::transport::Channel;

use crate::call::{CallerLimits, with_network};
use crate::peer::Peer;

/// One stream to a broker with many calls under way on it. Once it breaks, every call fails; open another then.
#[derive(Debug)]
pub struct CallStream {
    peer: Peer,
    stream: stream::CallStream,
}

impl CallStream {
    pub(crate) async fn open(
        peer: Peer,
        client: FunctionsClient<Channel>,
        limits: &CallerLimits,
    ) -> Result<Self, PlatformError> {
        let limits = stream::StreamLimits {
            calls_max: limits.stream_calls_max,
            answer_bytes_max: limits.answer_bytes_max,
            answers_bytes_max: limits.stream_answer_bytes_max,
        };
        let opening = async { stream::CallStream::open(client, &limits).await.map(Response::new) };
        let stream = peer.request_within(stream::OPEN_TIMEOUT, opening).await?;
        Ok(Self { peer, stream })
    }

    /// Makes one call and waits for its outcome, no longer than its deadline. Dropping the future cancels the call.
    ///
    /// # Errors
    /// As [`Caller::invoke`](crate::Caller::invoke).
    pub async fn invoke(&self, call: Call) -> Result<Reply, PlatformError> {
        let began = Instant::now();
        let invoked = tokio::time::timeout_at(call.deadline.into(), self.stream.invoke(&call)).await;
        let response = invoked.map_err(|_| self.peer.silent(call.time_left(began)))?;
        let reply = Reply::from_wire(response.map_err(|status| self.peer.explain(status))?)?;
        Ok(with_network(reply, began.elapsed()))
    }
}
