//! What a modelled computer announces: the functions of its containers, which it brings itself.

use std::sync::Arc;

use nigh_proto::Endpoint;
use nigh_proto::membership::Node;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Modelled;
use crate::discovery::At;
use crate::serve::Computing as _;

/// Announces it until `shutdown`, then withdraws it.
pub(super) async fn announce(computer: Arc<Modelled>, endpoint: Endpoint, at: At, shutdown: CancellationToken) {
    let node = Node::Computer(nigh_proto::Computer {
        name: computer.name().clone(),
        endpoint,
        ready: Vec::new(),
        problems: Vec::new(),
        workers: computer.workers,
        directories: Vec::new(),
        own_functions: computer.functions.keys().cloned().collect(),
        older: false,
        labels: computer.labels.clone(),
    });
    // Nothing of it ever changes.
    let (_sender, node) = watch::channel(node);
    at.keep_announced(node, shutdown).await;
}
