//! The forwarding table itself: which destinations a function has, with which weights.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;

use super::selection::{Selection, Selector};
use super::text::{Row, TableText};

/// Why an operation on a forwarding table is not possible.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum TableError {
    /// A weight below zero, or no number.
    #[error("invalid weight {0}: give a number above 0")]
    InvalidWeight(f64),
    /// A factor that is not above zero.
    #[error("invalid weight factor {0}: give a number above 0")]
    InvalidWeightFactor(f64),
    /// No name, or a weight of zero, which nothing could be chosen by.
    #[error("invalid destination: it needs a name and a weight above 0")]
    InvalidDestination,
    /// Nothing is known of the function or the destination.
    #[error("no destinations")]
    NoDestinations,
}

/// One destination of a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighted<D> {
    /// Which.
    pub destination: D,
    /// Its weight; less is better.
    pub weight: f64,
    /// It runs calls itself.
    pub is_final: bool,
}

/// Weighted destinations of functions, and a policy that chooses among them. Functions are kept by name, destinations in
/// the order in which they came.
#[derive(Debug)]
pub struct ForwardingTable<F, D> {
    selection: Selection,
    functions: BTreeMap<F, Entries<D>>,
}

#[derive(Debug)]
struct Entries<D> {
    destinations: Vec<(D, bool)>,
    selector: Selector,
}

impl<D: PartialEq> Entries<D> {
    fn position<Q: PartialEq + ?Sized>(&self, destination: &Q) -> Option<usize>
    where
        D: Borrow<Q>,
    {
        self.destinations.iter().position(|(have, _)| have.borrow() == destination)
    }
}

/// A name that a destination may have.
fn check_name(name: &str) -> Result<(), TableError> {
    if name.is_empty() { Err(TableError::InvalidDestination) } else { Ok(()) }
}

fn check_weight(weight: f64) -> Result<(), TableError> {
    match weight {
        _ if weight < 0.0 || !weight.is_finite() => Err(TableError::InvalidWeight(weight)),
        0.0 => Err(TableError::InvalidDestination),
        _ => Ok(()),
    }
}

impl<F: Ord + Borrow<str>, D: Clone + PartialEq + Borrow<str>> ForwardingTable<F, D> {
    /// An empty table.
    pub fn new(selection: Selection) -> Self {
        Self { selection, functions: BTreeMap::new() }
    }

    /// Adds a destination, or changes one that is there.
    ///
    /// # Errors
    /// [`TableError::InvalidWeight`] below zero, [`TableError::InvalidDestination`] for a weight of zero or an empty name.
    /// A change that fails leaves the table as it was.
    pub fn change(
        &mut self,
        function: F,
        destination: D,
        weight: f64,
        is_final: bool,
        now: Duration,
    ) -> Result<(), TableError> {
        check_name(destination.borrow())?;
        check_weight(weight)?;
        let selection = self.selection;
        let new = || Entries { destinations: Vec::new(), selector: Selector::new(selection) };
        let entries = self.functions.entry(function).or_insert_with(new);
        match entries.position::<str>(destination.borrow()) {
            Some(at) => {
                entries.destinations[at].1 = is_final;
                entries.selector.set_weight(at, weight, now);
            }
            None => {
                let from: Vec<_> = (0..entries.destinations.len()).map(Some).chain([None]).collect();
                entries.destinations.push((destination, is_final));
                entries.selector.reorder(&from, weight, now);
            }
        }
        Ok(())
    }

    /// Changes the weight of a destination that is there.
    ///
    /// # Errors
    /// [`TableError::NoDestinations`] where it is not there, or has no name; as [`change`](Self::change) for the weight.
    pub fn set_weight(
        &mut self,
        function: &str,
        destination: &str,
        weight: f64,
        now: Duration,
    ) -> Result<(), TableError> {
        let (entries, at) = self.find(function, destination)?;
        check_weight(weight)?;
        entries.selector.set_weight(at, weight, now);
        Ok(())
    }

    /// Multiplies the weight of a destination that is there.
    ///
    /// # Errors
    /// [`TableError::InvalidWeightFactor`] where the factor is not above zero, or the product would be no weight;
    /// [`TableError::NoDestinations`].
    pub fn multiply(
        &mut self,
        function: &str,
        destination: &str,
        factor: f64,
        now: Duration,
    ) -> Result<(), TableError> {
        if factor.is_nan() || factor <= 0.0 {
            return Err(TableError::InvalidWeightFactor(factor));
        }
        let (entries, at) = self.find(function, destination)?;
        let weight = entries.selector.weight(at) * factor;
        if check_weight(weight).is_err() {
            return Err(TableError::InvalidWeightFactor(factor));
        }
        entries.selector.set_weight(at, weight, now);
        Ok(())
    }

    /// Removes a destination, if it is there, and the function with its last one.
    pub fn remove(&mut self, function: &str, destination: &str, now: Duration) {
        let Some(entries) = self.functions.get_mut(function) else { return };
        let Some(at) = entries.position(destination) else { return };
        entries.destinations.remove(at);
        if entries.destinations.is_empty() {
            self.functions.remove(function);
        } else {
            let from: Vec<_> = (0..=entries.destinations.len()).filter(|&left| left != at).map(Some).collect();
            entries.selector.reorder(&from, 1.0, now);
        }
    }

    /// Removes a function, if it is there.
    pub fn remove_function(&mut self, function: &str) {
        self.functions.remove(function);
    }

    /// Removes everything.
    pub fn flush(&mut self) {
        self.functions.clear();
    }

    /// Chooses a destination.
    ///
    /// # Errors
    /// [`TableError::NoDestinations`].
    pub fn select(&mut self, function: &str, now: Duration, rng: &mut impl Rng) -> Result<&D, TableError> {
        let entries = self.functions.get_mut(function).ok_or(TableError::NoDestinations)?;
        let at = entries.selector.select(None, now, rng).ok_or(TableError::NoDestinations)?;
        entries.destinations.get(at).map(|(destination, _)| destination).ok_or(TableError::NoDestinations)
    }

    /// Every function's destinations as they are now.
    pub fn full_table(&self) -> BTreeMap<&F, Vec<Weighted<D>>> {
        let weighted = |entries: &Entries<D>| {
            let listed = entries.destinations.iter().enumerate().map(|(at, (destination, is_final))| Weighted {
                destination: destination.clone(),
                weight: entries.selector.weight(at),
                is_final: *is_final,
            });
            listed.collect()
        };
        self.functions.iter().map(|(function, entries)| (function, weighted(entries))).collect()
    }

    /// Every function, by name.
    pub fn functions(&self) -> impl Iterator<Item = &F> {
        self.functions.keys()
    }

    /// The table as text.
    pub fn text(&self) -> TableText<'_> {
        let rows = self.functions.iter().flat_map(|(function, entries)| {
            entries.destinations.iter().enumerate().map(move |(at, (destination, is_final))| Row {
                function: function.borrow(),
                destination: destination.borrow(),
                weight: entries.selector.weight(at),
                is_final: *is_final,
            })
        });
        TableText::new(rows)
    }

    fn find(&mut self, function: &str, destination: &str) -> Result<(&mut Entries<D>, usize), TableError> {
        let entries = self.functions.get_mut(function).ok_or(TableError::NoDestinations)?;
        let at = entries.position(destination).ok_or(TableError::NoDestinations)?;
        Ok((entries, at))
    }
}
