//! Contexts: which device application wants which application, and where it was told to call it. They are kept, so that a
//! restart forgets none.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use nigh_proto::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::location::Constraint;
use crate::server::Server;

/// Names a context: 32 hexadecimal digits, as many as the standard allows, and not to be guessed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ContextId(u128);

impl ContextId {
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }

    /// Spreads contexts evenly over so many places.
    pub(crate) fn spread(self, places: usize) -> usize {
        usize::try_from(self.0 % places as u128).unwrap_or_default()
    }
}

impl FromStr for ContextId {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let is_canonical = given.len() == 32 && given.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = u128::from_str_radix(given, 16).ok().filter(|_| is_canonical);
        number.map(Self).ok_or_else(|| "no context has such an id".to_owned())
    }
}

impl TryFrom<String> for ContextId {
    type Error = String;

    fn try_from(given: String) -> Result<Self, String> {
        given.parse()
    }
}

impl From<ContextId> for String {
    fn from(id: ContextId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for ContextId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ContextId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which interface a device speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Dialect {
    /// GS MEC 016 2.2.1, `/dev_app/v1`.
    DevApp,
    /// GS MEC 016 1.1.1, `/mx2/v1`.
    Mx2,
}

/// An application as a device names it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApplicationInfo {
    pub(crate) app_name: String,
    pub(crate) app_provider: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app_d_version: Option<String>,
    #[serde(rename = "appDId", skip_serializing_if = "Option::is_none")]
    pub(crate) app_d_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app_soft_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app_description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app_package_source: Option<String>,
}

/// What a device wants to be told, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Wish {
    /// How the device application calls itself.
    pub(crate) device_application: String,
    pub(crate) callback: Option<String>,
    pub(crate) application: ApplicationInfo,
    pub(crate) location_updates: Option<bool>,
    pub(crate) auto_instantiation: Option<bool>,
    /// One for each instance asked for: where it is to be.
    pub(crate) locations: Vec<Option<Constraint>>,
}

/// Where a device was told to call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) server: Server,
    pub(crate) uri: String,
}

/// A context as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Context {
    pub(crate) id: ContextId,
    pub(crate) dialect: Dialect,
    /// Where the device was when it was last heard of.
    pub(crate) device: IpAddr,
    /// The device was at that very address, rather than behind somebody who was not named as a proxy.
    pub(crate) is_direct: bool,
    /// The application was deployed, so its removal ends the context.
    pub(crate) is_deployed: bool,
    pub(crate) wish: Wish,
    /// For each instance asked for, what the device knows.
    pub(crate) told: Vec<Option<Told>>,
}

impl Context {
    /// Names an instance: the same as long as its address is.
    pub(crate) fn instance_id(&self, at: usize, told: &Told) -> String {
        Digest::of(format!("{} {at} {}", self.id, told.uri).as_bytes()).to_string()[..32].to_owned()
    }

    /// `AppContext` of GS MEC 016 2.2.1.
    pub(crate) fn to_dev_app(&self) -> Value {
        let wish = &self.wish;
        let mut application = json!(wish.application);
        application["userAppInstanceInfo"] = self.instances(true);
        let mut context = json!({
            "contextId": self.id.to_string(),
            "associateDevAppId": wish.device_application,
            "appInfo": application,
        });
        let optional = [
            ("callbackReference", wish.callback.as_ref().map(|callback| json!(callback))),
            ("appLocationUpdates", wish.location_updates.map(Value::Bool)),
            ("appAutoInstantiation", wish.auto_instantiation.map(Value::Bool)),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                context[name] = value;
            }
        }
        context
    }

    /// `AppContext` of GS MEC 016 1.1.1.
    pub(crate) fn to_mx2(&self) -> Value {
        let mut application = json!(self.wish.application);
        if let Some(members) = application.as_object_mut() {
            members.remove("appPackageSource");
            members.remove("appDVersion");
            members.remove("appDId");
        }
        application["referenceURI"] = json!(self.bare_reference());
        json!({
            "contextId": self.id.to_string(),
            "associateUeAppId": self.wish.device_application,
            "callbackReference": self.wish.callback.as_deref().unwrap_or_default(),
            "appInfo": application,
        })
    }

    /// `host:port`, as devices of 1.1.1 take it.
    pub(crate) fn bare_reference(&self) -> &str {
        self.told.first().and_then(Option::as_ref).map_or("", |told| told.server.as_str())
    }

    /// `userAppInstanceInfo`; with those that have no address yet, if `all`.
    pub(crate) fn instances(&self, all: bool) -> Value {
        let instances = self.told.iter().enumerate().filter(|(_, told)| all || told.is_some()).map(|(at, told)| {
            let mut instance = json!({});
            if let Some(told) = told {
                instance["appInstanceId"] = json!(self.instance_id(at, told));
                instance["referenceURI"] = json!(told.uri);
            }
            if let Some(location) = self.wish.locations.get(at).and_then(Option::as_ref) {
                instance["appLocation"] = json!(location);
            }
            instance
        });
        instances.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_as_long_as_the_standard_allows_and_read_only_as_written() {
        let id = ContextId::random();
        assert_eq!((id.to_string().len(), id.to_string().parse()), (32, Ok(id)));
        let upper = "A".repeat(32);
        for odd in ["", "x", &"a".repeat(31), &"a".repeat(33), &upper, &"+".repeat(32), &"é".repeat(16)] {
            assert!(odd.parse::<ContextId>().is_err(), "{odd:?}");
        }
    }
}
