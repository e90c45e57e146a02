//! Applications as device applications see them: each function that somebody serves, and those that the older interface added.

use std::collections::BTreeSet;

use nigh_proto::Deployment;
use serde_json::{Value, json};

use crate::location::Constraint;

/// Characters of a name, provider or version, at most.
pub(crate) const NAME_CHARS_MAX: usize = 32;
/// Who provides what the older interface added, and in which version.
pub(crate) const OLDER_PROVIDER: &str = "OpenLambdaMec";
const OLDER_VERSION: &str = "1.0";
/// The version of a function that its computers bring themselves.
const OWN_VERSION: &str = "own";

/// What is told of an application.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Application {
    pub(crate) name: String,
    pub(crate) provider: String,
    pub(crate) version: String,
    pub(crate) description: String,
    pub(crate) memory_mb: Option<u64>,
    pub(crate) locations: Vec<Constraint>,
}

/// Which applications a device wants to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) names: BTreeSet<String>,
    pub(crate) providers: BTreeSet<String>,
    pub(crate) versions: BTreeSet<String>,
    pub(crate) vendors: BTreeSet<String>,
    /// Applications that need their service to be continued.
    pub(crate) continuity: Option<bool>,
}

impl Application {
    /// A function, deployed or brought by its computers.
    pub(crate) fn of_function(name: &str, deployment: Option<&Deployment>, provider: &str) -> Self {
        let version =
            deployment.map_or_else(|| OWN_VERSION.to_owned(), |deployment| cut(&deployment.version.to_string()));
        let description = match deployment {
            Some(deployment) => {
                format!("The {} function {name}, version {}", deployment.kind, deployment.version.short())
            }
            None => format!("The function {name}, which its computers bring"),
        };
        Self {
            name: name.to_owned(),
            provider: provider.to_owned(),
            version,
            description,
            memory_mb: deployment.map(|deployment| deployment.limits.memory_bytes.div_ceil(1 << 20)),
            locations: Vec::new(),
        }
    }

    /// One that the older interface added.
    pub(crate) fn added(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            provider: OLDER_PROVIDER.to_owned(),
            version: OLDER_VERSION.to_owned(),
            description: format!("The function {name}"),
            memory_mb: None,
            locations: Vec::new(),
        }
    }

    /// The identifier of its descriptor, which follows from its name.
    pub(crate) fn descriptor_id(&self) -> String {
        descriptor_id(&self.name)
    }

    /// An element of `ApplicationList` of GS MEC 016 2.2.1.
    pub(crate) fn to_dev_app(&self) -> Value {
        let mut info = json!({
            "appDId": self.descriptor_id(),
            "appName": self.name,
            "appProvider": self.provider,
            "appSoftVersion": self.version,
            "appDVersion": self.version,
            "appDescription": self.description,
            "appCharcs": self.characteristics(),
        });
        if !self.locations.is_empty() {
            info["appLocation"] = json!(self.locations);
        }
        json!({ "appInfo": info })
    }

    /// The same of 1.1.1.
    pub(crate) fn to_mx2(&self) -> Value {
        json!({
            "appName": self.name,
            "appProvider": self.provider,
            "appSoftVersion": self.version,
            "appDescription": self.description,
            "appCharcs": self.characteristics(),
        })
    }

    /// No call depends on one before, so no function needs its service to be continued.
    fn characteristics(&self) -> Value {
        match self.memory_mb {
            Some(memory) => json!({ "memory": memory, "serviceCont": 0 }),
            None => json!({ "serviceCont": 0 }),
        }
    }
}

impl Filter {
    /// Whether an application is among those wanted.
    pub(crate) fn admits(&self, application: &Application) -> bool {
        let is_wanted = |wanted: &BTreeSet<String>, has: &str| wanted.is_empty() || wanted.contains(has);
        // Nothing here has an extension of a vendor.
        self.vendors.is_empty()
            && self.continuity != Some(true)
            && is_wanted(&self.names, &application.name)
            && is_wanted(&self.providers, &application.provider)
            && is_wanted(&self.versions, &application.version)
    }
}

/// The identifier of the descriptor of an application of this name.
pub(crate) fn descriptor_id(name: &str) -> String {
    format!("urn:nigh:function:{name}")
}

/// As much of a text as a version may have.
fn cut(text: &str) -> String {
    text.chars().take(NAME_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_admits_what_meets_all_of_it() {
        let application = Application::of_function("echo", None, "Nigh");
        let set = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        assert!(Filter::default().admits(&application));
        assert!(
            Filter { names: set(&["other", "echo"]), providers: set(&["Nigh"]), ..Filter::default() }
                .admits(&application)
        );
        assert!(!Filter { names: set(&["echo"]), providers: set(&["Else"]), ..Filter::default() }.admits(&application));
        assert!(!Filter { vendors: set(&["v"]), ..Filter::default() }.admits(&application));
        assert!(!Filter { continuity: Some(true), ..Filter::default() }.admits(&application));
        assert!(Filter { continuity: Some(false), ..Filter::default() }.admits(&application));
    }
}
