//! Nodes of the older system: announced once, looked after from then on; their brokers' tables written from here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nigh_proto::older::rpc;
use nigh_routing::install::{Hierarchy, Objective};
use parking_lot::Mutex;
use rpc::edge_controller_client::EdgeControllerClient;
use rpc::edge_router_conf::Action;
use rpc::edge_router_server::{EdgeRouter, EdgeRouterServer};

use super::*;

/// Rows of a table: function, destination, final.
type Rows = BTreeMap<(String, String), bool>;

/// The table of a broker of the older system.
#[derive(Clone, Default)]
struct OlderTable {
    rows: Arc<Mutex<Rows>>,
    writes: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl EdgeRouter for OlderTable {
    async fn configure(
        &self,
        request: tonic::Request<rpc::EdgeRouterConf>,
    ) -> Result<tonic::Response<rpc::Return>, tonic::Status> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        let change = request.into_inner();
        let action = change.action();
        let key = (change.lambda, change.destination);
        let mut rows = self.rows.lock();
        match action {
            Action::Flush => rows.clear(),
            Action::Change => {
                assert!((change.weight - 1.0).abs() < f32::EPSILON);
                rows.insert(key, change.r#final);
            }
            Action::Remove => drop(rows.remove(&key)),
        }
        Ok(tonic::Response::new(rpc::Return::default()))
    }

    async fn get_table(
        &self,
        _: tonic::Request<rpc::TableId>,
    ) -> Result<tonic::Response<rpc::ForwardingTable>, tonic::Status> {
        let entry = |((lambda, destination), is_final): (&(String, String), &bool)| rpc::forwarding_table::Entry {
            lambda: lambda.clone(),
            destination: destination.clone(),
            weight: 7.0,
            r#final: *is_final,
        };
        Ok(tonic::Response::new(rpc::ForwardingTable { entries: self.rows.lock().iter().map(entry).collect() }))
    }

    async fn get_num_tables(
        &self,
        _: tonic::Request<rpc::Void>,
    ) -> Result<tonic::Response<rpc::NumTables>, tonic::Status> {
        Ok(tonic::Response::new(rpc::NumTables { value: 2 }))
    }
}

impl OlderTable {
    /// Serves the table; where, and what ends it.
    async fn serve(&self) -> (String, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        let services = channel::server().add_service(EdgeRouterServer::new(self.clone()));
        tokio::spawn(channel::serve(services, listener, stop.clone()));
        (endpoint, stop)
    }

    async fn becomes(&self, expected: &[(&str, &str, bool)]) {
        let expected: Rows =
            expected.iter().map(|(f, to, last)| (((*f).to_owned(), (*to).to_owned()), *last)).collect();
        let wait = async {
            while *self.rows.lock() != expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "{:?} never becomes {expected:?}", self.rows.lock());
    }
}

impl Controller {
    fn older(&self) -> EdgeControllerClient<Channel> {
        EdgeControllerClient::new(channel::connect_lazy(&self.endpoint))
    }

    async fn announce_computer(&self, endpoint: &str, functions: &[&str]) {
        self.older().announce_computer(computer(endpoint, functions)).await.unwrap();
    }

    async fn announce_router(&self, endpoint: &str, table: &str) {
        let (edge_server_endpoint, forwarding_table_endpoint) = (endpoint.to_owned(), table.to_owned());
        let info = rpc::RouterInfo { edge_server_endpoint, forwarding_table_endpoint };
        self.older().announce_router(info).await.unwrap();
    }

