//! Older messages to checked values and back.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::rpc::{LambdaRequest, LambdaResponse, State};
use super::{OK, percent};
use crate::call::{self, Call, CallId, CallLimits, Headers, Priority};
use crate::flow::{self, Flow, Step};
use crate::name::{Endpoint, FunctionName, NAME_BYTES_MAX, NodeName};
use crate::reply::{Load, Outcome, Reply, Timing};
use crate::state::{CARRIED_MAX, CarriedState, StateName, StatePlace};
use crate::status::{PlatformError, Reason};

/// The header that says of a call that its payload is the binary argument (`datain`); its value is the textual one
/// (`input`), percent-encoded. Without it the payload is the textual argument where it is text.
pub const INPUT: &str = "older-input";
/// The same of an answer: the payload is `dataout`, the header's value `output`.
pub const OUTPUT: &str = "older-output";

/// The kind of a function's error that an older computer or broker told in its `retcode`.
const FAILED: &str = "failed";
/// Stands for a broker of the older system on the way of a call.
const BROKER: &str = "older-broker";
/// What a header's value cannot hold, and the sign of the encoding itself.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Checks a request as it arrives. `states` are those that travel with it; those that its functions depend on become the
/// call's.
///
/// A caller of the older protocol is never told whether its lambda ran, and its brokers try again wherever they can: such
/// a call counts as safe to retry.
///
/// # Errors
/// Where it is malformed or too large, or asks for what is not offered here.
pub fn call(
    request: LambdaRequest,
    states: &HashMap<String, State>,
    timeout: Option<Duration>,
    limits: &CallLimits,
    now: Instant,
) -> Result<Call, PlatformError> {
    check_offered(&request)?;
    if timeout.is_some_and(|timeout| timeout.is_zero()) {
        let message = "the deadline had passed when the call arrived; give it more time";
        return Err(PlatformError::new(Reason::Late, message));
    }
    if request.hops > limits.hops_max {
        return Err(PlatformError::new(Reason::LoopDetected, "loop detected"));
    }
    let flow = flow(&request)?;
    let states = needed(&request, states)?;
    call::check_payload(request.input.len().max(request.datain.len()), limits)?;
    let (payload, headers) = joined(request.datain, request.input, INPUT)?;
    Ok(Call {
        function: request.name.parse()?,
        payload,
        headers,
        // An id that does not have our form is of no use for logs, and nobody else looks at it.
        id: request.uuid.parse().unwrap_or_else(|_| CallId::random()),
        hops: request.hops,
        dry_run: request.dry,
        retry_safe: true,
        priority: Priority::default(),
        // Its brokers leave no name.
        via: if request.forward { vec![BROKER.parse()?] } else { Vec::new() },
        deadline: now + limits.time(timeout),
        then: Vec::new(),
        flow,
        application: None,
        states,
    })
}

/// The states that the functions of a request depend on, as it says itself; where it says nothing and has the states with it,
/// its one function depends on all.
fn needed(request: &LambdaRequest, states: &HashMap<String, State>) -> Result<Vec<CarriedState>, PlatformError> {
    let is_several = request.chain.len() > 1 || request.dag.as_ref().is_some_and(|dag| dag.names.len() > 1);
    let says_nothing = request.dependencies.is_empty() && request.chain.is_empty() && request.dag.is_none();
    let function: FunctionName = request.name.parse()?;
    let mut carried = Vec::new();
    for (name, state) in states {
        // Others travel along as they are.
        let Ok(name) = name.parse::<StateName>() else { continue };
        let is_here = state.location.is_empty();
        let mut needed_by: Vec<FunctionName> = match request.dependencies.get(name.as_str()) {
            Some(by) => by.functions.iter().filter_map(|function| function.parse().ok()).collect(),
            None if says_nothing && is_here => vec![function.clone()],
            None => Vec::new(),
        };
        if !is_several {
            needed_by.retain(|by| *by == function);
        }
        if needed_by.is_empty() {
            continue;
        }
        let place = if is_here {
            StatePlace::Content(state.content.clone())
        } else {
            StatePlace::At(state.location.parse().map_err(PlatformError::malformed)?)
        };
        carried.push(CarriedState { name, place, needed_by });
    }
    if carried.len() > CARRIED_MAX {
        let message = format!("the functions depend on {} states; at most {CARRIED_MAX} are taken", carried.len());
        return Err(PlatformError::new(Reason::TooLarge, message));
    }
    carried.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(carried)
}

/// Puts what has become of states in the place of what a request said of them.
pub fn update_states(states: &mut HashMap<String, State>, news: &[CarriedState]) {
    for CarriedState { name, place, .. } in news {
        let state = states.entry(name.to_string()).or_default();
        (state.location, state.content) = match place {
            StatePlace::Content(content) => (String::new(), content.clone()),
            StatePlace::At(location) => (location.to_string(), Bytes::new()),
        };
    }
}

