//! Packages: there as long as there is an action in them, or because they were put; with parameters for all actions in them, or
//! bound to another package, whose actions are then called by this one's name.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::deploy::check_may_deploy;
use super::entity::{Action, Package};
use super::failure::Failure;
use super::kept::{Binding, Contents, Of, Pair, package_name};
use super::parameters::checked_pairs;
use super::record::ms_now;
use super::{Asked, Openwhisk};
use crate::answer::{self, Answer};
use crate::backend::Backend;
use crate::namespace::Namespace;

/// Bytes of a package as it is put, at most, and time for it to come.
const REQUEST_BYTES_MAX: usize = 1 << 20;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A package as it is put. What a client says beside this is passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Put {
    publish: Option<bool>,
    parameters: Option<Vec<Pair>>,
    annotations: Option<Vec<Pair>>,
    binding: Option<BindingGiven>,
}

/// Both, or neither.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BindingGiven {
    namespace: Option<String>,
    name: Option<String>,
}

impl<B: Backend> Openwhisk<B> {
    pub(super) async fn list_packages(&self, namespace: &Namespace, asked: &Asked) -> Result<Answer, Failure> {
        asked.only_get()?;
        let contents = self.shelf.contents().await?;
        let actions = Action::all(namespace, self.registry.list().await?, &contents);
        asked.list("packages", Package::all(namespace, &actions, &contents), |package| package.summary())
    }

    pub(super) async fn package(&self, namespace: &Namespace, name: &str, asked: Asked) -> Result<Answer, Failure> {
        match *asked.request.method() {
            Method::GET | Method::HEAD => {
                let contents = self.shelf.contents().await?;
                let deployed = self.registry.list().await?;
                let actions = Action::all(namespace, deployed.clone(), &contents);
                let found = Package::find(namespace, name, &actions, &contents);
                let package = found.ok_or_else(|| Failure::unknown(name))?;
                let bound = package.kept.as_ref().and_then(|entry| entry.kept.binding.as_ref());
                let within = match bound.and_then(|to| Some((to.namespace.parse::<Namespace>().ok()?, &to.name))) {
                    None => in_package(actions, name),
                    Some((other, to)) if other == *namespace || contents.is_published(&other, to) => {
                        in_package(Action::all(&other, deployed, &contents), to)
                    }
                    Some(_) => Vec::new(),
                };
                Ok(answer::json(StatusCode::OK, &package.whole(&within)))
            }
            Method::PUT => self.put_package(namespace, name, asked).await,
            Method::DELETE => self.delete_package(namespace, name, &asked).await,
            _ => Err(Failure::wrong_method("GET, PUT, DELETE")),
        }
    }

    async fn put_package(&self, namespace: &Namespace, name: &str, asked: Asked) -> Result<Answer, Failure> {
        check_may_deploy(&asked)?;
        let overwrite = asked.query.flag("overwrite").map_err(Failure::bad)?;
        let key = package_name(namespace, name).ok_or_else(|| {
            Failure::bad(format!("{name}: packages here have names of a-z 0-9 - _ alone, as functions have"))
        })?;
        let (parts, body) = asked.request.into_parts();
        let until = Instant::now() + REQUEST_TIMEOUT;
        let arrived = self.gate.read(&parts.headers, body, REQUEST_BYTES_MAX, until).await?;
        let malformed = |error| Failure::bad(format!("The request content was malformed: {error}"));
        let put: Put = match arrived.bytes.trim_ascii() {
            [] => Put::default(),
            bytes => serde_json::from_slice(bytes).map_err(malformed)?,
        };
        let contents = self.shelf.fresh().await?;
        let actions = Action::all(namespace, self.registry.list().await?, &contents);
        let before = contents.package(namespace, name);
        if before.is_some() && !overwrite {
            return Err(Failure::conflict("resource already exists"));
        }
        let mut kept = before.map(|entry| entry.kept.clone()).unwrap_or_default();
        if let Some(binding) = checked_binding(put.binding, namespace, name, &contents)? {
            if kept.binding.is_none() && !in_package(actions.clone(), name).is_empty() {
                return Err(Failure::conflict(
                    "Resource exists and is not a binding: there are actions in the package.",
                ));
            }
            kept.binding = Some(binding);
        }
        kept.publish = put.publish.unwrap_or(kept.publish);
        if let Some(parameters) = put.parameters {
            kept.parameters = checked_pairs("parameters", parameters)?;
        }
        if let Some(annotations) = put.annotations {
            kept.annotations = checked_pairs("annotations", annotations)?;
        }
        kept.updated = ms_now();
        if before.is_some() {
            kept.version = kept.version.next();
        }
        self.shelf.put(Of::Package, &key, &kept, before.map_or(0, |entry| entry.revision), None).await?;
        self.told_package(namespace, name, &actions).await
    }

