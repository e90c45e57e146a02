//! Sequences: actions that run one after the other, each with what the one before it has answered. Each has an activation of its
//! own, whose cause is the sequence's; the sequence's tells of them in place of a log, and ends as the last of them did.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use nigh_proto::{CallId, Deployment, FunctionName, Priority, Reason};

use super::failure::Failure;
use super::invoke::{Ended, Runner};
use super::kept::{Contents, Resolved};
use super::parameters;
use super::record::{Ending, Ran, Record};
use crate::backend::Backend;
use crate::namespace::{Entity, Namespace};

/// Actions that run in one sequence, those of sequences within it included, and as many such sequences.
const STEPS_MAX: usize = 50;
/// What is told where an action has gone that a sequence was made of.
const GONE: &str = "Sequence component does not exist.";
const TOO_MANY: &str = "Too many actions in the sequence.";

/// What of one sequence may still run.
#[derive(Debug)]
pub(super) struct Left {
    actions: usize,
    sequences: usize,
}

impl Default for Left {
    fn default() -> Self {
        Self { actions: STEPS_MAX, sequences: STEPS_MAX }
    }
}

impl Left {
    /// Takes one; none where there are none left.
    fn take(&mut self, is_sequence: bool) -> Option<()> {
        let left = if is_sequence { &mut self.sequences } else { &mut self.actions };
        *left = left.checked_sub(1)?;
        Some(())
    }
}

/// Why a sequence cannot go on.
struct Broken {
    ending: Ending,
    message: String,
    /// Where nothing has run and whoever waits should be told so.
    refusal: Option<nigh_proto::PlatformError>,
}

impl Broken {
    fn new(ending: Ending, message: impl Into<String>) -> Self {
        Self { ending, message: message.into(), refusal: None }
    }
}

impl<B: Backend> Runner<B> {
    /// Runs the actions of a sequence, as many as are left.
    pub(super) fn sequence<'a>(
        &'a self,
        components: &'a [String],
        ran: Ran,
        mut payload: Bytes,
        left: &'a mut Left,
    ) -> Pin<Box<dyn Future<Output = Ended> + Send + 'a>> {
        Box::pin(async move {
            let (mut ids, mut duration, mut last) = (Vec::new(), Duration::ZERO, None);
            for component in components {
                let step = self.step(component, &ran.id, payload, left).await;
                let record = match step {
                    Ok(record) => record,
                    Err(Broken { ending, message, refusal }) => {
                        let refusal = refusal.filter(|_| ids.is_empty());
                        return (Record::of_broken_sequence(ran, (ending, &message), ids, duration), refusal);
                    }
                };
                ids.push(record.id().clone());
                duration += record.duration();
                payload = record.result.clone();
                let goes_on = record.ending == Ending::Success;
                let record = std::sync::Arc::new(record);
                self.room.keep(record.clone());
                last = Some(record);
                if !goes_on {
                    break;
                }
            }
            match last {
                Some(last) => (Record::of_sequence(ran, &last, ids, duration), None),
                // None is put without actions.
                None => (Record::of_broken_sequence(ran, (Ending::InternalError, GONE), ids, duration), None),
            }
        })
    }

    /// Runs one action of a sequence.
    async fn step(&self, component: &str, cause: &CallId, payload: Bytes, left: &mut Left) -> Result<Record, Broken> {
        let gone = || Broken::new(Ending::ApplicationError, GONE);
        let entity = Entity::qualified(component, &self.owner).ok_or_else(gone)?;
        let resolved = self.contents.resolve(&self.owner, &entity).map_err(|_| gone())?;
        let payload = parameters::merged(&resolved, payload)
            .map_err(|failure| Broken::new(Ending::ApplicationError, failure.message))?;
        // Also where an action was made a sequence since this one was put.
        let too_many = || Broken::new(Ending::ApplicationError, TOO_MANY);
        left.take(resolved.components.is_some()).ok_or_else(too_many)?;
        let ran = self.ran(&resolved, Some(cause.clone()));
        let (record, refusal) = match &resolved.components {
            Some(components) => self.sequence(components, ran, payload, left).await,
            None => {
                let admitted = self.backend.admit(Priority::default());
                let place = admitted.map_err(refused)?;
                self.action(place, &resolved, ran, payload).await
            }
        };
        match refusal {
            Some(error) if error.reason == Reason::UnknownFunction => Err(gone()),
            Some(error) => Err(refused(error)),
            None => Ok(record),
        }
    }
}

fn refused(error: nigh_proto::PlatformError) -> Broken {
    Broken { ending: Ending::InternalError, message: error.message.clone(), refusal: Some(error) }
}

