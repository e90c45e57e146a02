//! What is added to a component so that its instances can be made as new in place. The host reaches nothing of a
//! component's core instances, so they see to it themselves, told by one more export:
//!
//! * each core module that has mutable globals gets a function that keeps what they hold when it is first called, just
//!   after the instance was made, and gives it back to them each time after that;
//! * one more core module (`renewal`) calls these, and puts the instance's table of handles in the order that a new one
//!   has: a guest can tell from the numbers of its handles in which order those before were given back;
//! * that module shows the memory to the host, which puts back the pages that were written to.
//!
//! A component is left as it is where that is not all of its state: where it changes tables, drops segments, has several
//! memories, resources of its own, components within it that run code, or anything asynchronous.

mod globals;
mod renewal;

use std::borrow::Cow;

use nigh_proto::module::{CORE_INSTANCES_MAX, component_features};
use wasmparser::{
    BinaryReaderError, CanonicalFunction, CanonicalOption, ComponentAlias, ComponentExternalKind,
    ComponentOuterAliasKind, ComponentTypeRef, Instance, Parser, Payload, ValidPayload, Validator,
};

use super::State;
use crate::sections::taken_over;
use globals::with_state_exported;
use renewal::Plan;

/// The interface that the host offers to what is added.
pub(crate) const RENEWAL: &str = "nigh:state/renewal";
/// Its function that is shown the memory.
pub(crate) const SHOW: &str = "show";
/// What is exported: called once when the instance is made, and then to make it as new.
pub(crate) const RENEW: &str = "nigh-state-renew";
/// Components' own exports may not begin like that.
const EXPORT_PREFIX: &str = "nigh-state-";

/// Why a component cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExposeError {
    /// It is not valid.
    #[error(transparent)]
    Invalid(#[from] BinaryReaderError),
    /// It exports what the platform adds.
    #[error(
        "the component exports {0}; names that begin with {EXPORT_PREFIX} are the platform's: build it with another"
    )]
    ReservedName(String),
}

/// The component as it is to be compiled.
///
/// # Errors
/// Where it is not valid, or has names of our own.
pub(crate) fn expose(component: &[u8]) -> Result<Cow<'_, [u8]>, ExposeError> {
    let survey = Survey::of(component)?;
    let Some(plan) = survey.plan() else { return Ok(Cow::Borrowed(component)) };
    let mut states = survey.modules.iter();
    let mut exposed = taken_over(component, |payload, data| match payload {
        Payload::ModuleSection { .. } => {
            states.next().map_or(Ok(Cow::Borrowed(data)), |state| with_state_exported(data, state))
        }
        _ => Ok(Cow::Borrowed(data)),
    })?;
    plan.append_to(&mut exposed);
    Ok(Cow::Owned(exposed.finish()))
}

/// What a component consists of, as far as it matters here.
#[derive(Debug, Default)]
struct Survey {
    modules: Vec<State>,
    /// For each core instance, the module that it is of; nothing for a bundle of others' exports.
    instances: Vec<Option<usize>>,
    /// Instances may have state beyond memories and globals, or be made of modules not seen here.
    has_more: bool,
    counts: Counts,
}

/// How many of each there are, and so the indices of those that are added.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    types: u32,
    functions: u32,
    instances: u32,
    core_functions: u32,
    core_memories: u32,
    core_modules: u32,
    core_instances: u32,
}

impl Survey {
    fn of(component: &[u8]) -> Result<Self, ExposeError> {
        let (mut survey, mut depth) = (Self::default(), 0u32);
        let mut validator = Validator::new_with_features(component_features());
        for payload in Parser::new(0).parse_all(component) {
            let payload = payload?;
            if let ValidPayload::End(types) = validator.payload(&payload)? {
                let types = types.as_ref();
                // The outermost ends last.
                survey.counts = Counts {
                    types: types.component_type_count(),
                    functions: types.component_function_count(),
                    instances: types.component_instance_count(),
                    core_functions: types.function_count(),
                    core_memories: types.memory_count(),
                    core_modules: types.module_count(),
                    core_instances: types.core_instance_count(),
                };
            }
            match &payload {
                Payload::Version { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                _ if depth == 1 => survey.take(&payload, component)?,
                Payload::ModuleSection { .. } | Payload::InstanceSection(_) | Payload::ComponentCanonicalSection(_) => {
                    survey.has_more = true;
                }
                _ => {}
            }
        }
        Ok(survey)
    }

    /// A section of the outermost component.
    fn take(&mut self, payload: &Payload<'_>, component: &[u8]) -> Result<(), ExposeError> {
        match payload {
            Payload::ModuleSection { unchecked_range, .. } => {
                self.modules.push(State::of(&component[unchecked_range.clone()])?);
            }
            Payload::InstanceSection(section) => {
                for instance in section.clone() {
                    self.instances.push(match instance? {
                        Instance::Instantiate { module_index, .. } => Some(module_index as usize),
                        Instance::FromExports(_) => None,
                    });
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section.clone() {
                    self.has_more |= matches!(import?.ty, ComponentTypeRef::Module(_));
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section.clone() {
                    self.has_more |= matches!(
                        alias?,
                        ComponentAlias::InstanceExport { kind: ComponentExternalKind::Module, .. }
                            | ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, .. }
                    );
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section.clone() {
                    self.has_more |= !is_of_handles(&function?);
                }
            }
            Payload::ComponentStartSection { .. } => self.has_more = true,
            Payload::ComponentExportSection(section) => {
                for export in section.clone() {
                    let name = export?.name.name;
                    if name.starts_with(EXPORT_PREFIX) {
                        return Err(ExposeError::ReservedName(name.to_owned()));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What to add, if instances can be made as new in place.
    fn plan(&self) -> Option<Plan> {
        let made = || (0..).zip(&self.instances).filter_map(|(instance, module)| Some((instance, (*module)?)));
        if self.has_more || made().count() >= CORE_INSTANCES_MAX as usize {
            return None;
        }
        let (mut memory, mut stateful) = (None, Vec::new());
        for (instance, module) in made() {
            let state = self.modules.get(module)?;
            if !state.can_be_exposed() {
                return None;
            }
            match (state.memories, memory) {
                (0, _) => {}
                (1, None) => memory = Some(instance),
                _ => return None,
            }
            if !state.mutable.is_empty() {
                stateful.push(instance);
            }
        }
        Some(Plan { counts: self.counts, memory: memory?, stateful })
    }
}

/// Whether a function between a component and its core modules brings no state but that of handles to its host's resources.
fn is_of_handles(function: &CanonicalFunction) -> bool {
    let is_synchronous = |options: &[CanonicalOption]| {
        !options.iter().any(|option| matches!(option, CanonicalOption::Async | CanonicalOption::Callback(_)))
    };
    match function {
        CanonicalFunction::Lift { options, .. } | CanonicalFunction::Lower { options, .. } => is_synchronous(options),
        CanonicalFunction::ResourceDrop { .. } => true,
        _ => false,
    }
}
