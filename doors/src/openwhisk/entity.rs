//! Actions and packages as OpenWhisk tells of them, from what is deployed and what is kept beside that.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nigh_proto::{Deployment, Kind};
use serde_json::{Value, json};

use super::kept::{Contents, Entry, FIRST_VERSION, Pair, package_name};
use crate::namespace::{Entity, Namespace};

/// Bytes of a mebibyte, in which OpenWhisk counts memory and logs.
pub(super) const MIB: u64 = 1 << 20;
/// The kind of actions that are made of others.
pub(super) const SEQUENCE: &str = "sequence";
/// Annotations that say what is so, whatever was put.
const OF_OURS: [&str; 2] = ["exec", "digest"];

/// An action, as the callers of a namespace see it.
#[derive(Debug, Clone)]
pub(super) struct Action {
    pub(super) entity: Entity,
    pub(super) body: Body,
    pub(super) kept: Option<Arc<Entry>>,
}

/// What an action is.
#[derive(Debug, Clone)]
pub(super) enum Body {
    Function(Box<Deployment>),
    /// The names, in full, of the actions that run one after the other.
    Sequence(Vec<String>),
}

/// A package: there as long as there is an action in it, or it was put.
#[derive(Debug)]
pub(super) struct Package {
    pub(super) namespace: Namespace,
    pub(super) name: String,
    pub(super) kept: Option<Arc<Entry>>,
}

/// What an action's `exec.kind` is.
pub(super) fn kind_word(kind: Option<Kind>) -> &'static str {
    match kind {
        Some(Kind::Native) => "wasm:native",
        Some(Kind::Http) => "wasm:http",
        Some(Kind::Command) => "wasm:command",
        None => "wasm:default",
    }
}

/// The order of lists: the last change first, of which functions have none, and by name.
fn order(kept: Option<&Arc<Entry>>) -> Reverse<u64> {
    Reverse(kept.map_or(0, |entry| entry.kept.updated))
}

impl Action {
    /// Those of a namespace.
    pub(super) fn all(namespace: &Namespace, deployed: Vec<Deployment>, contents: &Contents) -> Vec<Self> {
        let mut actions = BTreeMap::new();
        for deployment in deployed {
            let entity = Entity::of(&deployment.name);
            if entity.namespace == *namespace {
                let kept = contents.action(&deployment.name).cloned();
                let name = deployment.name.clone();
                actions.insert(name, Self { entity, body: Body::Function(deployment.into()), kept });
            }
        }
        for (entity, entry) in contents.sequences(namespace) {
            if let Some(name) = entity.function() {
                let body = Body::Sequence(entry.kept.components.clone());
                actions.insert(name, Self { entity, body, kept: Some(entry.clone()) });
            }
        }
        let mut actions: Vec<_> = actions.into_values().collect();
        actions.sort_by_key(|action| order(action.kept.as_ref()));
        actions
    }

    /// As an element of a list.
    pub(super) fn summary(&self) -> Value {
        json!({
            "namespace": self.entity.home(),
            "name": self.entity.name,
            "version": version(self.kept.as_ref()),
            "publish": self.kept.as_ref().is_some_and(|entry| entry.kept.publish),
            "annotations": self.annotations(),
            "updated": self.kept.as_ref().map_or(0, |entry| entry.kept.updated),
            "limits": self.limits(),
            "exec": { "binary": matches!(self.body, Body::Function(_)) },
        })
    }

    /// All of it, but the code.
    pub(super) fn whole(&self, parameters: &BTreeMap<String, Value>) -> Value {
        let mut told = self.summary();
        told["parameters"] = parameters.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        told["exec"] = match &self.body {
            Body::Function(deployment) => json!({ "kind": kind_word(Some(deployment.kind)), "binary": true }),
            Body::Sequence(components) => json!({ "kind": SEQUENCE, "components": components, "binary": false }),
        };
        told
    }

    /// As an element of a package.
    pub(super) fn in_package(&self) -> Value {
        let version = version(self.kept.as_ref());
        json!({ "name": self.entity.name, "version": version, "annotations": self.annotations() })
    }

    fn annotations(&self) -> Value {
        let given = annotations(self.kept.as_ref()).into_iter().filter(|pair| !OF_OURS.contains(&pair.key.as_str()));
        let mut told: Vec<Value> = given.map(|pair| json!(pair)).collect();
        match &self.body {
            Body::Function(deployment) => {
                told.push(json!({ "key": "exec", "value": kind_word(Some(deployment.kind)) }));
                told.push(json!({ "key": "digest", "value": deployment.version.to_string() }));
            }
            Body::Sequence(_) => told.push(json!({ "key": "exec", "value": SEQUENCE })),
        }
        told.into()
    }

    fn limits(&self) -> Value {
        let Body::Function(deployment) = &self.body else {
            // Those of its actions hold for each of them.
            return json!({ "timeout": 60_000, "memory": 256, "logs": 10, "concurrency": 1 });
        };
        let limits = &deployment.limits;
        json!({
            "timeout": u64::try_from(limits.timeout.as_millis()).unwrap_or(u64::MAX),
            "memory": limits.memory_bytes.div_ceil(MIB),
            "logs": limits.log_bytes.div_ceil(MIB),
            "concurrency": 1,
        })
    }
}

impl Package {
    /// Those of a namespace, of whose actions these are all.
    pub(super) fn all(namespace: &Namespace, actions: &[Action], contents: &Contents) -> Vec<Self> {
        let of_actions = actions.iter().filter_map(|action| action.entity.package.clone());
        let put = contents.packages(namespace).map(|(name, _)| name);
        let names: BTreeSet<String> = of_actions.chain(put).collect();
        let package = |name: String| {
            let kept = contents.package(namespace, &name).cloned();
            Self { namespace: namespace.clone(), name, kept }
        };
        let mut packages: Vec<_> = names.into_iter().map(package).collect();
        packages.sort_by_key(|package| order(package.kept.as_ref()));
        packages
    }

