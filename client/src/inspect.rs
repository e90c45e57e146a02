//! Looking into one computer or broker.

use futures_util::{Stream, StreamExt as _};
use nigh_proto::older::rpc;
use nigh_proto::older::rpc::edge_computer_client::EdgeComputerClient;
use nigh_proto::v1::broker_client::BrokerClient;
use nigh_proto::v1::computer_client::ComputerClient;
use nigh_proto::{Endpoint, FunctionName, PlatformError, Remote, Role, channel, v1};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::computer::{ComputerStatus, LogLine, LogQuery, Utilisation};
use crate::peer::Peer;
use crate::routes::{Routes, Table};

/// Bytes of an answer, at most: a status or a table with tens of thousands of functions.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Utilisation as either system streams it.
enum Samples {
    Current(Streaming<v1::UtilisationSample>),
    Older(Streaming<rpc::Utilization>),
}

/// Looks into one node: the first three requests are for a computer, the last four for a broker's tables. Cheap to clone;
/// clones share the connection.
#[derive(Debug, Clone)]
pub struct Inspect {
    peer: Peer,
}

impl Inspect {
    /// For this node: a computer's endpoint, or a broker's table endpoint.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(node: impl Into<Remote>) -> Self {
        Self { peer: Peer::new("node", node.into(), &[Role::Computer, Role::Broker]) }
    }

    /// How the computer is.
    ///
    /// # Errors
    /// [`PlatformError`] where the node cannot be reached or is no computer.
    pub async fn status(&self) -> Result<ComputerStatus, PlatformError> {
        ComputerStatus::from_wire(self.peer.request(self.computer().status(v1::StatusRequest {})).await?)
    }

    /// What functions on the computer logged of late and, with `follow`, log from now on.
    ///
    /// # Errors
    /// As [`Inspect::status`], also as the last item of the stream.
    pub async fn logs(
        &self,
        query: LogQuery,
    ) -> Result<impl Stream<Item = Result<LogLine, PlatformError>> + Send + Unpin + use<>, PlatformError> {
        let lines = self.peer.request(self.computer().logs(query.to_wire())).await?;
        let peer = self.peer.clone();
        Ok(lines.map(move |line| LogLine::from_wire(line.map_err(|status| peer.explain(status))?)))
    }

    /// How busy the computer is, once a second. Computers of the older system are understood too, where they stream that.
    ///
    /// # Errors
    /// As [`Inspect::status`], also as the last item of the stream.
    pub async fn utilisation(
        &self,
    ) -> Result<impl Stream<Item = Result<Utilisation, PlatformError>> + Send + Unpin + use<>, PlatformError> {
        let mut computer = self.computer();
        let asked = async {
            match computer.stream_utilisation(v1::UtilisationRequest {}).await {
                Ok(samples) => Ok(samples.map(Samples::Current)),
                Err(status) if status.code() == Code::Unimplemented => {
                    // What that one lacks is told as of a computer of this release.
                    let mut older = EdgeComputerClient::new(self.peer.channel());
                    older.stream_util(rpc::Void {}).await.map(|samples| samples.map(Samples::Older)).map_err(|_| status)
                }
                Err(status) => Err(status),
            }
        };
        let samples = match self.peer.request(asked).await? {
            Samples::Current(samples) => samples.map(|sample| Ok(Utilisation::from_wire(sample?))).left_stream(),
            Samples::Older(samples) => samples.map(|sample| Ok(Utilisation::from_older(sample?))).right_stream(),
        };
        let peer = self.peer.clone();
        Ok(samples.map(move |sample: Result<Utilisation, Status>| sample.map_err(|status| peer.explain(status))))
    }

    /// One of the broker's forwarding tables, of one function or of all.
    ///
    /// # Errors
    /// [`PlatformError`] where the node cannot be reached or is no broker's table.
    pub async fn routes(&self, function: Option<&FunctionName>, table: Table) -> Result<Routes, PlatformError> {
        let function = function.map(ToString::to_string).unwrap_or_default();
        let request = v1::RoutesRequest { function, table: table.to_wire().into() };
        Routes::from_wire(self.peer.request(self.broker().routes(request)).await?)
    }

    /// Adds a destination by hand, or changes its weight in milliseconds; `is_final` unless it is another broker.
    ///
    /// # Errors
    /// As [`Inspect::routes`]; [`Reason::Malformed`](nigh_proto::Reason::Malformed) for a weight that is not a positive
    /// number.
    pub async fn set_route(
        &self,
        function: &FunctionName,
        destination: &Endpoint,
        weight_ms: f64,
        is_final: bool,
    ) -> Result<(), PlatformError> {
        if !(weight_ms.is_finite() && weight_ms > 0.0) {
            return Err(PlatformError::malformed(format!("a weight of {weight_ms} ms; give a positive number")));
        }
        let (function, endpoint) = (function.to_string(), destination.to_string());
        let request = v1::SetRouteRequest { function, endpoint, weight: weight_ms, is_final: Some(is_final) };
        let v1::SetRouteResponse {} = self.peer.request(self.broker().set_route(request)).await?;
        Ok(())
    }

    /// Removes a destination from both tables.
    ///
    /// # Errors
    /// As [`Inspect::routes`].
    pub async fn remove_route(&self, function: &FunctionName, destination: &Endpoint) -> Result<(), PlatformError> {
        let (function, endpoint) = (function.to_string(), destination.to_string());
        let request = v1::RemoveRouteRequest { function, endpoint };
        let v1::RemoveRouteResponse {} = self.peer.request(self.broker().remove_route(request)).await?;
        Ok(())
    }

    /// Removes every destination of every function from both tables; those that a controller announces come back.
    ///
    /// # Errors
    /// As [`Inspect::routes`].
    pub async fn flush_routes(&self) -> Result<(), PlatformError> {
        let v1::FlushRoutesResponse {} =
            self.peer.request(self.broker().flush_routes(v1::FlushRoutesRequest {})).await?;
        Ok(())
    }

    fn computer(&self) -> ComputerClient<Channel> {
        let bytes_max = channel::message_bytes_max(ANSWER_BYTES_MAX);
        ComputerClient::new(self.peer.channel()).max_decoding_message_size(bytes_max)
    }

    fn broker(&self) -> BrokerClient<Channel> {
        let bytes_max = channel::message_bytes_max(ANSWER_BYTES_MAX);
        BrokerClient::new(self.peer.channel()).max_decoding_message_size(bytes_max)
    }
}
