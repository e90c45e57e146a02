//! Actions and packages as OpenWhisk tells of them, from what is deployed.

use nigh_proto::{Deployment, Kind};
use serde_json::{Value, json};

use super::record::VERSION;
use crate::namespace::{Entity, Namespace};

/// Bytes of a mebibyte, in which OpenWhisk counts memory and logs.
pub(super) const MIB: u64 = 1 << 20;

/// A function, as the callers of a namespace see it.
#[derive(Debug, Clone)]
pub(super) struct Action {
    pub(super) entity: Entity,
    pub(super) deployment: Deployment,
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

impl Action {
    /// Of a namespace's functions, those deployed, by name.
    pub(super) fn all(namespace: &Namespace, deployed: Vec<Deployment>) -> Vec<Self> {
        let actions = deployed.into_iter().map(|deployment| Self { entity: Entity::of(&deployment.name), deployment });
        actions.filter(|action| action.entity.namespace == *namespace).collect()
    }

    /// As an element of a list.
    pub(super) fn summary(&self) -> Value {
        json!({
            "namespace": self.entity.home(),
            "name": self.entity.name,
            "version": VERSION,
            "publish": false,
            "annotations": self.annotations(),
            "updated": 0,
            "limits": self.limits(),
            "exec": { "binary": true },
        })
    }

    /// All of it, but the code.
    pub(super) fn whole(&self) -> Value {
        let mut told = self.summary();
        told["parameters"] = json!([]);
        told["exec"] = json!({ "kind": kind_word(Some(self.deployment.kind)), "binary": true });
        told
    }

    /// As an element of a package.
    pub(super) fn in_package(&self) -> Value {
        json!({ "name": self.entity.name, "version": VERSION, "annotations": self.annotations() })
    }

    fn annotations(&self) -> Value {
        json!([
            { "key": "exec", "value": kind_word(Some(self.deployment.kind)) },
            { "key": "digest", "value": self.deployment.version.to_string() },
        ])
    }

    fn limits(&self) -> Value {
        let limits = &self.deployment.limits;
        json!({
            "timeout": u64::try_from(limits.timeout.as_millis()).unwrap_or(u64::MAX),
            "memory": limits.memory_bytes.div_ceil(MIB),
            "logs": limits.log_bytes.div_ceil(MIB),
            "concurrency": 1,
        })
    }
}

/// A package: there as long as there is an action in it.
pub(super) fn package(namespace: &Namespace, name: &str) -> Value {
    json!({
        "namespace": namespace.as_str(),
        "name": name,
        "version": VERSION,
        "publish": false,
        "annotations": [],
        "updated": 0,
        "binding": false,
    })
}

/// The same with all that is in it.
pub(super) fn whole_package(namespace: &Namespace, name: &str, actions: &[Action]) -> Value {
    let mut told = package(namespace, name);
    told["binding"] = json!({});
    told["parameters"] = json!([]);
    told["actions"] = actions.iter().map(Action::in_package).collect();
    told["feeds"] = json!([]);
    told
}

#[cfg(test)]
mod tests {
    use nigh_proto::{Digest, Limits};

    use super::*;

    #[test]
    fn actions_are_told_by_namespace_and_package() {
        let deployment = |name: &str| {
            let name = name.parse().unwrap();
            Deployment::new(name, Digest::of(b"m"), 1, Kind::Native, Limits::default(), Vec::new())
        };
        let deployed: Vec<_> = ["acme..hello", "hello", "math.add"].map(deployment).into();
        let actions = Action::all(&Namespace::default(), deployed.clone());
        let told: Vec<_> = actions.iter().map(|action| (action.entity.home(), action.entity.path())).collect();
        assert_eq!(told, [("guest".into(), "hello".into()), ("guest/math".into(), "math/add".into())]);
        let whole = actions[1].whole();
        assert_eq!((&whole["namespace"], &whole["name"]), (&json!("guest/math"), &json!("add")));
        assert_eq!(whole["exec"], json!({ "kind": "wasm:native", "binary": true }));
        assert_eq!(whole["limits"], json!({ "timeout": 10_000, "memory": 128, "logs": 1, "concurrency": 1 }));
        assert!(actions[1].summary().get("parameters").is_none());
        assert_eq!(Action::all(&"acme".parse().unwrap(), deployed).len(), 1);
        let package = whole_package(&Namespace::default(), "math", &actions[1..]);
        assert_eq!(package["actions"][0]["name"], "add");
    }
}
