//! The older system's JSON: a chain is `functions`, a DAG `successors` and `functionNames`; both may have `dependencies`
//! (by state, the functions that need it) and `state-sizes`.

use std::collections::BTreeMap;

use nigh_proto::FunctionName;
use nigh_proto::flow::{Step, step_names};
use serde::Deserialize;

use crate::definition::{DefinitionError, State, named};

/// What an older definition says.
pub(crate) struct Parsed {
    pub(crate) steps: Vec<Step>,
    pub(crate) states: BTreeMap<String, State>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chain {
    functions: Vec<String>,
    dependencies: Dependencies,
    #[serde(rename = "state-sizes", default)]
    state_sizes: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dag {
    successors: Vec<Vec<u64>>,
    #[serde(rename = "functionNames")]
    function_names: Vec<String>,
    dependencies: Dependencies,
    #[serde(rename = "state-sizes", default)]
    state_sizes: BTreeMap<String, u64>,
}

type Dependencies = BTreeMap<String, Option<Vec<String>>>;

/// Reads an older definition; nothing where the text is JSON of another form.
pub(crate) fn parse(text: &str) -> Result<Option<Parsed>, DefinitionError> {
    let shape: serde_json::Value = serde_json::from_str(text)?;
    if shape.get("functions").is_some() {
        // From the text, not from the value: so errors tell line and column.
        let chain: Chain = serde_json::from_str(text)?;
        let functions = names(&chain.functions, "functions")?;
        let after = |at: usize| at.checked_sub(1).into_iter().collect();
        let steps = stepped(functions, after);
        return Ok(Some(Parsed { steps, states: states(chain.dependencies, chain.state_sizes)? }));
    }
    if shape.get("functionNames").is_none() && shape.get("successors").is_none() {
        return Ok(None);
    }
    let dag: Dag = serde_json::from_str(text)?;
    let functions = names(&dag.function_names, "functionNames")?;
    let after = predecessors(&dag.successors, functions.len())?;
    let steps = stepped(functions, |at| after[at].clone());
    Ok(Some(Parsed { steps, states: states(dag.dependencies, dag.state_sizes)? }))
}

fn names(given: &[String], place: &str) -> Result<Vec<FunctionName>, DefinitionError> {
    given.iter().enumerate().map(|(at, name)| named(&format!("{place}, name {}", at + 1), name)).collect()
}

fn stepped(functions: Vec<FunctionName>, after: impl Fn(usize) -> Vec<usize>) -> Vec<Step> {
    let names = step_names(&functions);
    let step = |(at, (function, name))| Step { name, function, after: after(at) };
    functions.into_iter().zip(names).enumerate().map(step).collect()
}

fn predecessors(successors: &[Vec<u64>], names: usize) -> Result<Vec<Vec<usize>>, DefinitionError> {
    if names != successors.len() + 1 {
        return Err(DefinitionError::NamesAndSuccessors { names, lists: successors.len() });
    }
    let mut after = vec![Vec::new(); names];
    for (step, successors) in successors.iter().enumerate() {
        for &successor in successors {
            let in_range = usize::try_from(successor).ok().filter(|&at| (1..names).contains(&at));
            let at = in_range.ok_or(DefinitionError::Successor { step, successor, last: names - 1 })?;
            after[at].push(step);
        }
    }
    Ok(after)
}

fn states(
    dependencies: Dependencies,
    sizes: BTreeMap<String, u64>,
) -> Result<BTreeMap<String, State>, DefinitionError> {
    if let Some(size) = sizes.keys().find(|name| !dependencies.contains_key(*name)) {
        return Err(DefinitionError::SizeOfNothing(size.clone()));
    }
    let state = |(name, functions): (String, Option<Vec<String>>)| {
        let functions = names(&functions.unwrap_or_default(), &format!("dependencies of {name}"))?;
        let bytes = sizes.get(&name).copied();
        Ok((name, State { functions, bytes }))
    };
    dependencies.into_iter().map(state).collect()
}
