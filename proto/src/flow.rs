//! A flow: functions that run one after the other or side by side, each with what those before it answered.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::name::{FunctionName, NodeName};
use crate::status::PlatformError;
use crate::v1;

/// Steps of a flow, at most.
pub const FLOW_STEPS_MAX: usize = 64;
/// Steps that one step may come after, at most: its request has a header for each.
pub(crate) const FLOW_JOIN_MAX: usize = 32;

/// One step: a function, and which steps it comes after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its name, unique in its flow.
    pub name: NodeName,
    /// What it runs.
    pub function: FunctionName,
    /// The steps whose answers it is given, in this order; none where it is given the flow's own input.
    pub after: Vec<usize>,
}

/// What is wrong with a flow, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// There is nothing to run.
    #[error("the flow has no steps; give at least one")]
    Empty,
    /// Over a limit.
    #[error("{place}: {found} {what}; at most {limit} are taken")]
    TooMany {
        /// The flow or one of its steps.
        place: String,
        /// What there are too many of.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Two steps have the same name.
    #[error("two steps are called {0}; give each a name of its own")]
    SameName(NodeName),
    /// A step comes after one that there is not.
    #[error("step {step}: comes after {after}, which is no step of the flow; its steps are {known}")]
    UnknownStep {
        /// The step.
        step: String,
        /// What it should come after.
        after: String,
        /// The steps that there are.
        known: String,
    },
    /// A step comes after the same step twice.
    #[error("step {step}: comes after {after} twice; name it once")]
    Twice {
        /// The step.
        step: NodeName,
        /// What it comes after twice.
        after: NodeName,
    },
    /// Steps wait for each other.
    #[error("steps wait for each other in a circle: {}", way(.0))]
    Circle(Vec<NodeName>),
}

fn way(steps: &[NodeName]) -> String {
    steps.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" → ")
}

impl From<FlowError> for PlatformError {
    fn from(error: FlowError) -> Self {
        Self::malformed(error)
    }
}

/// A checked flow: its steps have names of their own, and none waits for itself. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Flow {
    steps: Arc<[Step]>,
    /// Of each step, those that come after it.
    successors: Arc<[Vec<usize>]>,
    /// Every step after all that it comes after.
    order: Arc<[usize]>,
}

impl Flow {
    /// Checks steps.
    ///
    /// # Errors
    /// [`FlowError`], which names the place.
    pub fn new(steps: Vec<Step>) -> Result<Self, FlowError> {
        if steps.is_empty() {
            return Err(FlowError::Empty);
        }
        let limited = |place: &str, what, found, limit| {
            let too_many = || FlowError::TooMany { place: place.to_owned(), what, found, limit };
            if found > limit { Err(too_many()) } else { Ok(()) }
        };
        limited("the flow", "steps", steps.len(), FLOW_STEPS_MAX)?;
        let mut names = BTreeSet::new();
        for step in &steps {
            if !names.insert(&step.name) {
                return Err(FlowError::SameName(step.name.clone()));
            }
            let place = format!("step {}", step.name);
            limited(&place, "steps that it comes after", step.after.len(), FLOW_JOIN_MAX)?;
            check_after(step, &steps)?;
        }
        let order = in_order(&steps)?;
        let mut successors = vec![Vec::new(); steps.len()];
        for (at, step) in steps.iter().enumerate() {
            step.after.iter().for_each(|&before| successors[before].push(at));
        }
        Ok(Self { steps: steps.into(), successors: successors.into(), order: order.into() })
    }

    /// A flow whose functions run one after the other. A function that stands there twice gives steps with numbers.
    ///
    /// # Errors
    /// As [`Flow::new`].
    pub fn chain(functions: impl IntoIterator<Item = FunctionName>) -> Result<Self, FlowError> {
        let functions: Vec<_> = functions.into_iter().collect();
        let names = step_names(&functions);
        let step = |(at, (function, name)): (usize, (FunctionName, NodeName))| Step {
            name,
            function,
            after: at.checked_sub(1).into_iter().collect(),
        };
        Self::new(functions.into_iter().zip(names).enumerate().map(step).collect())
    }

    /// Its steps, as they were given.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The steps that come after this one; none where it is one of the last.
    ///
    /// # Panics
    /// Where there is no such step.
    pub fn successors(&self, step: usize) -> &[usize] {
        &self.successors[step]
    }