    async fn computers_become(&self, expected: usize) {
        let wait = async {
            while self.client().list(v1::ListRequest {}).await.unwrap().into_inner().computers.len() != expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the computers that are there");
    }
}

fn computer(endpoint: &str, functions: &[&str]) -> rpc::ComputerInfo {
    let container = |lambda: &&str| rpc::Container { lambda: (*lambda).to_owned(), ..rpc::Container::default() };
    let containers = functions.iter().map(container).collect();
    rpc::ComputerInfo { edge_server_endpoint: endpoint.to_owned(), containers }
}

/// A door that opens and nothing more: as much as is asked of an older computer.
async fn door() -> (String, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap().to_string(), listener)
}

fn short_lease(config: &mut Config) {
    config.lease = Duration::from_millis(300);
}

#[tokio::test]
async fn an_older_computer_stays_as_long_as_its_door_opens_and_comes_back_with_it() {
    let controller = Controller::start_with(short_lease).await;
    let (endpoint, listener) = door().await;
    controller.announce_computer(&endpoint, &["clambda0", "clambda1"]).await;
    controller.computers_become(1).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let listed = controller.client().list(v1::ListRequest {}).await.unwrap().into_inner().computers;
    assert_eq!(listed[0].own_functions, ["clambda0", "clambda1"]);
    assert!(listed[0].older);
    drop(listener);
    controller.computers_become(0).await;
    let _listener = TcpListener::bind(&endpoint).await.unwrap();
    controller.computers_become(1).await;
}

#[tokio::test]
async fn older_brokers_get_what_is_served_and_only_the_differences() {
    let controller = Controller::start_with(short_lease).await;
    let (one, _one) = door().await;
    let (two, _two) = door().await;
    let table = OlderTable::default();
    let by_hand = (("by-hand".to_owned(), "127.0.0.1:9".to_owned()), true);
    table.rows.lock().extend([by_hand]);
    let (at, _stop) = table.serve().await;
    controller.announce_computer(&one, &["f0", "f1"]).await;
    controller.announce_router("127.0.0.1:6473", &at).await;
    let first = [("by-hand", "127.0.0.1:9", true), ("f0", &*one, true), ("f1", &*one, true)];
    table.becomes(&first).await;
    let writes = table.writes.load(Ordering::SeqCst);
    controller.announce_computer(&one, &["f0", "f1"]).await;
    controller.announce_router("127.0.0.1:6473", &at).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(table.writes.load(Ordering::SeqCst), writes, "the same again changes nothing");

    controller.announce_computer(&two, &["f1"]).await;
    table.becomes(&[first[0], first[1], first[2], ("f1", &*two, true)]).await;
    // Such a broker drops a destination at the first failed call; it comes back while the computer is there.
    table.rows.lock().remove(&("f0".to_owned(), one.clone()));
    table.becomes(&[first[0], first[1], first[2], ("f1", &*two, true)]).await;
    // Other functions on the same computer.
    controller.announce_computer(&one, &["f2"]).await;
    table.becomes(&[first[0], ("f2", &*one, true), ("f1", &*two, true)]).await;
    // A computer that says goodbye is gone at once, and what was set by hand is left alone.
    controller.older().remove_computer(computer(&two, &[])).await.unwrap();
    table.becomes(&[first[0], ("f2", &*one, true)]).await;
}

#[tokio::test]
async fn an_older_broker_that_restarts_gets_everything_and_one_that_is_away_harms_nobody() {
    let controller = Controller::start_with(short_lease).await;
    let (computer, _door) = door().await;
    controller.announce_router("127.0.0.1:6473", "127.0.0.1:1").await;
    let table = OlderTable::default();
    let (at, stop) = table.serve().await;
    controller.announce_router("127.0.0.1:6474", &at).await;
    controller.announce_computer(&computer, &["f"]).await;
    table.becomes(&[("f", &*computer, true)]).await;
    stop.cancel();
    let restarted = OlderTable::default();
    let (at, _stop) = restarted.serve().await;
    controller.announce_router("127.0.0.1:6474", &at).await;
    restarted.becomes(&[("f", &*computer, true)]).await;
}

#[tokio::test]
async fn older_brokers_of_a_hierarchy_know_their_own_computers_and_homes() {
    // Two addresses of this machine, each with a broker; the computer is at one of them.
    let topology = "127.0.0.1 0 1\nlocalhost 1 0\n".parse().unwrap();
    let hierarchy = Hierarchy { topology, objective: Objective::MinMax };
    let controller = Controller::start_with(|config| {
        short_lease(config);
        config.hierarchy = Some(hierarchy);
    })
    .await;
    let (computer, _door) = door().await;
    let [home, other] = [OlderTable::default(), OlderTable::default()];
    let ((home_at, _a), (other_at, _b)) = (home.serve().await, other.serve().await);
    controller.announce_router("127.0.0.1:6473", &home_at).await;
    controller.announce_router("localhost:6473", &other_at).await;
    controller.announce_computer(&computer, &["f"]).await;
    home.becomes(&[("f", &*computer, true)]).await;
    other.becomes(&[("f", "127.0.0.1:6473", false)]).await;
    // What is at no address of the topology is not let in; the answer is the same, as callers expect.
    controller.announce_computer("10.9.9.9:10000", &["g"]).await;
    let refused = v1::AnnounceRequest {
        protocol: nigh_proto::PROTOCOL,
        node: Some(v1::announce_request::Node::Computer(v1::ComputerInfo {
            name: "computer-9".into(),
            endpoint: "10.9.9.9:10000".into(),
            ..Default::default()
        })),
    };
    let refused = controller.client().announce(refused).await.unwrap_err();
    assert!(refused.message().contains("topology"), "{refused}");
    assert_eq!(reason::<()>(Err(refused)), Reason::NotAllowed);
}
