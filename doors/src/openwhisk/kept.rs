//! What is kept of actions and packages beside functions: parameters and annotations, what a package is bound to, what a sequence
//! is made of. Reading an action's name with it says what is meant and with which parameters.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::Arc;

use http::StatusCode;
use nigh_proto::{Document, DocumentKey, FunctionName, PlatformError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::failure::Failure;
use crate::namespace::{Entity, Namespace};

/// The version of what nobody has put through a door.
pub(super) const FIRST_VERSION: &str = "0.0.1";
/// An annotation that keeps callers from giving parameters other values.
const FINAL: &str = "final";

/// A parameter, or an annotation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Pair {
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: Value,
}

/// The package that another package stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Binding {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// What is kept of an action or a package.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    pub(super) version: Version,
    /// Milliseconds since 1970.
    pub(super) updated: u64,
    pub(super) publish: bool,
    pub(super) parameters: Vec<Pair>,
    pub(super) annotations: Vec<Pair>,
    /// Of a sequence, which has no function of its own: `/NAMESPACE/[PACKAGE/]NAME` of each action.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) components: Vec<String>,
    /// Of a package that stands for another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) binding: Option<Binding>,
}

/// Three numbers, of which each change raises the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version(u32, u32, u32);

impl Default for Version {
    fn default() -> Self {
        Self(0, 0, 1)
    }
}

impl Version {
    pub(super) fn next(&self) -> Self {
        Self(self.0, self.1, self.2.saturating_add(1))
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let numbers: Vec<u32> = given.split('.').filter_map(|number| number.parse().ok()).collect();
        match numbers[..] {
            [major, minor, patch] if given.split('.').count() == 3 => Ok(Self(major, minor, patch)),
            _ => Err(format!("version {:?}: write it as 1.2.3", given.chars().take(64).collect::<String>())),
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What something kept is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Action,
    Package,
}

/// Something kept, and as of which change.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) kept: Kept,
    pub(super) revision: u64,
}

/// All that is kept.
#[derive(Debug)]
pub(super) struct Contents {
    /// Stands for all of it.
    mark: Arc<str>,
    actions: HashMap<FunctionName, Arc<Entry>>,
    /// By the name that a function of the package's name would have.
    packages: HashMap<FunctionName, Arc<Entry>>,
}

/// What an action's name means.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Where it is, which is elsewhere than it was called where a package is bound to another.
    pub(super) entity: Entity,
    pub(super) function: FunctionName,
    pub(super) version: String,
    /// Of packages and action, the nearer to the action the stronger.
    pub(super) parameters: BTreeMap<String, Value>,
    /// No caller may give parameters other values.
    pub(super) is_final: bool,
    /// Of a sequence.
    pub(super) components: Option<Vec<String>>,
    /// `NAMESPACE/PACKAGE` by which it was called, where that is bound to another.
    pub(super) binding: Option<String>,
}

impl Of {
    fn prefix(self) -> &'static str {
        match self {
            Self::Action => "openwhisk/action/",
            Self::Package => "openwhisk/package/",
        }
    }

    /// Under what something is kept of an action or package with the name of this function.
    pub(super) fn key(self, name: &FunctionName) -> Result<DocumentKey, PlatformError> {
        format!("{}{name}", self.prefix()).parse()
    }
}

impl Entity {
    /// The action of a sequence that is written `/NAMESPACE/[PACKAGE/]NAME`, `_` being this namespace.
    pub(super) fn qualified(given: &str, own: &Namespace) -> Option<Self> {
        let segments: Vec<&str> = given.strip_prefix('/')?.split('/').collect();
        let (namespace, package, name) = match segments[..] {
            [namespace, name] => (namespace, None, name),
            [namespace, package, name] => (namespace, Some(package), name),
            _ => return None,
        };
        let namespace = if namespace == "_" { own.clone() } else { namespace.parse().ok()? };
        let is_empty = name.is_empty() || package.is_some_and(str::is_empty);
        (!is_empty).then(|| Self::new(&namespace, package, name))
    }

    /// The reverse.
    pub(super) fn as_qualified(&self) -> String {
        format!("/{}/{}", self.home(), self.name)
    }
}

/// The name that a package's function would have; a package with a dot in its name could not be told from another's.
pub(super) fn package_name(namespace: &Namespace, package: &str) -> Option<FunctionName> {
    let name = Entity::new(namespace, None, package).function()?;
    (!package.contains('.')).then_some(name)
}

