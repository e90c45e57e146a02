//! Telling the log of peers that were refused, each once in a while and never more than so many: a peer that comes again and
//! again must not fill a disk.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Time until the same is told of the same peer again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Peers told of within that time, at most.
const PEERS_MAX: usize = 256;

/// What was told of late.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    told: Mutex<HashMap<(IpAddr, &'static str), Instant>>,
}

impl Complaints {
    /// Whether to tell of this peer and this kind of trouble now.
    pub(crate) fn is_news(&self, peer: IpAddr, kind: &'static str) -> bool {
        self.is_news_at(peer, kind, Instant::now())
    }

    fn is_news_at(&self, peer: IpAddr, kind: &'static str, now: Instant) -> bool {
        let mut told = self.told.lock();
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < AGAIN_AFTER;
        if told.get(&(peer, kind)).is_some_and(is_recent) {
            return false;
        }
        if told.len() >= PEERS_MAX {
            told.retain(|_, at| is_recent(at));
        }
        let has_room = told.len() < PEERS_MAX;
        if has_room {
            told.insert((peer, kind), now);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_same_is_told_once_a_minute() {
        let (complaints, peer, now) = (Complaints::default(), IpAddr::V4(Ipv4Addr::LOCALHOST), Instant::now());
        assert!(complaints.is_news_at(peer, "handshake", now));
        assert!(!complaints.is_news_at(peer, "handshake", now + Duration::from_secs(59)));
        assert!(complaints.is_news_at(peer, "plaintext", now), "another trouble is news");
        assert!(complaints.is_news_at(peer, "handshake", now + AGAIN_AFTER));
    }

    #[test]
    fn many_peers_do_not_flood_the_log() {
        let (complaints, now) = (Complaints::default(), Instant::now());
        let told = |now| (0..1000u32).filter(|n| complaints.is_news_at(Ipv4Addr::from(*n).into(), "x", now)).count();
        assert_eq!(told(now), PEERS_MAX);
        assert_eq!(told(now + AGAIN_AFTER), PEERS_MAX, "and nothing is kept for ever");
    }
}
