//! The older door: `uiiit.rpc.EdgeController`. Its callers look at no answer, so what cannot be done is logged.

use std::sync::Arc;

use nigh_proto::older::{name_of, rpc};
use nigh_proto::{Broker, Computer, Endpoint, FunctionName, PlatformError, Reason};
use rpc::edge_controller_server::{EdgeController, EdgeControllerServer};
use tonic::{Request, Response, Status};

use super::nodes::Nodes;

/// Functions of one computer, at most.
const FUNCTIONS_MAX: usize = 4096;

/// `uiiit.rpc.EdgeController` in front of the nodes looked after.
pub(crate) struct EdgeIngress {
    nodes: Arc<Nodes>,
}

impl EdgeIngress {
    /// The service, ready to be added to a server.
    pub(crate) fn service(nodes: Arc<Nodes>) -> EdgeControllerServer<Self> {
        EdgeControllerServer::new(Self { nodes })
    }
}

#[tonic::async_trait]
impl EdgeController for EdgeIngress {
    async fn announce_computer(&self, request: Request<rpc::ComputerInfo>) -> Result<Response<rpc::Void>, Status> {
        let announced = checked_computer(request.into_inner()).and_then(|computer| self.nodes.computer(computer));
        Ok(done("computer", announced))
    }

    async fn announce_router(&self, request: Request<rpc::RouterInfo>) -> Result<Response<rpc::Void>, Status> {
        let announced = checked_broker(&request.into_inner()).and_then(|broker| self.nodes.broker(broker));
        Ok(done("broker", announced))
    }

    async fn remove_computer(&self, request: Request<rpc::ComputerInfo>) -> Result<Response<rpc::Void>, Status> {
        let endpoint: Result<Endpoint, _> = request.into_inner().edge_server_endpoint.parse();
        let removed = endpoint.map_err(PlatformError::from).map(|endpoint| self.nodes.suspect(&endpoint));
        Ok(done("computer", removed))
    }
}

fn done(what: &str, result: Result<(), PlatformError>) -> Response<rpc::Void> {
    if let Err(error) = result {
        tracing::warn!(%error, "a {what} of the older system announced or removed is left out");
    }
    Response::new(rpc::Void {})
}

fn checked_computer(info: rpc::ComputerInfo) -> Result<Computer, PlatformError> {
    let endpoint: Endpoint = info.edge_server_endpoint.parse()?;
    if info.containers.len() > FUNCTIONS_MAX {
        let message = format!("{endpoint} announces {} containers; at most {FUNCTIONS_MAX}", info.containers.len());
        return Err(PlatformError::new(Reason::TooLarge, message));
    }
    // Containers of the same function on several processors are one function.
    let mut own_functions =
        info.containers.iter().map(|container| container.lambda.parse()).collect::<Result<Vec<FunctionName>, _>>()?;
    own_functions.sort();
    own_functions.dedup();
    let workers: u32 = info.containers.iter().fold(0, |sum, container| sum.saturating_add(container.num_workers));
    Ok(Computer {
        name: name_of(&endpoint),
        endpoint,
        ready: Vec::new(),
        problems: Vec::new(),
        // Real ones never say how many.
        workers: workers.max(1),
        directories: Vec::new(),
        own_functions,
        older: true,
        labels: nigh_proto::Labels::default(),
    })
}

fn checked_broker(info: &rpc::RouterInfo) -> Result<Broker, PlatformError> {
    let endpoint: Endpoint = info.edge_server_endpoint.parse()?;
    let table_endpoint = Some(info.forwarding_table_endpoint.parse()?);
    Ok(Broker { name: name_of(&endpoint), endpoint, table_endpoint, http_endpoint: None, older: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(lambda: &str, num_workers: u32) -> rpc::Container {
        rpc::Container { lambda: lambda.into(), num_workers, ..rpc::Container::default() }
    }

    #[test]
    fn a_computer_is_its_endpoint_and_its_functions() {
        let containers = vec![container("clambda1", 2), container("clambda0", 0), container("clambda1", 1)];
        let info = rpc::ComputerInfo { edge_server_endpoint: "10.0.0.7:10000".into(), containers };
        let computer = checked_computer(info).unwrap();
        assert_eq!(computer.name.as_str(), "10.0.0.7-10000");
        assert_eq!(computer.own_functions, ["clambda0".parse().unwrap(), "clambda1".parse().unwrap()]);
        assert_eq!(computer.workers, 3);
    }

    #[test]
    fn what_has_no_form_is_refused() {
        let info = |endpoint: &str, lambda| rpc::ComputerInfo {
            edge_server_endpoint: endpoint.into(),
            containers: vec![container(lambda, 1)],
        };
        assert!(checked_computer(info("nowhere", "clambda0")).is_err());
        assert!(checked_computer(info("10.0.0.7:1", "no such/name")).is_err());
        let many = rpc::ComputerInfo {
            edge_server_endpoint: "10.0.0.7:1".into(),
            containers: vec![container("f", 1); FUNCTIONS_MAX + 1],
        };
        assert_eq!(checked_computer(many).unwrap_err().reason, Reason::TooLarge);
        let router = rpc::RouterInfo { edge_server_endpoint: "10.0.0.7:1".into(), ..rpc::RouterInfo::default() };
        assert!(checked_broker(&router).is_err(), "without a table there is nothing to write into");
    }
}
