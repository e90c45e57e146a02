//! What a computer whose functions run elsewhere announces: those functions, for as long as there are any to be called.

use std::sync::Arc;

use nigh_proto::membership::Node;
use nigh_proto::{Endpoint, FunctionName};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::RemoteComputer;
use crate::discovery::At;

/// Announces it whenever it has functions until `shutdown`; withdraws it when it has none any more, and at the end.
pub(super) async fn announce(computer: Arc<RemoteComputer>, endpoint: Endpoint, at: At, shutdown: CancellationToken) {
    let mut offered = computer.offered.subscribe();
    while !shutdown.is_cancelled() {
        // Without functions of its own it would count among those that run what is deployed.
        let functions = tokio::select! {
            functions = offered.wait_for(|functions| !functions.is_empty()) => match functions {
                Ok(functions) => functions.clone(),
                Err(_) => return,
            },
            () = shutdown.cancelled() => return,
        };
        let over = shutdown.child_token();
        let (sender, node) = watch::channel(node(&computer, &endpoint, functions));
        let announcing = at.clone().keep_announced(node, over.clone());
        let following = async {
            while offered.changed().await.is_ok() {
                let functions = offered.borrow_and_update().clone();
                if functions.is_empty() {
                    break;
                }
                sender.send_replace(self::node(&computer, &endpoint, functions));
            }
            over.cancel();
            // Until it has withdrawn.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = announcing => {}
            () = following => {}
        }
    }
}

fn node(computer: &RemoteComputer, endpoint: &Endpoint, own_functions: Vec<FunctionName>) -> Node {
    Node::Computer(nigh_proto::Computer {
        name: computer.name.clone(),
        endpoint: endpoint.clone(),
        ready: Vec::new(),
        problems: Vec::new(),
        workers: computer.turns.workers(),
        directories: Vec::new(),
        own_functions,
        older: false,
        labels: computer.labels.clone(),
    })
}
