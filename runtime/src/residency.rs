//! How much code is held in memory, and whose leaves first: that of the functions that were not called for longest. It is
//! on disk all the same, and back within a call's time. Pure: no clock of its own.

/// The share of a limit that is left once there was too much, so that room is seldom made.
const LEFT_PERCENT: u64 = 88;

/// Code in memory, and its limits.
#[derive(Debug, Clone)]
pub(crate) struct Residency {
    versions_max: usize,
    bytes_max: u64,
    versions: usize,
    bytes: u64,
}

/// Code that could leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate<T> {
    /// When it was used last.
    pub(crate) used_ms: u64,
    pub(crate) bytes: u64,
    pub(crate) what: T,
}

impl Residency {
    /// Nothing in memory yet. Code that several versions share counts for each.
    pub(crate) fn new(versions_max: usize, bytes_max: u64) -> Self {
        Self { versions_max, bytes_max, versions: 0, bytes: 0 }
    }

    /// Code of this size has come into memory.
    pub(crate) fn enter(&mut self, bytes: u64) {
        self.versions += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Code of this size has left.
    pub(crate) fn leave(&mut self, bytes: u64) {
        self.versions = self.versions.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Versions and bytes in memory.
    pub(crate) fn held(&self) -> (usize, u64) {
        (self.versions, self.bytes)
    }

    /// There is more than there may be.
    pub(crate) fn is_over(&self) -> bool {
        self.versions > self.versions_max || self.bytes > self.bytes_max
    }

    /// Who has to leave, so that there is room for a while.
    pub(crate) fn choose<T>(&self, mut candidates: Vec<Candidate<T>>) -> Vec<T> {
        if !self.is_over() {
            return Vec::new();
        }
        let versions_left = usize::try_from(share(self.versions_max as u64)).unwrap_or(usize::MAX);
        let (mut versions, mut bytes) = (self.versions, self.bytes);
        candidates.sort_by_key(|candidate| candidate.used_ms);
        let is_still_needed = |candidate: &Candidate<T>| {
            let is_over = versions > versions_left || bytes > share(self.bytes_max);
            versions = versions.saturating_sub(1);
            bytes = bytes.saturating_sub(candidate.bytes);
            is_over
        };
        candidates.into_iter().take_while(is_still_needed).map(|candidate| candidate.what).collect()
    }
}

fn share(limit: u64) -> u64 {
    (u128::from(limit) * u128::from(LEFT_PERCENT) / 100).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn those_unused_for_longest_leave_until_both_limits_hold(
            entries in prop::collection::vec((0u64..100, 0u64..1000), 0..60),
            versions_max in 1usize..40,
            bytes_max in 1u64..20_000,
        ) {
            let mut residency = Residency::new(versions_max, bytes_max);
            entries.iter().for_each(|(_, bytes)| residency.enter(*bytes));
            let was_over = residency.is_over();
            let candidates: Vec<_> = entries.iter().enumerate()
                .map(|(what, &(used_ms, bytes))| Candidate { used_ms, bytes, what }).collect();
            let leaving = residency.choose(candidates);
            prop_assert_eq!(was_over, !leaving.is_empty());
            let latest = leaving.iter().map(|&at| entries[at].0).max();
            for at in (0..entries.len()).filter(|at| !leaving.contains(at)) {
                prop_assert!(latest.is_none_or(|latest| entries[at].0 >= latest));
            }
            leaving.iter().for_each(|&at| residency.leave(entries[at].1));
            prop_assert!(!residency.is_over());
        }
    }
}
