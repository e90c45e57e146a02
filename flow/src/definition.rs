//! A flow as people write it: TOML or JSON, or the older system's JSON of chains and DAGs.

use std::collections::BTreeMap;
use std::path::Path;

use nigh_proto::flow::{FlowError, Step, step_names};
use nigh_proto::name::NameError;
use nigh_proto::{Flow, FunctionName, NodeName};
use serde::Deserialize;

use crate::older;

/// Bytes of a definition, at most.
const DEFINITION_BYTES_MAX: usize = 1 << 20;

/// Application state that functions of a flow work on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The functions that need it; with none it stays where it is.
    pub functions: Vec<FunctionName>,
    /// Its size, where the definition tells.
    pub bytes: Option<u64>,
}

/// A flow with its name and the states that its functions need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// What the flow is called.
    pub name: FunctionName,
    /// Its steps.
    pub flow: Flow,
    /// The states, by name.
    pub states: BTreeMap<String, State>,
}

/// Why a definition is not acceptable.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// It cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// It is no definition at all.
    #[error("a definition of {found} bytes; at most {DEFINITION_BYTES_MAX} are taken")]
    TooLarge {
        /// Its size.
        found: usize,
    },
    /// Not TOML, or not of this form; the message names the place.
    #[error("not a flow in TOML: {0}")]
    Toml(#[from] toml::de::Error),
    /// Not JSON, or not of this form; the message names the place.
    #[error("not a flow in JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Neither steps nor a chain, or both.
    #[error("give either `steps` or `chain`")]
    StepsOrChain,
    /// A step without a function and without a name that could be one.
    #[error("step {number}: give it a `function`, a `name` that is one, or both")]
    Nameless {
        /// Which, counted from 1.
        number: usize,
    },
    /// A name that is none.
    #[error("{place}: {error}")]
    Name {
        /// Where it stands.
        place: String,
        /// What is wrong with it.
        error: NameError,
    },
    /// The steps make no flow.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// A state names a function that no step runs.
    #[error("state {state}: needed by {function}, which no step runs; the flow's functions are {known}")]
    StateOfNobody {
        /// The state.
        state: String,
        /// The function.
        function: String,
        /// The functions that there are.
        known: String,
    },
    /// A size is given for a state that there is not.
    #[error("state-sizes: {0} is no state of `dependencies`")]
    SizeOfNothing(String),
    /// A DAG of the older form has as many lists of successors as it should not have.
    #[error("functionNames has {names} names and successors {lists} lists; there is one name more than lists")]
    NamesAndSuccessors {
        /// Names.
        names: usize,
        /// Lists.
        lists: usize,
    },
    /// A DAG of the older form goes on to a step that cannot follow.
    #[error("successors of {step}: {successor} is out of range; use 1 to {last}")]
    Successor {
        /// Whose.
        step: usize,
        /// What follows.
        successor: u64,
        /// The last that can.
        last: usize,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    #[serde(default)]
    chain: Vec<String>,
    #[serde(default)]
    steps: Vec<WrittenStep>,
    #[serde(default)]
    states: BTreeMap<String, WrittenState>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStep {
    name: Option<String>,
    function: Option<String>,
    after: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenState {
    #[serde(default)]
    functions: Vec<String>,
    bytes: Option<u64>,
}

impl Definition {
    /// Reads a file: `.json` is JSON, in our form or the older system's, anything else TOML.
    ///
    /// # Errors
    /// [`DefinitionError`].
    pub fn read(path: &Path) -> Result<Self, DefinitionError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| DefinitionError::Read { path: path.display().to_string(), error })?;
        let is_json = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
        let mut definition = if is_json { Self::from_json(&text)? } else { Self::from_toml(&text)? };
        // The name of the file is better than none.
        if definition.name.as_str() == UNNAMED
            && let Some(name) = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok())
        {
            definition.name = name;
        }
        Ok(definition)
    }

    /// Reads TOML.
    ///
    /// # Errors
    /// [`DefinitionError`].
    pub fn from_toml(text: &str) -> Result<Self, DefinitionError> {
        check_size(text)?;
        Self::checked(toml::from_str(text)?)
    }

    /// Reads JSON: our form, or the older system's of a chain (`functions`) or a DAG (`successors` and `functionNames`).
    ///
    /// # Errors
    /// [`DefinitionError`].
    pub fn from_json(text: &str) -> Result<Self, DefinitionError> {
        check_size(text)?;
        match older::parse(text)? {
            Some(older) => Self::from_older(older),
            None => Self::checked(serde_json::from_str(text)?),
        }
    }

    fn from_older(older: older::Parsed) -> Result<Self, DefinitionError> {
        let definition = Self { name: unnamed(), flow: Flow::new(older.steps)?, states: older.states };
        definition.check_states()?;
        Ok(definition)
    }

    fn checked(written: Written) -> Result<Self, DefinitionError> {
        let name = match &written.name {
            None => unnamed(),
            Some(name) => named("name", name)?,
        };
        let flow = match (written.chain.is_empty(), written.steps.is_empty()) {
            (false, true) => {
                let function = |(at, name): (usize, &String)| named(&format!("chain, function {}", at + 1), name);
                Flow::chain(written.chain.iter().enumerate().map(function).collect::<Result<Vec<_>, _>>()?)?
            }
            (true, false) => Flow::new(steps(&written.steps)?)?,
            (true, true) if written.name.is_some() => return Err(FlowError::Empty.into()),
            (true, true) | (false, false) => return Err(DefinitionError::StepsOrChain),
        };
        let state = |(name, state): (String, WrittenState)| {
            let place = format!("state {name}");
            let functions = state.functions.iter().map(|function| named(&place, function)).collect::<Result<_, _>>()?;
            Ok::<_, DefinitionError>((name, State { functions, bytes: state.bytes }))
        };
        let states = written.states.into_iter().map(state).collect::<Result<_, _>>()?;
        let definition = Self { name, flow, states };
        definition.check_states()?;
        Ok(definition)
    }

    /// The functions that its steps run, each once.
    pub fn functions(&self) -> Vec<&FunctionName> {
        let mut functions: Vec<_> = self.flow.steps().iter().map(|step| &step.function).collect();
        functions.sort_unstable();
        functions.dedup();
        functions
    }

    /// The states that a function needs.
    pub fn states_of(&self, function: &FunctionName) -> Vec<&str> {
        let needs = |(_, state): &(&String, &State)| state.functions.contains(function);
        self.states.iter().filter(needs).map(|(name, _)| name.as_str()).collect()
    }

    fn check_states(&self) -> Result<(), DefinitionError> {
        let functions = self.functions();
        for (state, needed) in &self.states {
            if let Some(function) = needed.functions.iter().find(|function| !functions.contains(function)) {
                let known = functions.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
                return Err(DefinitionError::StateOfNobody {
                    state: state.clone(),
                    function: function.to_string(),
                    known,
                });
            }
        }
        Ok(())
    }
}

