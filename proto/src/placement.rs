//! Where a function may run: labels of computers, and constraints on them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;

use crate::status::PlatformError;

/// What an operator says of a computer, such as `zone=shop`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

/// One label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// What it says something of.
    pub key: String,
    /// What it says.
    pub value: String,
}

/// What is asked of one label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Constraint {
    key: String,
    /// The label has to be there with one of the values; else it must not be there with any of them.
    has: bool,
    values: Vec<String>,
}

/// Constraints on labels, all of which a computer has to meet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement(Vec<Constraint>);

/// Bytes of a label's key or value.
const WORD_BYTES_MAX: usize = 63;

fn checked_word(what: &str, word: &str) -> Result<String, PlatformError> {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    if word.is_empty() || word.len() > WORD_BYTES_MAX || !word.bytes().all(is_fine) {
        let shown: String = word.chars().take(WORD_BYTES_MAX + 1).collect();
        let message = format!("{shown:?} is no {what} of a label: give 1 to {WORD_BYTES_MAX} of A-Z a-z 0-9 - _ . /");
        return Err(PlatformError::malformed(message));
    }
    Ok(word.to_owned())
}

impl FromStr for Label {
    type Err = PlatformError;

    /// `KEY=VALUE`.
    fn from_str(given: &str) -> Result<Self, PlatformError> {
        let (key, value) = given
            .split_once('=')
            .ok_or_else(|| PlatformError::malformed(format!("{given:?}: write a label as KEY=VALUE")))?;
        Ok(Self { key: checked_word("key", key.trim())?, value: checked_word("value", value.trim())? })
    }
}

impl Labels {
    /// Labels of one computer, at most.
    pub const MAX: usize = 64;

    /// These labels; of those with the same key the last counts.
    ///
    /// # Errors
    /// [`Reason::Malformed`](crate::Reason::Malformed) where there are too many.
    pub fn new(labels: impl IntoIterator<Item = Label>) -> Result<Self, PlatformError> {
        let labels: BTreeMap<_, _> = labels.into_iter().map(|Label { key, value }| (key, value)).collect();
        if labels.len() > Self::MAX {
            let message = format!("{} labels; a computer has at most {}", labels.len(), Self::MAX);
            return Err(PlatformError::malformed(message));
        }
        Ok(Self(labels))
    }

    /// Checks labels as they arrive.
    ///
    /// # Errors
    /// As [`Labels::new`], and where one has no form.
    pub fn from_wire(wire: HashMap<String, String>) -> Result<Self, PlatformError> {
        let label = |(key, value): (String, String)| {
            Ok(Label { key: checked_word("key", &key)?, value: checked_word("value", &value)? })
        };
        Self::new(wire.into_iter().map(label).collect::<Result<Vec<_>, PlatformError>>()?)
    }

    /// The labels as they are sent.
    pub fn to_wire(&self) -> HashMap<String, String> {
        self.0.clone().into_iter().collect()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each key and value, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<_> = self.iter().map(|(key, value)| format!("{key}={value}")).collect();
        f.write_str(&labels.join(","))
    }
}

impl Constraint {
    /// Values of one constraint, at most.
    pub(crate) const VALUES_MAX: usize = 64;

    fn new(key: &str, has: bool, values: &str) -> Result<Self, PlatformError> {
        let values = values.trim();
        let values = values.strip_prefix('(').and_then(|values| values.strip_suffix(')')).unwrap_or(values);
        let values = values.split(',').map(|value| checked_word("value", value.trim()));
        let mut values = values.collect::<Result<Vec<_>, _>>()?;
        values.sort();
        values.dedup();
        if values.len() > Self::VALUES_MAX {
            let message = format!("{} values of one constraint; at most {}", values.len(), Self::VALUES_MAX);
            return Err(PlatformError::malformed(message));
        }
        Ok(Self { key: checked_word("key", key.trim())?, has, values })
    }

    /// Whether a computer with these labels meets it.
    pub fn is_met_by(&self, labels: &Labels) -> bool {
        let is_among = labels.0.get(&self.key).is_some_and(|value| self.values.contains(value));
        is_among == self.has
    }
}

impl FromStr for Constraint {
    type Err = PlatformError;

    /// `KEY=VALUE`, `KEY!=VALUE` or `KEY in VALUE,VALUE`; the values of the last may stand in brackets.
    fn from_str(given: &str) -> Result<Self, PlatformError> {
        if let Some((key, values)) = given.split_once(" in ") {
            return Self::new(key, true, values);
        }
        let (key, value, has) = match (given.split_once("!="), given.split_once('=')) {
            (Some((key, value)), _) => (key, value, false),
            (None, Some((key, value))) => (key, value, true),
            (None, None) => {
                let message =
                    format!("{given:?}: write a constraint as KEY=VALUE, KEY!=VALUE or \"KEY in VALUE,VALUE\"");
                return Err(PlatformError::malformed(message));
            }
        };
        Self::new(key, has, &checked_word("value", value.trim())?)
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, has, values } = self;
        match (values.as_slice(), has) {
            ([value], true) => write!(f, "{key}={value}"),
            ([value], false) => write!(f, "{key}!={value}"),
            (values, _) => write!(f, "{key} in {}", values.join(",")),
        }
    }
}

