//! Keys of configuration files: how a value is read, and how it fills the field of a role's configuration that has the
//! same name.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::str::FromStr;
use std::time::Duration;

use nigh_proto::module::ModuleLimits;
use nigh_proto::{CallLimits, ServerLimits};
use serde::{Deserialize, Deserializer};

use crate::units::{Size, Time};

/// A value of a file that fills a field of a role's configuration.
pub(super) trait Fill<Field> {
    fn fill(self, field: &mut Field);
}

impl Fill<u64> for Size {
    fn fill(self, field: &mut u64) {
        *field = self.bytes();
    }
}

impl Fill<usize> for Size {
    fn fill(self, field: &mut usize) {
        // A limit over all that can be addressed limits nothing.
        *field = usize::try_from(self.bytes()).unwrap_or(usize::MAX);
    }
}

impl Fill<Duration> for Time {
    fn fill(self, field: &mut Duration) {
        *field = self.duration();
    }
}

impl Fill<u32> for NonZeroU32 {
    fn fill(self, field: &mut u32) {
        *field = self.get();
    }
}

impl Fill<u64> for NonZeroU32 {
    fn fill(self, field: &mut u64) {
        *field = self.get().into();
    }
}

impl Fill<usize> for NonZeroUsize {
    fn fill(self, field: &mut usize) {
        *field = self.get();
    }
}

impl Fill<Self> for Vec<String> {
    fn fill(self, field: &mut Self) {
        *field = self;
    }
}

/// A value that is written as text, such as a name or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text<T>(pub(super) T);

impl<T> Fill<T> for Text<T> {
    fn fill(self, field: &mut T) {
        *field = self.0;
    }
}

impl<T> Fill<Option<T>> for Text<T> {
    fn fill(self, field: &mut Option<T>) {
        *field = Some(self.0);
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// A share of a whole, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share(f64);

impl Fill<f64> for Share {
    fn fill(self, field: &mut f64) {
        *field = self.0;
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let share = f64::deserialize(deserializer)?;
        let fits = (0.0..=1.0).contains(&share);
        if fits { Ok(Self(share)) } else { Err(serde::de::Error::custom("give a share from 0 to 1")) }
    }
}

/// Something that `"none"` leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OrNone<T>(pub(super) Option<T>);

impl<T: FromStr> FromStr for OrNone<T> {
    type Err = T::Err;

    fn from_str(given: &str) -> Result<Self, T::Err> {
        if given == "none" { Ok(Self(None)) } else { given.parse().map(|value| Self(Some(value))) }
    }
}

/// Declares a table of a file. `own` keys are read by hand; each `config` key fills the field of its name.
macro_rules! keys {
    (
        $(#[$doc:meta])*
        $file:ident for $config:ty {
            own { $($own:ident: $own_form:ty,)* }
            config { $($key:ident: $form:ty,)* }
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $file {
            $(pub(super) $own: Option<$own_form>,)*
            $($key: Option<$form>,)*
        }

        impl $crate::config::keys::Fill<$config> for $file {
            fn fill(self, config: &mut $config) {
                $(if let Some(value) = self.$key {
                    $crate::config::keys::Fill::fill(value, &mut config.$key);
                })*
            }
        }
    };
}
pub(super) use keys;

keys! {
    /// `[limits]`: what a role accepts of one call.
    CallLimitKeys for CallLimits {
        own {}
        config {
            payload_bytes_max: Size,
            timeout_default: Time,
            timeout_max: Time,
            hops_max: NonZeroU32,
        }
    }
}

keys! {
    /// `[server]`: what a role accepts of those who connect.
    ServerLimitKeys for ServerLimits {
        own {}
        config {
            connections_max: NonZeroUsize,
            requests_per_connection_max: NonZeroU32,
            idle_max: Time,
            stall_max: Time,
            intake_bytes_max: Size,
            intake_timeout: Time,
        }
    }
}

keys! {
    /// `[module_limits]`: what a role accepts of one module.
    ModuleLimitKeys for ModuleLimits {
        own {}
        config {
            bytes_max: Size,
            functions_max: NonZeroU32,
            function_bytes_max: Size,
            exports_max: NonZeroU32,
            table_elements_max: NonZeroU32,
        }
    }
}