impl Contents {
    /// Reads what a controller keeps.
    pub(super) fn of(mark: Arc<str>, documents: &[Document]) -> Self {
        let mut contents = Self { mark, actions: HashMap::new(), packages: HashMap::new() };
        for document in documents {
            for (of, all) in [(Of::Action, &mut contents.actions), (Of::Package, &mut contents.packages)] {
                let name = document.key.as_str().strip_prefix(of.prefix()).and_then(|name| name.parse().ok());
                let Some(name) = name else { continue };
                match serde_json::from_slice(&document.content) {
                    Ok(kept) => drop(all.insert(name, Arc::new(Entry { kept, revision: document.revision }))),
                    Err(error) => tracing::error!(key = %document.key, %error, "what was kept cannot be read"),
                }
            }
        }
        contents
    }

    /// What stands for all of it.
    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    pub(super) fn action(&self, name: &FunctionName) -> Option<&Arc<Entry>> {
        self.actions.get(name)
    }

    pub(super) fn package(&self, namespace: &Namespace, package: &str) -> Option<&Arc<Entry>> {
        self.packages.get(&package_name(namespace, package)?)
    }

    /// The sequences of a namespace.
    pub(super) fn sequences(&self, namespace: &Namespace) -> impl Iterator<Item = (Entity, &Arc<Entry>)> {
        let is_sequence = |(_, entry): &(_, &Arc<Entry>)| !entry.kept.components.is_empty();
        self.actions
            .iter()
            .filter(is_sequence)
            .map(|(name, entry)| (Entity::of(name), entry))
            .filter(move |(entity, _)| entity.namespace == *namespace)
    }

    /// The packages put in a namespace, by name.
    pub(super) fn packages<'a>(
        &'a self,
        namespace: &'a Namespace,
    ) -> impl Iterator<Item = (String, &'a Arc<Entry>)> + 'a {
        let own = |(name, entry): (&FunctionName, &'a Arc<Entry>)| {
            let entity = Entity::of(name);
            (entity.namespace == *namespace).then_some((entity.name, entry))
        };
        self.packages.iter().filter_map(own)
    }

    /// Whether all may see a package.
    pub(super) fn is_published(&self, namespace: &Namespace, package: &str) -> bool {
        self.package(namespace, package).is_some_and(|entry| entry.kept.publish)
    }

    /// What an action's name means to somebody of a namespace.
    ///
    /// # Errors
    /// 404 where nothing can have this name, 403 where it is another's.
    pub(super) fn resolve(&self, caller: &Namespace, called: &Entity) -> Result<Resolved, Failure> {
        let unknown = || Failure::unknown(called.path());
        let mut parameters = Vec::new();
        let (mut entity, mut binding) = (called.clone(), None);
        if let Some(package) = &called.package {
            self.check_allowed(caller, &called.namespace, package)?;
            let entry = self.package(&called.namespace, package);
            if let Some(to) = entry.and_then(|entry| entry.kept.binding.as_ref()) {
                let namespace: Namespace = to.namespace.parse().map_err(|_| unknown())?;
                self.check_allowed(&called.namespace, &namespace, &to.name)?;
                binding = Some(called.home());
                entity = Entity::new(&namespace, Some(&to.name), &called.name);
                parameters.extend(self.package(&namespace, &to.name).map(|entry| &entry.kept.parameters));
            }
            parameters.extend(entry.map(|entry| &entry.kept.parameters));
        } else if called.namespace != *caller {
            return Err(foreign());
        }
        let function = entity.function().ok_or_else(unknown)?;
        let kept = self.action(&function).map(|entry| &entry.kept);
        parameters.extend(kept.map(|kept| &kept.parameters));
        let merged = parameters.into_iter().flatten().map(|pair| (pair.key.clone(), pair.value.clone()));
        let components = kept.map(|kept| kept.components.clone()).filter(|components| !components.is_empty());
        Ok(Resolved {
            // The function's own entity, as a name with a dot in it is that of a package's action.
            entity: Entity::of(&function),
            parameters: merged.collect(),
            is_final: kept.is_some_and(Kept::is_final),
            version: kept.map_or_else(|| FIRST_VERSION.to_owned(), |kept| kept.version.to_string()),
            components,
            function,
            binding,
        })
    }

    fn check_allowed(&self, who: &Namespace, namespace: &Namespace, package: &str) -> Result<(), Failure> {
        if who == namespace || self.is_published(namespace, package) { Ok(()) } else { Err(foreign()) }
    }
}

impl Kept {
    fn is_final(&self) -> bool {
        self.annotations.iter().any(|pair| pair.key == FINAL && pair.value == Value::Bool(true))
    }
}

