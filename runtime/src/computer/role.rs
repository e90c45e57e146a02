//! A computer that runs its functions itself, as its role and its doors see it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use nigh_proto::membership::Node;
use nigh_proto::{Endpoint, FunctionName, Kind, Load, NodeName, Remote};
use nigh_state::Keeper;
use nigh_telemetry::HttpResponses;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Computer;
use crate::computing::{Computing, FunctionStatus};
use crate::discovery;
use crate::function::{Functions, Known};

impl Computing for Computer {
    fn name(&self) -> &NodeName {
        &self.name
    }

    fn states(&self) -> &Arc<Keeper> {
        &self.states
    }

    fn http_responses(&self) -> &HttpResponses {
        &self.http
    }

    fn readiness(&self) -> Result<(), String> {
        if self.crew.is_closed() {
            return Err("the computer is stopping".to_owned());
        }
        if self.is_learning.load(Ordering::Relaxed) {
            return Err("the computer has not learnt from its controller what is deployed".to_owned());
        }
        Ok(())
    }

    fn kind(&self, function: &FunctionName) -> Option<Kind> {
        self.functions.kind(function).or_else(|| {
            // What is not known yet is passed on as it is, to be told so.
            self.readiness().is_err().then_some(Kind::Http)
        })
    }

    fn load(&self) -> Load {
        self.load()
    }

    /// This machine's, with functions.
    fn processors(&self) -> Vec<(String, f32)> {
        vec![(std::env::consts::ARCH.to_owned(), self.load().utilisation[0])]
    }

    fn function_statuses(&self) -> Vec<FunctionStatus> {
        self.settle_measures();
        let now = Instant::now();
        let status = |Known { function, deployment, .. }: Known| {
            let (running, queued) = self.crew.counts(function.lane);
            let summary = function.measures.lock().summary(now);
            let version = deployment.map(|deployment| deployment.version);
            let held_back = function.conduct.is_held_back();
            FunctionStatus { name: function.name.clone(), version, summary, running, queued, held_back }
        };
        self.functions.all().into_iter().map(status).collect()
    }

    fn instances(&self) -> (u32, u32) {
        (u32::try_from(self.instances().live).unwrap_or(u32::MAX), self.instances_max)
    }

    fn deployed(&self) -> Option<&Functions> {
        Some(&self.functions)
    }

    fn node(&self, endpoint: Endpoint) -> Option<Node> {
        let (ready, problems) = self.functions.announcement();
        Some(Node::Computer(nigh_proto::Computer {
            name: self.name.clone(),
            endpoint,
            ready,
            problems,
            workers: self.load().workers,
            directories: self.directories.iter().map(|offer| offer.name.clone()).collect(),
            own_functions: Vec::new(),
            older: false,
            labels: self.labels.clone(),
        }))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.functions.changes()
    }

    async fn follow(self: Arc<Self>, controller: Remote, shutdown: CancellationToken) {
        discovery::follow(self, controller, shutdown).await;
    }

    fn close(&self) {
        self.close();
    }

    fn under_way(&self) -> usize {
        self.under_way()
    }

    fn end(&self) {
        self.crew.end();
    }
}