    /// Every step, each after all that it comes after.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The steps whose answers are the flow's.
    pub fn last(&self) -> impl Iterator<Item = usize> {
        (0..self.steps.len()).filter(|&step| self.successors[step].is_empty())
    }

    /// The steps that follow this one and nothing else, as long as each has but one to go on to: they can run where it
    /// runs.
    ///
    /// # Panics
    /// Where there is no such step.
    pub fn straight_on(&self, step: usize) -> Vec<usize> {
        let next = |&at: &usize| match self.successors[at][..] {
            [only] if self.steps[only].after.len() == 1 => Some(only),
            _ => None,
        };
        std::iter::successors(next(&step), next).collect()
    }

    /// The names of the steps on a way from the beginning to this one.
    ///
    /// # Panics
    /// Where there is no such step.
    pub fn way_to(&self, step: usize) -> String {
        let mut names: Vec<_> = std::iter::successors(Some(step), |&at| self.steps[at].after.first().copied())
            .map(|at| self.steps[at].name.clone())
            .collect();
        names.reverse();
        way(&names)
    }

    /// The flow as its message.
    pub fn to_wire(&self) -> v1::Flow {
        let index = |&at: &usize| u32::try_from(at).expect("a flow has few steps");
        let step = |step: &Step| v1::FlowStep {
            name: step.name.to_string(),
            function: step.function.to_string(),
            after: step.after.iter().map(index).collect(),
        };
        v1::Flow { steps: self.steps.iter().map(step).collect() }
    }

    /// Checks a flow as it arrives.
    ///
    /// # Errors
    /// [`Reason::Malformed`](crate::Reason::Malformed), naming the place.
    pub fn from_wire(flow: &v1::Flow) -> Result<Self, PlatformError> {
        let found = flow.steps.len();
        if found > FLOW_STEPS_MAX {
            let place = "the flow".to_owned();
            return Err(FlowError::TooMany { place, what: "steps", found, limit: FLOW_STEPS_MAX }.into());
        }
        let step = |step: &v1::FlowStep| {
            let after = step.after.iter().map(|&at| usize::try_from(at).unwrap_or(usize::MAX)).collect();
            Ok::<_, PlatformError>(Step { name: step.name.parse()?, function: step.function.parse()?, after })
        };
        Ok(Self::new(flow.steps.iter().map(step).collect::<Result<_, _>>()?)?)
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.steps.iter()).finish()
    }
}

/// A name for each step that runs these functions: the function's own, and from the second on with a number.
pub fn step_names(functions: &[FunctionName]) -> Vec<NodeName> {
    let mut taken: BTreeSet<String> = functions.iter().map(ToString::to_string).collect();
    let mut seen = BTreeSet::new();
    let mut name_of = |function: &FunctionName| {
        if seen.insert(function.clone()) {
            return function.to_string();
        }
        let numbered = |number: usize| {
            let ending = format!("-{number}");
            let stem = &function.as_str()[..function.as_str().len().min(crate::name::NAME_BYTES_MAX - ending.len())];
            format!("{stem}{ending}")
        };
        let name = (2..).map(numbered).find(|name| !taken.contains(name)).expect("numbers do not end");
        taken.insert(name.clone());
        name
    };
    let parsed = |name: String| name.parse().expect("a function's name, numbered, has the form of a node's");
    functions.iter().map(|function| parsed(name_of(function))).collect()
}

fn check_after(step: &Step, steps: &[Step]) -> Result<(), FlowError> {
    let mut seen = BTreeSet::new();
    for &before in &step.after {
        let Some(named) = steps.get(before) else {
            let known = steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>().join(", ");
            let after = format!("number {before}");
            return Err(FlowError::UnknownStep { step: step.name.to_string(), after, known });
        };
        if !seen.insert(before) {
            return Err(FlowError::Twice { step: step.name.clone(), after: named.name.clone() });
        }
    }
    Ok(())
}