const UNNAMED: &str = "flow";

fn unnamed() -> FunctionName {
    UNNAMED.parse().expect("it has the form of a name")
}

fn check_size(text: &str) -> Result<(), DefinitionError> {
    if text.len() > DEFINITION_BYTES_MAX { Err(DefinitionError::TooLarge { found: text.len() }) } else { Ok(()) }
}

pub(crate) fn named<N: std::str::FromStr<Err = NameError>>(place: &str, name: &str) -> Result<N, DefinitionError> {
    name.parse().map_err(|error| DefinitionError::Name { place: place.to_owned(), error })
}

/// Steps with their names filled in and what they come after found. A step that does not say what it comes after comes after
/// the one above it.
fn steps(written: &[WrittenStep]) -> Result<Vec<Step>, DefinitionError> {
    let functions: Vec<FunctionName> = written
        .iter()
        .enumerate()
        .map(|(at, step)| {
            let function = step.function.as_ref().or(step.name.as_ref());
            let function = function.ok_or(DefinitionError::Nameless { number: at + 1 })?;
            named(&format!("step {}", at + 1), function)
        })
        .collect::<Result<_, _>>()?;
    let given_none = step_names(&functions);
    let name = |(at, step): (usize, &WrittenStep)| match &step.name {
        Some(name) => named(&format!("step {}", at + 1), name),
        None => Ok(given_none[at].clone()),
    };
    let names: Vec<NodeName> = written.iter().enumerate().map(name).collect::<Result<_, _>>()?;
    let find = |step: &NodeName, after: &String| {
        names.iter().position(|name| name.as_str() == after).ok_or_else(|| FlowError::UnknownStep {
            step: step.to_string(),
            after: after.clone(),
            known: names.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", "),
        })
    };
    let mut steps = Vec::with_capacity(written.len());
    for ((at, step), function) in written.iter().enumerate().zip(functions) {
        let after = match &step.after {
            Some(after) => after.iter().map(|after| find(&names[at], after)).collect::<Result<_, _>>()?,
            None => at.checked_sub(1).into_iter().collect(),
        };
        steps.push(Step { name: names[at].clone(), function, after });
    }
    Ok(steps)
}