/// The steps that a request of several functions asks for: those of a chain from the next on, or a whole DAG.
fn flow(request: &LambdaRequest) -> Result<Option<Flow>, PlatformError> {
    let next = usize::try_from(request.next_function_index).unwrap_or(usize::MAX);
    let names = |names: &[String]| names.iter().map(|name| name.parse()).collect::<Result<Vec<FunctionName>, _>>();
    if let Some(chain) = request.chain.get(next..).filter(|chain| chain.len() > 1) {
        return Ok(Some(Flow::chain(names(chain)?)?));
    }
    let Some(dag) = request.dag.as_ref().filter(|dag| dag.names.len() > 1) else { return Ok(None) };
    let functions = names(&dag.names)?;
    let mut after = vec![Vec::new(); functions.len()];
    for (step, successors) in dag.successors.iter().enumerate() {
        for &successor in &successors.functions {
            let place = usize::try_from(successor).ok().and_then(|at| after.get_mut(at));
            let out_of_range =
                || PlatformError::malformed(format!("the DAG goes on to {successor}, which is no function"));
            place.ok_or_else(out_of_range)?.push(step);
        }
    }
    let steps = flow::step_names(&functions).into_iter().zip(functions).zip(after);
    Ok(Some(Flow::new(steps.map(|((name, function), after)| Step { name, function, after }).collect())?))
}

/// The request that passes a call on to a role of the older system; its `hops` are counted already.
pub fn request(call: &Call) -> LambdaRequest {
    let (datain, input) = parted(&call.payload, call.headers.get(INPUT));
    let mut states = HashMap::new();
    update_states(&mut states, &call.states);
    let needed_by = |state: &CarriedState| {
        let functions = state.needed_by.iter().map(ToString::to_string).collect();
        (state.name.to_string(), super::rpc::FunctionList { functions })
    };
    // Only with a chain do its computers look at who needs what.
    let chain = if call.states.is_empty() { Vec::new() } else { vec![call.function.to_string()] };
    LambdaRequest {
        name: call.function.to_string(),
        input,
        datain,
        dry: call.dry_run,
        forward: call.hops > 0,
        hops: call.hops,
        uuid: call.id.to_string(),
        states,
        chain,
        dependencies: call.states.iter().map(needed_by).collect(),
        ..LambdaRequest::default()
    }
}

/// The response that tells of a reply.
pub fn response(reply: Reply) -> LambdaResponse {
    let computing = reply.timing.queue + reply.timing.init + reply.timing.run;
    let [load1, load10, load30] = reply.load.utilisation.map(percent);
    let response = LambdaResponse {
        retcode: OK.to_owned(),
        responder: reply.responder.map(|endpoint| endpoint.to_string()).unwrap_or_default(),
        ptime: ms(computing),
        load1,
        load10,
        load30,
        hops: reply.hops.saturating_add(1),
        ..LambdaResponse::default()
    };
    match reply.outcome {
        Outcome::Answer { payload, headers } => {
            let (dataout, output) = parted(&payload, headers.get(OUTPUT));
            LambdaResponse { output, dataout, ..response }
        }
        Outcome::Error { kind, message } => LambdaResponse { retcode: format!("{kind}: {message}"), ..response },
        Outcome::Estimate(estimate) => {
            LambdaResponse { ptime: ms(estimate.queue + estimate.init + estimate.run), ..response }
        }
    }
}

/// The reply that a response of `from` tells of.
///
/// # Errors
/// [`Reason::Protocol`] where the response makes no sense.
pub fn reply(response: LambdaResponse, call: &Call, from: &Endpoint) -> Result<Reply, PlatformError> {
    if response.asynchronous {
        let message = format!("{from} took for asynchronous what was not asked for so");
        return Err(PlatformError::new(Reason::Protocol, message));
    }
    let took = Duration::from_millis(response.ptime.into());
    let outcome = if response.retcode != OK {
        Outcome::Error { kind: FAILED.to_owned(), message: response.retcode }
    } else if call.dry_run {
        Outcome::Estimate(crate::Estimate { run: took, ..crate::Estimate::default() })
    } else {
        let (payload, headers) = joined(response.dataout, response.output, OUTPUT)
            .map_err(|error| PlatformError::new(Reason::Protocol, format!("{from}: {error}")))?;
        Outcome::Answer { payload, headers }
    };
    let states = told(&response.states, call)
        .map_err(|error| PlatformError::new(Reason::Protocol, format!("{from}: {error}")))?;
    // The one that ran it, if brokers stand between; one that is told in no form of ours is left out.
    let responder: Option<Endpoint> = response.responder.parse().ok();
    let loads = [response.load1, response.load10, response.load30];
    Ok(Reply {
        outcome,
        computer: name_of(responder.as_ref().unwrap_or(from)),
        responder,
        version: None,
        call: call.id.clone(),
        hops: response.hops.saturating_sub(1).max(call.hops),
        load: Load { utilisation: loads.map(share), ..Load::default() },
        timing: Timing { run: took, ..Timing::default() },
        steps: Vec::new(),
        states,
    })
}

