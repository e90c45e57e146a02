//! Hearing from nodes: whose beats stop, or whose connection breaks without a goodbye, is gone long before a lease would end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nigh_proto::{Endpoint, NodeName};
use tokio::time::Instant;

use crate::registry::Registry;

/// Time that a node has to come back whose connection broke.
pub(crate) const RETURN: Duration = Duration::from_millis(300);
/// How long one that was taken for gone, and was not, is given more time; half of it then.
const WARY_FOR: Duration = Duration::from_secs(60);

/// A node that is heard from; dropped, it no longer is.
#[derive(Debug)]
pub(crate) struct Attendance {
    registry: Arc<Registry>,
    name: NodeName,
    id: u64,
}

impl Attendance {
    /// Begins to hear from a node, in place of any attendance before; none where it has to announce itself first.
    pub(crate) fn begin(registry: &Arc<Registry>, name: NodeName, endpoint: &Endpoint) -> Option<Self> {
        let id = registry.attend(&name, endpoint)?;
        Some(Self { registry: registry.clone(), name, id })
    }

    /// Whether the node is to go on; else it has been taken for gone, or another attendance has taken over.
    pub(crate) fn beat(&self) -> bool {
        self.registry.beat(&self.name, self.id)
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.registry.absent(&self.name, self.id);
    }
}

/// How long each node may be silent: on a bad link the more, the more often its silence meant nothing.
#[derive(Debug)]
pub(crate) struct Patience {
    least: Duration,
    most: Duration,
    wary: BTreeMap<NodeName, Wary>,
}

#[derive(Debug)]
struct Wary {
    patience: Duration,
    since: Instant,
    taken_for_gone: bool,
}

impl Patience {
    pub(crate) fn new(least: Duration, most: Duration) -> Self {
        Self { least: least.min(most), most, wary: BTreeMap::new() }
    }

    /// How long the node may be silent now.
    pub(crate) fn of(&self, name: &NodeName, now: Instant) -> Duration {
        let Some(wary) = self.wary.get(name) else { return self.least };
        let halvings = now.duration_since(wary.since).as_secs() / WARY_FOR.as_secs();
        let shorter = wary.patience.checked_div(1 << halvings.min(16)).unwrap_or_default();
        shorter.clamp(self.least, self.most)
    }

    /// It was silent for longer.
    pub(crate) fn taken_for_gone(&mut self, name: &NodeName, now: Instant) {
        let patience = self.of(name, now);
        // Whoever is gone for good is not kept in mind.
        let forget_after = WARY_FOR * 16;
        self.wary.retain(|_, wary| now.duration_since(wary.since) < forget_after);
        self.wary.insert(name.clone(), Wary { patience, since: now, taken_for_gone: true });
    }

    /// It is there. Where that is so soon after it was taken for gone that it cannot have started anew, it gets more time.
    pub(crate) fn is_there(&mut self, name: &NodeName, now: Instant) {
        let most = self.most;
        if let Some(wary) = self.wary.get_mut(name)
            && std::mem::take(&mut wary.taken_for_gone)
            && now.duration_since(wary.since) < most
        {
            (wary.patience, wary.since) = ((wary.patience * 2).min(most), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_is_often_taken_for_gone_without_being_so_gets_more_time_for_a_while() {
        let (least, most) = (Duration::from_millis(900), Duration::from_secs(3));
        let name: NodeName = "far".parse().unwrap();
        let mut patience = Patience::new(least, most);
        for expected_ms in [1800, 3000, 3000] {
            patience.taken_for_gone(&name, Instant::now());
            tokio::time::sleep(Duration::from_millis(100)).await;
            patience.is_there(&name, Instant::now());
            assert_eq!(patience.of(&name, Instant::now()), Duration::from_millis(expected_ms));
        }
        tokio::time::sleep(WARY_FOR).await;
        assert_eq!(patience.of(&name, Instant::now()), most / 2);
        tokio::time::sleep(WARY_FOR * 2).await;
        assert_eq!(patience.of(&name, Instant::now()), least);
        patience.taken_for_gone(&name, Instant::now());
        tokio::time::sleep(most * 2).await;
        patience.is_there(&name, Instant::now());
        assert_eq!(patience.of(&name, Instant::now()), least, "it had started anew");
    }
}
