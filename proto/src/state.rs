//! States of applications: named pieces of data that functions read and write, beside the calls that they serve.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

use crate::name::{Endpoint, FunctionName, name};
use crate::status::{PlatformError, Reason};
use crate::v1;

/// States of one function, at most.
pub(crate) const STATES_MAX: usize = 16;
/// Bytes of a state's content, at most, whatever its function was deployed with: what a store takes as one value, with room
/// for what is kept beside the content.
pub const STATE_BYTES_MAX: usize = (512 << 10) - (1 << 10);
/// States that travel with one call, at most.
pub(crate) const CARRIED_MAX: usize = 64;
/// Bytes of a state's name, at most.
const NAME_BYTES_MAX: usize = 63;

name! {
    /// An application: what calls that share states have in common. The same form as a function's name. Cheap to clone.
    ApplicationName, "application"
}

impl ApplicationName {
    /// The application of calls that name none.
    pub const DEFAULT: &str = "default";
    /// The application of calls of the older system's clients, whose states never move by themselves.
    pub const OLDER: &str = "older";
}

/// The name of a state within its application: 1 to 63 of `A-Z a-z 0-9 - _ . :`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateName(Arc<str>);

impl StateName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StateName {
    type Err = PlatformError;

    fn from_str(given: &str) -> Result<Self, PlatformError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if (1..=NAME_BYTES_MAX).contains(&given.len()) && given.bytes().all(is_allowed) {
            return Ok(Self(given.into()));
        }
        let given: String = given.chars().take(NAME_BYTES_MAX + 1).collect();
        let message = format!("state name {given:?}: use 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 - _ . :");
        Err(PlatformError::malformed(message))
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which state of which application.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateId {
    /// The application.
    pub application: ApplicationName,
    /// The state.
    pub state: StateName,
}

impl StateId {
    /// Checks a message as it arrives.
    ///
    /// # Errors
    /// [`Reason::Malformed`].
    pub fn from_wire(wire: Option<v1::StateId>) -> Result<Self, PlatformError> {
        let v1::StateId { application, state } = wire.unwrap_or_default();
        Ok(Self { application: application_from_wire(&application)?, state: state.parse()? })
    }

    /// The id as its message.
    pub fn to_wire(&self) -> v1::StateId {
        v1::StateId { application: self.application.to_string(), state: self.state.to_string() }
    }
}

impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.application, self.state)
    }
}

/// A state that travels with a call: the caller has it, or knows where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedState {
    /// Its name.
    pub name: StateName,
    /// Where it is.
    pub place: StatePlace,
    /// Functions that depend on it.
    pub needed_by: Vec<FunctionName>,
}

/// Where a state is that travels with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatePlace {
    /// Here: this is its content.
    Content(Bytes),
    /// At this state server of the older system's protocol.
    At(Endpoint),
}

impl CarriedState {
    pub(crate) fn from_wire(wire: v1::CarriedState) -> Result<Self, PlatformError> {
        use v1::carried_state::Place;
        let place = match wire.place {
            Some(Place::Content(content)) => StatePlace::Content(content),
            Some(Place::Location(location)) => StatePlace::At(location.parse()?),
            None => StatePlace::Content(Bytes::new()),
        };
        let needed_by = wire.needed_by.iter().map(|function| function.parse()).collect::<Result<_, _>>()?;
        Ok(Self { name: wire.name.parse()?, place, needed_by })
    }

    pub(crate) fn to_wire(&self) -> v1::CarriedState {
        use v1::carried_state::Place;
        let place = match &self.place {
            StatePlace::Content(content) => Place::Content(content.clone()),
            StatePlace::At(location) => Place::Location(location.to_string()),
        };
        v1::CarriedState {
            name: self.name.to_string(),
            place: Some(place),
            needed_by: self.needed_by.iter().map(ToString::to_string).collect(),
        }
    }

    /// Whether a function depends on it.
    pub fn is_needed_by(&self, function: &FunctionName) -> bool {
        self.needed_by.contains(function)
    }
}

/// Puts what has become of states in the place of what was known of them.
pub fn update_carried(states: &mut [CarriedState], news: &[CarriedState]) {
    for new in news {
        if let Some(known) = states.iter_mut().find(|known| known.name == new.name) {
            known.place = new.place.clone();
        }
    }
}

pub(crate) fn carried_from_wire(wire: Vec<v1::CarriedState>) -> Result<Vec<CarriedState>, PlatformError> {
    if wire.len() > CARRIED_MAX {
        let message = format!("{} states travel with the call; at most {CARRIED_MAX} are taken", wire.len());
        return Err(PlatformError::new(Reason::TooLarge, message));
    }
    wire.into_iter().map(CarriedState::from_wire).collect()
}

/// The application that a message names, if any.
pub(crate) fn application_from_wire(name: &str) -> Result<ApplicationName, PlatformError> {
    Ok(if name.is_empty() { ApplicationName::DEFAULT.parse()? } else { name.parse()? })
}

/// The states that a function depends on.
pub(crate) fn states_from_wire(wire: &[String]) -> Result<Vec<StateName>, PlatformError> {
    if wire.len() > STATES_MAX {
        let message = format!("{} states; a function depends on at most {STATES_MAX}", wire.len());
        return Err(PlatformError::malformed(message));
    }
    wire.iter().map(|name| name.parse()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_states_have_their_form() {
        for name in ["s0", "sX", "cart:42", "a.b-c_d"] {
            assert_eq!(name.parse::<StateName>().unwrap().to_string(), name);
        }
        for odd in ["", "a/b", "two words", "\u{e4}", "x".repeat(64).as_str()] {
            assert!(odd.parse::<StateName>().is_err(), "{odd}");
        }
        assert!(ApplicationName::DEFAULT.parse::<ApplicationName>().is_ok());
        assert!(ApplicationName::OLDER.parse::<ApplicationName>().is_ok());
    }
}