/// What a response tells of the states that went with its call.
fn told(states: &HashMap<String, State>, call: &Call) -> Result<Vec<CarriedState>, PlatformError> {
    let mut told = call.states.clone();
    told.retain(|carried| states.contains_key(carried.name.as_str()));
    for carried in &mut told {
        let state = &states[carried.name.as_str()];
        carried.place = if state.location.is_empty() {
            StatePlace::Content(state.content.clone())
        } else {
            StatePlace::At(state.location.parse().map_err(PlatformError::malformed)?)
        };
    }
    Ok(told)
}

/// Bytes of the textual argument that [`INPUT`] or [`OUTPUT`] holds.
pub fn text_bytes(header: &str) -> usize {
    percent_decode_str(header).count()
}

/// The name of a node of the older system, which has none but its endpoint.
pub fn name_of(endpoint: &Endpoint) -> NodeName {
    let fitting = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let name: String = endpoint.as_str().chars().map(fitting).collect();
    // The end tells more hosts apart than the beginning, and holds the port.
    let start = name.len().saturating_sub(NAME_BYTES_MAX);
    let name = name[start..].trim_start_matches(['-', '.']);
    name.parse().expect("what is left is of the form of a name, and holds at least the port")
}

fn check_offered(request: &LambdaRequest) -> Result<(), PlatformError> {
    let names = request.dag.as_ref().map_or(0, |dag| dag.names.len());
    if !request.chain.is_empty() && names > 0 {
        return Err(PlatformError::malformed("a call is a chain or a DAG, not both"));
    }
    let next = usize::try_from(request.next_function_index).unwrap_or(usize::MAX);
    let is_several = request.chain.len() > 1 || names > 1;
    if is_several && request.callback.is_empty() {
        let advice = "more than one function in a call without a callback; call them one after the other";
        return Err(PlatformError::malformed(advice));
    }
    if request.chain.len() + names > 0 && next >= request.chain.len().max(names) {
        return Err(PlatformError::malformed("the index of the next function is beyond the last one"));
    }
    if names > 1 && next > 0 {
        return Err(PlatformError::malformed("a DAG begins with its first function here, and ends at this broker"));
    }
    if names > 1 && request.uuid.is_empty() {
        return Err(PlatformError::malformed("a DAG needs an id; give it a uuid"));
    }
    Ok(())
}

/// A binary and a textual argument as one payload and the header that keeps the other.
fn joined(binary: Bytes, text: String, header: &str) -> Result<(Bytes, Headers), PlatformError> {
    if binary.is_empty() {
        return Ok((text.into(), Headers::default()));
    }
    let text = utf8_percent_encode(&text, ENCODED).to_string();
    Ok((binary, Headers::new(vec![(header.to_owned(), text)])?))
}

/// A payload as the binary and the textual argument that it was, or as what it looks like.
fn parted(payload: &Bytes, other: Option<&str>) -> (Bytes, String) {
    match (other, std::str::from_utf8(payload)) {
        (Some(text), _) => (payload.clone(), percent_decode_str(text).decode_utf8_lossy().into_owned()),
        (None, Ok(text)) => (Bytes::new(), text.to_owned()),
        (None, Err(_)) => (payload.clone(), String::new()),
    }
}

fn ms(duration: Duration) -> u32 {
    u32::try_from((duration + Duration::from_micros(500)).as_millis()).unwrap_or(u32::MAX)
}