    async fn delete_package(&self, namespace: &Namespace, name: &str, asked: &Asked) -> Result<Answer, Failure> {
        check_may_deploy(asked)?;
        let force = asked.query.flag("force").map_err(Failure::bad)?;
        let contents = self.shelf.fresh().await?;
        let actions = Action::all(namespace, self.registry.list().await?, &contents);
        let found = Package::find(namespace, name, &actions, &contents);
        let package = found.ok_or_else(|| Failure::unknown(name))?;
        let within = in_package(actions, name);
        if !within.is_empty() && !force {
            let message = format!(
                "Package not empty (contains {} entities). Set force parameter or delete package contents.",
                within.len()
            );
            return Err(Failure::conflict(message));
        }
        for action in &within {
            self.remove(action).await?;
        }
        if let (Some(_), Some(key)) = (&package.kept, package_name(namespace, name)) {
            self.shelf.remove(Of::Package, &key).await?;
        }
        Ok(answer::json(StatusCode::OK, &package.whole(&[])))
    }

    async fn told_package(&self, namespace: &Namespace, name: &str, actions: &[Action]) -> Result<Answer, Failure> {
        let contents = self.shelf.contents().await?;
        let found = Package::find(namespace, name, actions, &contents);
        let told: Value = found.map(|package| package.whole(&[])).ok_or_else(|| Failure::unknown(name))?;
        Ok(answer::json(StatusCode::OK, &told))
    }
}

fn in_package(mut actions: Vec<Action>, name: &str) -> Vec<Action> {
    actions.retain(|action| action.entity.package.as_deref() == Some(name));
    actions
}

/// What a package is to be bound to, if to anything.
fn checked_binding(
    given: Option<BindingGiven>,
    own: &Namespace,
    package: &str,
    contents: &Contents,
) -> Result<Option<Binding>, Failure> {
    let (namespace, name) = match given {
        None | Some(BindingGiven { namespace: None, name: None }) => return Ok(None),
        Some(BindingGiven { namespace, name: Some(name) }) => (namespace, name),
        Some(BindingGiven { name: None, .. }) => return Err(Failure::bad("binding: it has no name")),
    };
    let namespace: Namespace = match namespace.as_deref() {
        None | Some("_") => own.clone(),
        Some(namespace) => namespace.parse().map_err(|error| Failure::bad(format!("binding: {error}")))?,
    };
    if namespace != *own && !contents.is_published(&namespace, &name) {
        return Err(super::kept::foreign());
    }
    let target = contents.package(&namespace, &name);
    if (&namespace, &*name) == (own, package) || target.is_some_and(|entry| entry.kept.binding.is_some()) {
        return Err(Failure::bad("Cannot bind to another package binding."));
    }
    if package_name(&namespace, &name).is_none() {
        return Err(Failure::bad(format!("binding: there can be no package {name}")));
    }
    Ok(Some(Binding { namespace: namespace.to_string(), name }))
}

#[cfg(test)]
mod tests {
    use super::super::kept::Kept;
    use super::super::kept::tests::contents;
    use super::*;

    #[test]
    fn a_package_is_bound_to_one_that_it_may_see_and_that_is_bound_to_none() {
        let to = |namespace: &str, name: &str| {
            Some(BindingGiven { namespace: Some(namespace.into()), name: Some(name.into()) })
        };
        let bound = Binding { namespace: "guest".into(), name: "math".into() };
        let contents = contents(
            &[],
            &[
                ("bound", Kept { binding: Some(bound), ..Kept::default() }),
                ("acme..public", Kept { publish: true, ..Kept::default() }),
                ("acme..private", Kept::default()),
            ],
        );
        let guest = Namespace::default();
        let check = |given| {
            let checked = checked_binding(given, &guest, "new", &contents);
            checked.map(|binding| binding.map(|to| to.namespace + "/" + &to.name)).map_err(|f| f.status.as_u16())
        };
        assert_eq!(check(to("_", "math")), Ok(Some("guest/math".into())));
        assert_eq!(check(to("acme", "public")), Ok(Some("acme/public".into())));
        assert_eq!(check(None), Ok(None));
        assert_eq!(check(Some(BindingGiven::default())), Ok(None));
        for (given, status) in [
            (to("acme", "private"), 403),
            (to("_", "bound"), 400),
            (to("_", "new"), 400),
            (to("_", "a.b"), 400),
            (to("A", "b"), 400),
            (Some(BindingGiven { namespace: Some("_".into()), name: None }), 400),
        ] {
            assert_eq!(check(given), Err(status));
        }
    }
}
