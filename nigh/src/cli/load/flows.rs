//! Calls that are more than one function, or run later: what `nigh load` makes of each call with `--flow`, `--async` and
//! `--states`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use nigh_client::{CallQueue, keep_at};
use nigh_flow::{Definition, Failure, Input, Segment};
use nigh_load::Target;
use nigh_proto::state::update_carried;
use nigh_proto::{
    Acceptance, Call, CarriedState, Endpoint, FunctionName, Limits, Outcome, PlatformError, Reason, Reply, StatePlace,
};
use tokio::sync::Mutex;

use super::options::{Driver, Several};
use crate::cli::{Global, flow};

/// Bytes of a state whose size its flow's file does not tell.
const STATE_BYTES: u64 = 1000;
/// How long one request for a result waits at the broker.
const WAIT: Duration = Duration::from_secs(10);

/// What calls are to be, beside single functions that answer at once.
pub(super) struct Kind {
    definition: Option<Definition>,
    driver: Driver,
    is_asynchronous: bool,
    states: Vec<CarriedState>,
}

impl Kind {
    /// What was asked for; nothing where calls are of single functions that answer at once. States that are to be elsewhere
    /// are put there.
    pub(super) async fn of(several: &Several, global: &Global) -> anyhow::Result<Option<Self>> {
        let definition = several.flow.as_deref().map(flow::read).transpose()?;
        if definition.is_none() && !several.is_asynchronous {
            return Ok(None);
        }
        let states = match &definition {
            Some(definition) if several.states || several.states_at.is_some() => carried(definition)?,
            Some(_) | None => Vec::new(),
        };
        let states = match &several.states_at {
            Some(server) => put(states, server, global).await?,
            None => states,
        };
        Ok(Some(Self { definition, driver: several.driven_by, is_asynchronous: several.is_asynchronous, states }))
    }

    /// What runs are told by.
    pub(super) fn name(&self) -> Option<FunctionName> {
        self.definition.as_ref().map(|definition| definition.name.clone())
    }

    /// The same around a target; `queue` is for those that run later.
    pub(super) fn around<T>(&self, target: T, queue: CallQueue) -> Flows<T> {
        let queue = self.is_asynchronous.then_some(queue);
        let states = (!self.states.is_empty()).then(|| Mutex::new(self.states.clone()));
        Flows { target, queue, definition: self.definition.clone(), driver: self.driver, states }
    }
}

/// The states of a flow's file, each of as many zeros as that says. Those that no function depends on stay at home.
fn carried(definition: &Definition) -> anyhow::Result<Vec<CarriedState>> {
    let needed = definition.states.iter().filter(|(_, state)| !state.functions.is_empty());
    let states = needed.map(|(name, state)| {
        let bytes = usize::try_from(state.bytes.unwrap_or(STATE_BYTES)).unwrap_or(usize::MAX);
        if bytes as u64 > Limits::MAX.payload_bytes {
            bail!("the state {name} has {bytes} bytes, more than travels with any call");
        }
        let place = StatePlace::Content(Bytes::from(vec![0; bytes]));
        Ok(CarriedState { name: name.parse()?, place, needed_by: state.functions.clone() })
    });
    let states: Vec<_> = states.collect::<anyhow::Result<_>>()?;
    if states.is_empty() {
        bail!("the flow's file tells of no states that its functions depend on (`dependencies`)");
    }
    Ok(states)
}

async fn put(mut states: Vec<CarriedState>, server: &Endpoint, global: &Global) -> anyhow::Result<Vec<CarriedState>> {
    for state in &mut states {
        if let StatePlace::Content(content) = &state.place {
            let kept = keep_at(global.remote(server.clone())?, &state.name, content.clone()).await;
            kept.with_context(|| format!("cannot put the state {} to {server}", state.name))?;
        }
        state.place = StatePlace::At(server.clone());
    }
    Ok(states)
}

/// Makes each call what it is to be.
pub(super) struct Flows<T> {
    target: T,
    queue: Option<CallQueue>,
    definition: Option<Definition>,
    driver: Driver,
    /// As the call before has left them; calls that have states are one after the other.
    states: Option<Mutex<Vec<CarriedState>>>,
}

impl<T: Target> Target for Flows<T> {
    async fn call(&self, mut call: Call) -> Result<Reply, PlatformError> {
        let Some(states) = &self.states else { return self.make(call).await };
        let mut states = states.lock().await;
        call.states.clone_from(&states);
        let reply = self.make(call).await?;
        update_carried(&mut states, &reply.states);
        Ok(reply)
    }
}

impl<T: Target> Flows<T> {
    async fn make(&self, mut call: Call) -> Result<Reply, PlatformError> {
        if let Some(definition) = &self.definition {
            if self.driver == Driver::Client && !call.dry_run {
                return self.drive(call, definition).await;
            }
            call.flow = Some(definition.flow.clone());
        }
        match &self.queue {
            Some(queue) if !call.dry_run => later(queue, call).await,
            Some(_) | None => self.target.call(call).await,
        }
    }

    /// A call for each step, with the states that it needs.
    async fn drive(&self, mut call: Call, definition: &Definition) -> Result<Reply, PlatformError> {
        let (flow, states) = (&definition.flow, Mutex::new(std::mem::take(&mut call.states)));
        let input = Input { payload: std::mem::take(&mut call.payload), headers: std::mem::take(&mut call.headers) };
        let step = async |Segment { step, input: Input { payload, headers }, .. }: Segment| {
            let function = flow.steps()[step].function.clone();
            let mut states = states.lock().await;
            let needed: Vec<_> = states.iter().filter(|state| state.is_needed_by(&function)).cloned().collect();
            let call = Call { function, payload, headers, states: needed, ..call.clone() };
            if call.states.is_empty() {
                drop(states);
                return self.target.call(call).await;
            }
            let reply = self.target.call(call).await?;
            update_carried(&mut states, &reply.states);
            Ok(reply)
        };
        let room = usize::try_from(Limits::MAX.payload_bytes).unwrap_or(usize::MAX);
        let ended = nigh_flow::run(flow, input, room, step).await;
        match ended {
            Ok(finished) => Ok(Reply { states: states.into_inner(), ..finished.into_reply() }),
            Err(Failure::Function { way, kind, message, reply }) => {
                Ok(Reply { outcome: Outcome::Error { kind, message: format!("{way}: {message}") }, ..*reply })
            }
            Err(Failure::Platform { error, .. }) => Err(error),
        }
    }
}

/// Has a call accepted, and waits for what comes of it.
async fn later(queue: &CallQueue, call: Call) -> Result<Reply, PlatformError> {
    let deadline = call.deadline;
    let timeout = call.time_left(Instant::now());
    let accepted = queue.accept(&Acceptance { call, timeout, callback: None }).await?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let message = "the call was accepted, and has come to no outcome before the deadline";
            return Err(PlatformError::new(Reason::Late, message));
        }
        if let Some(settled) = queue.result(&accepted.id, left.min(WAIT)).await? {
            return settled;
        }
    }
}
