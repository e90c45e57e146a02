//! Whose functions are whose. The platform knows functions by one name each; callers of other systems know them by
//! namespace, package and name. Between the two there is one rule, both ways:
//!
//! | caller's | function |
//! |---|---|
//! | `guest`, `hello` | `hello` |
//! | `guest`, package `math`, `add` | `math.add` |
//! | `acme`, `hello` | `acme..hello` |
//! | `acme`, package `math`, `add` | `acme..math.add` |

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use nigh_proto::{ApplicationName, FunctionName};

/// The namespace whose functions have their plain names.
const PLAIN: &str = "guest";
/// Between a namespace and what is in it.
const OF: &str = "..";
/// Between a package and what is in it.
const IN: char = '.';
/// Bytes of a namespace's name, at most: half of a function's is left.
const NAMESPACE_BYTES_MAX: usize = 30;

/// A namespace's name. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Namespace(Arc<str>);

/// Not a namespace's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("namespace {0:?}: use 1 to {NAMESPACE_BYTES_MAX} of a-z 0-9 - _, beginning with a letter or digit")]
pub struct NamespaceError(String);

impl Namespace {
    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The application whose states its calls read and write: no namespace sees another's.
    pub(crate) fn application(&self) -> Option<ApplicationName> {
        if self.is_plain() { None } else { format!("namespace.{self}").parse().ok() }
    }

    fn is_plain(&self) -> bool {
        &*self.0 == PLAIN
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self(PLAIN.into())
    }
}

impl FromStr for Namespace {
    type Err = NamespaceError;

    fn from_str(given: &str) -> Result<Self, NamespaceError> {
        let begins_well = given.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        let fits = given.len() <= NAMESPACE_BYTES_MAX
            && given.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
        if begins_well && fits { Ok(Self(given.into())) } else { Err(NamespaceError(given.chars().take(64).collect())) }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A function as callers of a namespace know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entity {
    pub(crate) namespace: Namespace,
    pub(crate) package: Option<String>,
    pub(crate) name: String,
}

impl Entity {
    /// The one in this package of a namespace, or in none.
    pub(crate) fn new(namespace: &Namespace, package: Option<&str>, name: &str) -> Self {
        Self { namespace: namespace.clone(), package: package.map(str::to_owned), name: name.to_owned() }
    }

    /// How a function is known to its namespace.
    pub(crate) fn of(function: &FunctionName) -> Self {
        let whole = function.as_str();
        let (namespace, rest) = match whole.split_once(OF).map(|(namespace, rest)| (namespace.parse(), rest)) {
            // A plain one is never written with its namespace.
            Some((Ok(namespace), rest)) if namespace != Namespace::default() => (namespace, rest),
            _ => (Namespace::default(), whole),
        };
        let (package, name) = match rest.split_once(IN) {
            Some((package, name)) if !package.is_empty() && !name.is_empty() => (Some(package.to_owned()), name),
            _ => (None, rest),
        };
        Self { namespace, package, name: name.to_owned() }
    }

    /// The function that is meant, if there can be one: nothing in one namespace is ever another's function.
    pub(crate) fn function(&self) -> Option<FunctionName> {
        let mut whole = String::new();
        if !self.namespace.is_plain() {
            whole.extend([self.namespace.as_str(), OF]);
        }
        if let Some(package) = &self.package {
            whole.push_str(package);
            whole.push(IN);
        }
        whole.push_str(&self.name);
        let function: FunctionName = whole.parse().ok()?;
        (Self::of(&function).namespace == self.namespace).then_some(function)
    }

    /// `package/name`, or the name alone.
    pub(crate) fn path(&self) -> String {
        match &self.package {
            Some(package) => format!("{package}/{}", self.name),
            None => self.name.clone(),
        }
    }

    /// `namespace/package`, or the namespace alone.
    pub(crate) fn home(&self) -> String {
        match &self.package {
            Some(package) => format!("{}/{package}", self.namespace),
            None => self.namespace.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn function(namespace: &str, package: Option<&str>, name: &str) -> Option<String> {
        let entity = Entity::new(&namespace.parse().unwrap(), package, name);
        entity.function().map(|function| function.to_string())
    }

    #[test]
    fn names_are_one_rule_both_ways() {
        assert_eq!(function("guest", None, "hello").as_deref(), Some("hello"));
        assert_eq!(function("guest", Some("math"), "add").as_deref(), Some("math.add"));
        assert_eq!(function("acme", None, "hello").as_deref(), Some("acme..hello"));
        assert_eq!(function("acme", Some("math"), "add").as_deref(), Some("acme..math.add"));
        // A name with a dot in it is the same function as the name in a package.
        assert_eq!(function("guest", None, "math.add").as_deref(), Some("math.add"));
        let of = |function: &str| Entity::of(&function.parse().unwrap());
        assert_eq!((of("math.add").home(), of("math.add").path()), ("guest/math".into(), "math/add".into()));
        assert_eq!((of("acme..hello").home(), of("acme..hello").path()), ("acme".into(), "hello".into()));
        assert_eq!(of("v1.2.3").path(), "v1/2.3");
        assert_eq!(of("odd.").path(), "odd.");
    }

    #[test]
    fn no_name_leads_out_of_its_namespace() {
        assert_eq!(function("guest", None, "acme..hello"), None);
        assert_eq!(function("guest", Some("acme"), ".hello"), None);
        assert_eq!(function("guest", Some("acme."), "hello"), None);
        assert_eq!(function("guest", None, "Hello World"), None);
        assert_eq!(function("acme", Some("a/b"), "c"), None);
    }

    #[test]
    fn states_are_a_namespaces_own() {
        let of = |namespace: &str| namespace.parse::<Namespace>().unwrap().application();
        assert_eq!(of("guest"), None);
        assert_eq!(of("default").unwrap().as_str(), "namespace.default");
        assert!(of(&"a".repeat(NAMESPACE_BYTES_MAX)).is_some());
    }

    #[test]
    fn a_namespace_has_its_form() {
        for odd in ["", "-a", "A", "a.b", "a/b", "a b", &"a".repeat(31)] {
            assert!(odd.parse::<Namespace>().is_err(), "{odd:?}");
        }
    }

    proptest! {
        #[test]
        fn what_one_namespace_calls_is_its_own(
            namespace in "[a-c]{1,2}|guest", package in proptest::option::of("[a-c.]{0,4}"), name in "[a-c.]{0,6}"
        ) {
            let namespace: Namespace = namespace.parse().unwrap();
            if let Some(function) = Entity::new(&namespace, package.as_deref(), &name).function() {
                prop_assert_eq!(&Entity::of(&function).namespace, &namespace);
            }
        }

        #[test]
        fn every_function_is_found_by_what_it_is_listed_as(whole in "[a-c][a-c.]{0,8}") {
            let function: FunctionName = whole.parse().unwrap();
            prop_assert_eq!(Entity::of(&function).function(), Some(function));
        }
    }
}