impl Placement {
    /// Constraints of one function, at most.
    pub const MAX: usize = 32;

    /// These constraints, whatever their order.
    ///
    /// # Errors
    /// [`Reason::Malformed`](crate::Reason::Malformed) where there are too many.
    pub fn new(constraints: impl IntoIterator<Item = Constraint>) -> Result<Self, PlatformError> {
        let mut constraints: Vec<_> = constraints.into_iter().collect();
        constraints.sort();
        constraints.dedup();
        if constraints.len() > Self::MAX {
            let message = format!("{} constraints; a function has at most {}", constraints.len(), Self::MAX);
            return Err(PlatformError::malformed(message));
        }
        Ok(Self(constraints))
    }

    /// Checks constraints as they arrive.
    ///
    /// # Errors
    /// As [`Placement::new`], and where one has no form.
    pub fn from_wire(wire: &[String]) -> Result<Self, PlatformError> {
        Self::new(wire.iter().map(|one| one.parse()).collect::<Result<Vec<_>, _>>()?)
    }

    /// The constraints as they are sent.
    pub fn to_wire(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// Whether a computer with these labels may run the function.
    pub fn allows(&self, labels: &Labels) -> bool {
        self.0.iter().all(|constraint| constraint.is_met_by(labels))
    }

    /// Whether any computer may.
    pub fn is_anywhere(&self) -> bool {
        self.0.is_empty()
    }

    /// Each constraint.
    pub fn constraints(&self) -> &[Constraint] {
        &self.0
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_wire().join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(labels: &[&str]) -> Labels {
        Labels::new(labels.iter().map(|label| label.parse().unwrap())).unwrap()
    }

    fn allows(constraints: &[&str], on: &[&str]) -> bool {
        let constraints = constraints.iter().map(|one| one.parse().unwrap());
        Placement::new(constraints).unwrap().allows(&labels(on))
    }

    #[test]
    fn all_constraints_have_to_be_met() {
        assert!(allows(&[], &[]) && allows(&["zone=shop"], &["zone=shop", "gpu=no"]));
        assert!(!allows(&["zone=shop"], &["zone=office"]) && !allows(&["zone=shop"], &[]));
        assert!(allows(&["zone!=shop"], &["zone=office"]) && allows(&["zone!=shop"], &[]));
        assert!(!allows(&["zone!=shop"], &["zone=shop"]));
        for written in ["zone in shop,depot", "zone in (depot, shop)"] {
            assert!(allows(&[written], &["zone=depot"]) && !allows(&[written], &["zone=office"]), "{written}");
        }
        assert!(!allows(&["zone=shop", "gpu=yes"], &["zone=shop", "gpu=no"]));
    }

    #[test]
    fn constraints_are_told_as_they_are_written() {
        for written in ["zone=shop", "zone!=shop", "zone in depot,shop"] {
            let constraint: Constraint = written.parse().unwrap();
            assert_eq!(constraint.to_string(), written);
        }
        let placement = Placement::from_wire(&["b=1".into(), "a!=2".into(), "b=1".into()]).unwrap();
        assert_eq!(placement.to_string(), "a!=2 and b=1");
        assert_eq!(Placement::from_wire(&placement.to_wire()), Ok(placement));
    }

    #[test]
    fn what_has_no_form_is_refused_with_advice() {
        for odd in ["zone", "=shop", "zone=", "zone = a b", "zone=a,b", "zone in ", "zone in a,", "zo ne=x", "a==b"] {
            assert!(odd.parse::<Constraint>().is_err(), "{odd}");
        }
        for odd in ["zone", "=", "zone=", "a b=c", "zone=a,b"] {
            assert!(odd.parse::<Label>().is_err(), "{odd}");
        }
        assert!("x".repeat(64).parse::<Label>().is_err());
        let many = (0..=Labels::MAX).map(|n| Label { key: format!("k{n}"), value: "v".into() });
        assert!(Labels::new(many).is_err());
        assert!(
            Placement::from_wire(&vec!["a=b".into(); 1000]).is_ok_and(|placement| placement.constraints().len() == 1)
        );
    }

    #[test]
    fn labels_survive_the_wire() {
        let labels = labels(&["zone=shop", "gpu=no", "zone=office"]);
        assert_eq!(labels.to_string(), "gpu=no,zone=office");
        assert_eq!(Labels::from_wire(labels.to_wire()), Ok(labels));
        assert!(Labels::from_wire(HashMap::from([("a b".into(), "c".into())])).is_err());
    }
}