/// The actions of a sequence as it is put, in full.
///
/// # Errors
/// 400 where one is not named in full, they are too many, or the sequence would be part of itself; 404 where one is not there;
/// 403 where it is another's.
pub(super) fn checked_components(
    given: &[String],
    (own, name): (&Namespace, &FunctionName),
    contents: &Contents,
    deployed: &[Deployment],
) -> Result<Vec<String>, Failure> {
    if given.is_empty() {
        return Err(Failure::bad("exec.components: a sequence is made of one action at least"));
    }
    let mut components = Vec::new();
    for component in given {
        let entity = Entity::qualified(component, own).ok_or_else(|| {
            let component: String = component.chars().take(300).collect();
            Failure::bad(format!("exec.components: {component:?}: write it as /NAMESPACE/[PACKAGE/]ACTION"))
        })?;
        components.push(entity.as_qualified());
    }
    let mut left = Left::default();
    for component in &components {
        count_steps(component, (own, name), contents, deployed, &mut left)?;
    }
    Ok(components)
}

/// Counts the actions that one stands for.
fn count_steps(
    component: &str,
    (own, name): (&Namespace, &FunctionName),
    contents: &Contents,
    deployed: &[Deployment],
    left: &mut Left,
) -> Result<(), Failure> {
    let gone = || Failure::new(StatusCode::NOT_FOUND, format!("{GONE} ({component})"));
    let entity = Entity::qualified(component, own).ok_or_else(gone)?;
    let Resolved { function, components, .. } = contents.resolve(own, &entity)?;
    if function == *name {
        return Err(Failure::bad("Sequence may not refer to itself."));
    }
    left.take(components.is_some()).ok_or_else(|| Failure::bad(TOO_MANY))?;
    let Some(components) = components else {
        let is_there = deployed.iter().any(|deployment| deployment.name == function);
        return if is_there { Ok(()) } else { Err(gone()) };
    };
    components.iter().try_for_each(|inner| count_steps(inner, (own, name), contents, deployed, left))
}

#[cfg(test)]
mod tests {
    use nigh_proto::{Digest, Kind, Limits};

    use super::super::kept::Kept;
    use super::super::kept::tests::contents;
    use super::*;

    fn check(given: &[&str], sequences: &[(&str, &[&str])]) -> Result<Vec<String>, (u16, String)> {
        let deployment = |name: &str| {
            let name = name.parse().unwrap();
            Deployment::new(name, Digest::of(b"m"), 1, Kind::Native, Limits::default(), Vec::new())
        };
        let deployed = [deployment("a"), deployment("math.b"), deployment("acme..c")];
        let kept = |components: &[&str]| Kept {
            components: components.iter().map(ToString::to_string).collect(),
            ..Kept::default()
        };
        let sequences: Vec<_> = sequences.iter().map(|(name, components)| (*name, kept(components))).collect();
        let given: Vec<_> = given.iter().map(ToString::to_string).collect();
        let (own, name) = (Namespace::default(), "new".parse().unwrap());
        checked_components(&given, (&own, &name), &contents(&sequences, &[]), &deployed)
            .map_err(|failure| (failure.status.as_u16(), failure.message))
    }

    #[test]
    fn a_sequence_is_made_of_actions_that_there_are() {
        assert_eq!(check(&["/_/a", "/guest/math/b"], &[]).unwrap(), ["/guest/a", "/guest/math/b"]);
        for (wrong, status) in [
            (&[][..], 400),
            (&["a"][..], 400),
            (&["/_/none"][..], 404),
            (&["/acme/c"][..], 403),
            (&["/_/new"][..], 400),
        ] {
            assert_eq!(check(wrong, &[]).unwrap_err().0, status, "{wrong:?}");
        }
    }

    #[test]
    fn neither_a_circle_nor_more_than_so_many_are_taken() {
        let told = check(&["/_/a", "/_/other"], &[("other", &["/guest/a", "/guest/new"])]).unwrap_err();
        assert_eq!(told, (400, "Sequence may not refer to itself.".into()));
        let ten: &[&str] = &["/guest/a"; 10];
        let five: Vec<&str> = vec!["/_/ten"; 5];
        assert!(check(&five, &[("ten", ten)]).is_ok());
        let more = [&five[..], &["/_/a"]].concat();
        assert_eq!(check(&more, &[("ten", ten)]).unwrap_err(), (400, TOO_MANY.into()));
        // Sequences that grew into a circle by themselves end in the count.
        for circle in [&["/guest/a", "/guest/y"][..], &["/guest/y"]] {
            let told = check(&["/_/x"], &[("x", circle), ("y", &["/guest/x"])]).unwrap_err();
            assert_eq!(told, (400, TOO_MANY.into()), "{circle:?}");
        }
    }
}