fn share(percent: u32) -> f32 {
    f32::from(u8::try_from(percent.min(100)).unwrap_or(100)) / 100.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::rpc;
    use super::*;

    fn asked(request: LambdaRequest) -> Result<Call, PlatformError> {
        call(request, &HashMap::new(), None, &CallLimits::default(), Instant::now())
    }

    fn request_of(name: &str) -> LambdaRequest {
        LambdaRequest { name: name.to_owned(), ..LambdaRequest::default() }
    }

    fn replied(response: LambdaResponse) -> Result<Reply, PlatformError> {
        let call = Call::new("clambda0".parse().unwrap(), "", Duration::from_secs(1));
        reply(response, &call, &"127.0.0.1:10000".parse().unwrap())
    }

    proptest! {
        #[test]
        fn both_arguments_survive_a_broker(input in ".{0,64}", datain: Vec<u8>, hops in 0u32..8, dry: bool) {
            let there = LambdaRequest { input, datain: datain.into(), hops, dry, forward: hops > 0,
                uuid: "b5a1c1d2-0001".to_owned(), ..request_of("clambda0") };
            prop_assert_eq!(request(&asked(there.clone()).unwrap()), there);
        }

        #[test]
        fn both_results_survive_a_broker(output in ".{0,64}", dataout: Vec<u8>, load1 in 0u32..=100, ptime in 0u32..100_000) {
            let there = LambdaResponse { retcode: OK.to_owned(), output, dataout: dataout.into(), load1, ptime, hops: 3,
                responder: "10.0.0.1:6473".to_owned(), ..LambdaResponse::default() };
            prop_assert_eq!(response(replied(there.clone()).unwrap()), there);
        }

        #[test]
        fn every_endpoint_gives_a_name(host in "[a-zA-Z0-9.-]{1,200}", port in 1u16..) {
            if let Ok(endpoint) = format!("{host}:{port}").parse::<Endpoint>() {
                let name = name_of(&endpoint).to_string();
                prop_assert!(name.ends_with(&port.to_string()), "{}", name);
            }
        }
    }

    #[test]
    fn what_is_not_offered_is_refused_with_advice() {
        let refused = |request: LambdaRequest| asked(request).unwrap_err().to_string();
        let two = || vec!["a".to_owned(), "b".to_owned()];
        let dag = rpc::Dag { successors: Vec::new(), names: two() };
        assert!(refused(LambdaRequest { chain: two(), ..request_of("a") }).contains("without a callback"));
        assert!(refused(LambdaRequest { dag: Some(dag.clone()), ..request_of("a") }).contains("without a callback"));
        let callback = "127.0.0.1:6480".to_owned();
        let nameless = LambdaRequest { dag: Some(dag.clone()), callback: callback.clone(), ..request_of("a") };
        assert!(refused(nameless.clone()).contains("uuid"));
        let within = LambdaRequest { uuid: "7".into(), next_function_index: 1, ..nameless };
        assert!(refused(within).contains("begins with its first"));
        let beyond = LambdaRequest { chain: two(), callback, next_function_index: 2, ..request_of("a") };
        assert!(refused(beyond).contains("index"));
        assert!(refused(LambdaRequest { chain: two(), dag: Some(dag), ..request_of("a") }).contains("not both"));
        let one = vec!["a".to_owned()];
        assert!(asked(LambdaRequest { chain: one.clone(), ..request_of("a") }).is_ok());
        assert!(refused(LambdaRequest { chain: one, next_function_index: 1, ..request_of("a") }).contains("index"));
        assert!(refused(LambdaRequest { hops: 255, ..request_of("a") }).contains("loop detected"));
    }

    #[test]
    fn chains_and_dags_with_a_callback_are_flows() {
        let names = ["f0", "f1", "f0", "f2"].map(ToOwned::to_owned);
        let asked_for = LambdaRequest { callback: "127.0.0.1:6480".into(), uuid: "7".into(), ..request_of("f0") };
        let steps = |request: LambdaRequest| {
            let flow = asked(request).unwrap().flow.unwrap();
            let told = |step: &Step| (step.function.to_string(), step.after.clone());
            flow.steps().iter().map(told).collect::<Vec<_>>()
        };
        let chain = LambdaRequest { chain: names.to_vec(), ..asked_for.clone() };
        assert_eq!(steps(chain.clone()).len(), 4);
        let rest = LambdaRequest { next_function_index: 2, ..chain };
        assert_eq!(steps(rest), [("f0".to_owned(), vec![]), ("f2".to_owned(), vec![0])], "from the next one on");
        let lists = [&[1u64, 2][..], &[3], &[3]].map(|list| rpc::IndexList { functions: list.to_vec() });
        let dag = rpc::Dag { successors: lists.to_vec(), names: names.to_vec() };
        let dag = LambdaRequest { dag: Some(dag), ..asked_for.clone() };
        assert_eq!(steps(dag).pop(), Some(("f2".to_owned(), vec![1, 2])));
        let astray = rpc::Dag { successors: vec![rpc::IndexList { functions: vec![9] }], names: names[..2].to_vec() };
        let astray = asked(LambdaRequest { dag: Some(astray), ..asked_for });
        assert!(astray.unwrap_err().to_string().contains("goes on to 9"));
    }

    #[test]
    fn an_error_is_told_in_the_retcode_and_read_from_it() {
        let outcome = Outcome::Error { kind: "bad-input".into(), message: "no name".into() };
        let told = response(Reply {
            outcome,
            ..replied(LambdaResponse { retcode: OK.into(), ..LambdaResponse::default() }).unwrap()
        });
        assert_eq!(told.retcode, "bad-input: no name");
        let read = replied(told).unwrap();
        assert_eq!(read.outcome, Outcome::Error { kind: FAILED.into(), message: "bad-input: no name".into() });
        assert_eq!(read.computer.as_str(), "127.0.0.1-10000");
    }
}
