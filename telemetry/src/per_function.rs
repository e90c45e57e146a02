//! One thing for each function, and one for all that are too many, so that labels are bounded whatever is deployed.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Functions that have a label of their own, at most; all others share [`OTHER`].
pub const FUNCTIONS_MAX: usize = 100;
/// The label that functions share which are too many; also of a function of that name.
pub const OTHER: &str = "other";

/// What is counted of each function. Handles are taken when a function becomes known and kept, so that no call looks one up.
#[derive(Debug, Default)]
pub struct PerFunction<T> {
    own: Mutex<BTreeMap<String, Arc<T>>>,
    other: Arc<T>,
}

impl<T: Default> PerFunction<T> {
    /// The function's own while there is room, else the one that is shared.
    pub fn of(&self, function: &str) -> Arc<T> {
        let mut own = self.own.lock();
        if let Some(known) = own.get(function) {
            return known.clone();
        }
        if function == OTHER || own.len() >= FUNCTIONS_MAX {
            return self.other.clone();
        }
        let new = Arc::<T>::default();
        own.insert(function.to_owned(), new.clone());
        new
    }

    /// What is there for a function, without making room for it.
    pub fn find(&self, function: &str) -> Arc<T> {
        self.own.lock().get(function).unwrap_or(&self.other).clone()
    }

    /// What is shared; also by names that nobody deployed, which may be any number.
    pub fn unknown(&self) -> &Arc<T> {
        &self.other
    }

    /// The label that a function's numbers stand under.
    pub fn label(&self, function: &str) -> String {
        if self.own.lock().contains_key(function) { function } else { OTHER }.to_owned()
    }

    /// Forgets what was counted of a function that is gone.
    pub fn forget(&self, function: &str) {
        self.own.lock().remove(function);
    }

    /// Every label with what is there for it, the shared one last.
    pub fn all(&self) -> Vec<(String, Arc<T>)> {
        let own = self.own.lock();
        let shared = (OTHER.to_owned(), self.other.clone());
        own.iter().map(|(name, own)| (name.clone(), own.clone())).chain([shared]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcomes::Counts;

    #[test]
    fn labels_are_bounded_and_free_again_once_a_function_is_gone() {
        let counts = PerFunction::<Counts<1>>::default();
        for number in 0..FUNCTIONS_MAX + 50 {
            counts.of(&format!("f{number}")).add(0, 1);
        }
        let all = counts.all();
        assert_eq!(all.len(), FUNCTIONS_MAX + 1);
        assert_eq!(
            all.last().map(|(name, shared)| (name.as_str(), shared.read().next())),
            Some((OTHER, Some((0, 50))))
        );
        counts.forget("f0");
        counts.of("new").add(0, 1);
        assert!(counts.all().iter().any(|(name, _)| name == "new"));
    }

    #[test]
    fn a_function_called_other_is_no_second_label() {
        let counts = PerFunction::<Counts<1>>::default();
        counts.of(OTHER).add(0, 1);
        counts.unknown().add(0, 1);
        let all = counts.all();
        assert_eq!((all.len(), all[0].1.read().next()), (1, Some((0, 2))));
    }
}