    /// One of this name, if it was put or there is an action in it.
    pub(super) fn find(namespace: &Namespace, name: &str, actions: &[Action], contents: &Contents) -> Option<Self> {
        let kept = contents.package(namespace, name).cloned();
        let has_actions = || actions.iter().any(|action| action.entity.package.as_deref() == Some(name));
        let is_there = package_name(namespace, name).is_some() && (kept.is_some() || has_actions());
        is_there.then(|| Self { namespace: namespace.clone(), name: name.to_owned(), kept })
    }

    /// As an element of a list.
    pub(super) fn summary(&self) -> Value {
        let binding = self.kept.as_ref().and_then(|entry| entry.kept.binding.as_ref());
        json!({
            "namespace": self.namespace.as_str(),
            "name": self.name,
            "version": version(self.kept.as_ref()),
            "publish": self.kept.as_ref().is_some_and(|entry| entry.kept.publish),
            "annotations": annotations(self.kept.as_ref()),
            "updated": self.kept.as_ref().map_or(0, |entry| entry.kept.updated),
            "binding": binding.map_or(json!(false), |binding| json!(binding)),
        })
    }

    /// The same with all that is in it, or in the package that it stands for.
    pub(super) fn whole(&self, actions: &[Action]) -> Value {
        let mut told = self.summary();
        let kept = self.kept.as_ref().map(|entry| &entry.kept);
        told["binding"] = kept.and_then(|kept| kept.binding.as_ref()).map_or(json!({}), |binding| json!(binding));
        told["parameters"] = json!(kept.map(|kept| kept.parameters.as_slice()).unwrap_or_default());
        told["actions"] = actions.iter().map(Action::in_package).collect();
        told["feeds"] = json!([]);
        told
    }
}

fn version(kept: Option<&Arc<Entry>>) -> String {
    kept.map_or_else(|| FIRST_VERSION.to_owned(), |entry| entry.kept.version.to_string())
}

fn annotations(kept: Option<&Arc<Entry>>) -> Vec<&Pair> {
    kept.map(|entry| entry.kept.annotations.iter().collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use nigh_proto::{Digest, Limits};

    use super::super::kept::Kept;
    use super::super::kept::tests::{contents, pairs};
    use super::*;

    fn deployments(names: &[&str]) -> Vec<Deployment> {
        let deployment = |name: &&str| {
            let name = name.parse().unwrap();
            Deployment::new(name, Digest::of(b"m"), 1, Kind::Native, Limits::default(), Vec::new())
        };
        names.iter().map(deployment).collect()
    }

    #[test]
    fn actions_are_told_by_namespace_and_package() {
        let deployed = deployments(&["acme..hello", "hello", "math.add"]);
        let (guest, nothing) = (Namespace::default(), contents(&[], &[]));
        let actions = Action::all(&guest, deployed.clone(), &nothing);
        let told: Vec<_> = actions.iter().map(|action| (action.entity.home(), action.entity.path())).collect();
        assert_eq!(told, [("guest".into(), "hello".into()), ("guest/math".into(), "math/add".into())]);
        let whole = actions[1].whole(&BTreeMap::new());
        assert_eq!((&whole["namespace"], &whole["name"]), (&json!("guest/math"), &json!("add")));
        assert_eq!(whole["exec"], json!({ "kind": "wasm:native", "binary": true }));
        assert_eq!(whole["limits"], json!({ "timeout": 10_000, "memory": 128, "logs": 1, "concurrency": 1 }));
        assert!(actions[1].summary().get("parameters").is_none());
        assert_eq!(Action::all(&"acme".parse().unwrap(), deployed, &nothing).len(), 1);
        let package = Package::find(&guest, "math", &actions, &nothing).unwrap();
        assert_eq!(package.whole(&actions[1..])["actions"][0]["name"], "add");
        assert_eq!(package.summary()["binding"], false);
        assert!(Package::find(&guest, "none", &actions, &nothing).is_none());
    }

    #[test]
    fn what_is_kept_is_told_with_what_is_so() {
        let put = Kept {
            updated: 7,
            publish: true,
            annotations: pairs(json!({ "exec": "nodejs", "a": 1 })),
            ..Kept::default()
        };
        let sequence = Kept { components: vec!["/guest/hello".into()], updated: 9, ..Kept::default() };
        let package = Kept { parameters: pairs(json!({ "p": 1 })), ..Kept::default() };
        let contents = contents(&[("hello", put), ("both", sequence)], &[("empty", package)]);
        let guest = Namespace::default();
        let actions = Action::all(&guest, deployments(&["a", "hello"]), &contents);
        let names: Vec<_> = actions.iter().map(|action| action.entity.name.as_str()).collect();
        assert_eq!(names, ["both", "hello", "a"], "the last change first");
        let annotations = &actions[1].summary()["annotations"];
        assert_eq!(annotations[0], json!({ "key": "a", "value": 1 }));
        assert_eq!(annotations[1], json!({ "key": "exec", "value": "wasm:native" }));
        let whole = actions[0].whole(&BTreeMap::from([("x".to_owned(), json!(1))]));
        assert_eq!(whole["exec"]["components"], json!(["/guest/hello"]));
        assert_eq!(whole["parameters"], json!([{ "key": "x", "value": 1 }]));
        let packages = Package::all(&guest, &actions, &contents);
        assert_eq!(packages[0].whole(&[])["parameters"], json!([{ "key": "p", "value": 1 }]));
    }
}