/// What is in another namespace, and not for all.
pub(super) fn foreign() -> Failure {
    Failure::new(StatusCode::FORBIDDEN, "The supplied authentication is not authorized to access this resource")
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::openwhisk) fn pairs(pairs: Value) -> Vec<Pair> {
        let Value::Object(members) = pairs else { panic!("{pairs}") };
        members.into_iter().map(|(key, value)| Pair { key, value }).collect()
    }

    pub(in crate::openwhisk) fn contents(actions: &[(&str, Kept)], packages: &[(&str, Kept)]) -> Contents {
        let document = |of: Of, name: &str, kept: &Kept| Document {
            key: of.key(&name.parse().unwrap()).unwrap(),
            content: serde_json::to_vec(kept).unwrap().into(),
            revision: 1,
            function: None,
        };
        let actions = actions.iter().map(|(name, kept)| document(Of::Action, name, kept));
        let packages = packages.iter().map(|(name, kept)| document(Of::Package, name, kept));
        Contents::of("1".into(), &actions.chain(packages).collect::<Vec<_>>())
    }

    fn with(parameters: Value) -> Kept {
        Kept { parameters: pairs(parameters), ..Kept::default() }
    }

    #[test]
    fn parameters_come_from_packages_and_action_and_the_nearer_is_the_stronger() {
        let bound = Binding { namespace: "acme".into(), name: "math".into() };
        let contents = contents(
            &[("acme..math.add", with(json!({ "d": "action" })))],
            &[
                (
                    "acme..math",
                    Kept { publish: true, ..with(json!({ "a": "package", "b": "package", "d": "package" })) },
                ),
                ("sums", Kept { binding: Some(bound), ..with(json!({ "b": "binding", "c": 1 })) }),
            ],
        );
        let guest = Namespace::default();
        let resolved = contents.resolve(&guest, &Entity::new(&guest, Some("sums"), "add")).unwrap();
        assert_eq!(resolved.function.as_str(), "acme..math.add");
        assert_eq!(json!(resolved.parameters), json!({ "a": "package", "b": "binding", "c": 1, "d": "action" }));
        assert_eq!(resolved.binding.as_deref(), Some("guest/sums"));
        let plain = contents.resolve(&guest, &Entity::new(&guest, None, "echo")).unwrap();
        assert!(plain.parameters.is_empty() && plain.components.is_none() && plain.version == FIRST_VERSION);
        // The same action by its own name, which is published.
        let acme = "acme".parse().unwrap();
        let resolved = contents.resolve(&guest, &Entity::new(&acme, Some("math"), "add")).unwrap();
        assert_eq!(json!(resolved.parameters), json!({ "a": "package", "b": "package", "d": "action" }));
    }

    #[test]
    fn what_is_anothers_and_not_published_is_out_of_reach_by_any_way() {
        let acme: Namespace = "acme".parse().unwrap();
        let bound = Binding { namespace: "acme".into(), name: "math".into() };
        let contents = contents(
            &[],
            &[("acme..math", Kept::default()), ("sums", Kept { binding: Some(bound), ..Kept::default() })],
        );
        let guest = Namespace::default();
        for called in [
            Entity::new(&acme, None, "add"),
            Entity::new(&acme, Some("math"), "add"),
            Entity::new(&acme, Some("none"), "add"),
            Entity::new(&guest, Some("sums"), "add"),
        ] {
            assert_eq!(contents.resolve(&guest, &called).unwrap_err().status, StatusCode::FORBIDDEN, "{called:?}");
        }
        let own = contents.resolve(&acme, &Entity::new(&acme, Some("math"), "add")).unwrap();
        assert_eq!(own.function.as_str(), "acme..math.add");
    }

    #[test]
    fn actions_of_sequences_are_named_in_full() {
        let guest = Namespace::default();
        let of = |given: &str| Entity::qualified(given, &guest).map(|entity| entity.as_qualified());
        assert_eq!(of("/_/echo").as_deref(), Some("/guest/echo"));
        assert_eq!(of("/acme/math/add").as_deref(), Some("/acme/math/add"));
        for odd in ["", "/", "echo", "/echo", "/_/", "/_//add", "/a/b/c/d", "/A/b"] {
            assert_eq!(of(odd), None, "{odd}");
        }
    }

    #[test]
    fn versions_are_three_numbers_and_grow_at_the_end() {
        let next = |given: &str| given.parse::<Version>().map(|version| version.next().to_string());
        assert_eq!(next("0.0.1").as_deref(), Ok("0.0.2"));
        assert_eq!(next("1.20.300").as_deref(), Ok("1.20.301"));
        for odd in ["", "1", "1.2", "1.2.3.4", "1.2.x", "1.2.-3", "1..3.4", "a.1.2.3"] {
            assert!(next(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_package_cannot_be_taken_for_anothers() {
        let of =
            |namespace: &str, package| package_name(&namespace.parse().unwrap(), package).map(|name| name.to_string());
        assert_eq!(of("guest", "math").as_deref(), Some("math"));
        assert_eq!(of("acme", "math").as_deref(), Some("acme..math"));
        for odd in ["a.b", "", "Math", "a b", "acme..math"] {
            assert_eq!(of("guest", odd), None, "{odd}");
        }
    }
}