/// Kahn's order: always the first step of those that wait for nothing any more.
fn in_order(steps: &[Step]) -> Result<Vec<usize>, FlowError> {
    let mut order = Vec::with_capacity(steps.len());
    let mut is_done = vec![false; steps.len()];
    while order.len() < steps.len() {
        let is_free = |at: &usize| !is_done[*at] && steps[*at].after.iter().all(|&before| is_done[before]);
        match (0..steps.len()).find(is_free) {
            Some(at) => {
                is_done[at] = true;
                order.push(at);
            }
            None => return Err(FlowError::Circle(circle(steps, &is_done))),
        }
    }
    Ok(order)
}

/// A circle among steps of which each waits for another of them.
fn circle(steps: &[Step], is_done: &[bool]) -> Vec<NodeName> {
    let waited_for = |at: usize| steps[at].after.iter().copied().find(|&before| !is_done[before]);
    let mut walked: Vec<usize> = Vec::new();
    let mut at = is_done.iter().position(|done| !done);
    while let Some(here) = at {
        if let Some(start) = walked.iter().position(|&step| step == here) {
            let mut circle: Vec<usize> = walked.split_off(start);
            circle.reverse();
            // Told from the step that was written first.
            let first = (0..circle.len()).min_by_key(|&at| circle[at]).unwrap_or_default();
            circle.rotate_left(first);
            circle.push(circle[0]);
            return circle.into_iter().map(|step| steps[step].name.clone()).collect();
        }
        walked.push(here);
        at = waited_for(here);
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step(name: &str, after: &[usize]) -> Step {
        Step { name: name.parse().unwrap(), function: "echo".parse().unwrap(), after: after.to_vec() }
    }

    fn diamond() -> Flow {
        Flow::new(vec![step("a", &[]), step("b", &[0]), step("c", &[0]), step("d", &[1, 2])]).unwrap()
    }

    #[test]
    fn a_diamond_goes_on_where_it_parts_and_joins() {
        let flow = diamond();
        assert_eq!(flow.successors(0), [1, 2]);
        assert_eq!(flow.last().collect::<Vec<_>>(), [3]);
        assert_eq!(flow.way_to(3), "a → b → d");
        assert!(flow.straight_on(0).is_empty() && flow.straight_on(1).is_empty());
        let chain = Flow::chain(["f1", "f2", "f1"].map(|name| name.parse().unwrap())).unwrap();
        assert_eq!(chain.straight_on(0), [1, 2]);
        let names: Vec<_> = chain.steps().iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["f1", "f2", "f1-2"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let told = |steps: Vec<Step>| Flow::new(steps).unwrap_err().to_string();
        assert!(told(Vec::new()).contains("no steps"));
        assert!(told(vec![step("a", &[]), step("a", &[])]).contains("two steps are called a"));
        assert!(told(vec![step("a", &[]), step("b", &[7])]).contains("step b: comes after number 7"));
        assert!(told(vec![step("a", &[]), step("b", &[0, 0])]).contains("a twice"));
        assert!(told(vec![step("a", &[0])]).contains("a → a"));
        let circle = told(vec![step("a", &[]), step("b", &[0, 3]), step("c", &[1]), step("d", &[2])]);
        assert!(circle.contains("b → c → d → b"), "{circle}");
        let many = (0..=FLOW_STEPS_MAX).map(|at| step(&format!("s{at}"), &[])).collect();
        assert!(told(many).contains("65 steps; at most 64"));
    }

    #[test]
    fn numbered_names_stay_apart_from_given_ones() {
        let functions = ["f", "f-2", "f"].map(|name| name.parse().unwrap());
        let names: Vec<_> = step_names(&functions).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["f", "f-2", "f-3"]);
        let long = vec!["x".repeat(63).parse().unwrap(); 3];
        assert!(Flow::chain(long).is_ok());
    }

    proptest! {
        #[test]
        fn any_steps_are_judged_and_flows_survive_the_wire(
            after in proptest::collection::vec(proptest::collection::vec(0usize..8, 0..3), 0..8),
        ) {
            let steps = after.iter().enumerate().map(|(at, after)| step(&format!("s{at}"), after)).collect();
            if let Ok(flow) = Flow::new(steps) {
                prop_assert_eq!(&Flow::from_wire(&flow.to_wire()).unwrap(), &flow);
                let place = |step: usize| flow.order().iter().position(|&at| at == step).unwrap();
                for (at, step) in flow.steps().iter().enumerate() {
                    prop_assert!(step.after.iter().all(|&before| place(before) < place(at)));
                }
            }
        }
    }
}
