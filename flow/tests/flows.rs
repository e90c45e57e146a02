//! Flows as files, and as they run.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by panicking")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use nigh_flow::{Definition, Failure, Input, PART_HEADER, Segment, draw, forecast, run};
use nigh_proto::flow::Step;
use nigh_proto::{Call, CallId, Estimate, Flow, Headers, Load, Outcome, PlatformError, Reason, Reply, StepRan, Timing};
use proptest::prelude::*;

fn reply(outcome: Outcome) -> Reply {
    Reply {
        outcome,
        computer: "computer-1".parse().unwrap(),
        responder: None,
        version: None,
        call: CallId::random(),
        hops: 2,
        load: Load::default(),
        timing: Timing::default(),
        steps: Vec::new(),
        states: Vec::new(),
    }
}

fn answer(payload: impl Into<Bytes>) -> Reply {
    reply(Outcome::Answer { payload: payload.into(), headers: Headers::default() })
}

fn names(flow: &Flow) -> Vec<&str> {
    flow.steps().iter().map(|step| step.name.as_str()).collect()
}

fn diamond() -> Flow {
    let text = r#"{"successors": [[1, 2], [3], [3]], "functionNames": ["f0", "f1", "f2", "f3"], "dependencies": {}}"#;
    Definition::from_json(text).unwrap().flow
}

fn input(payload: &'static str) -> Input {
    Input { payload: payload.into(), headers: Headers::default() }
}

const ROOM: usize = 1 << 20;

/// Each step answers its input with its own name behind it.
async fn told(flow: &Flow, ahead: bool) -> (String, Vec<String>, u32) {
    let called = RefCell::new(Vec::new());
    let finished = run(flow, input("x"), ROOM, async |segment: Segment| {
        let mut payload = String::from_utf8(segment.input.payload.to_vec()).unwrap();
        let mut ran = Vec::new();
        for &step in std::iter::once(&segment.step).chain(segment.then.iter().filter(|_| ahead)) {
            let step = &flow.steps()[step];
            payload = format!("{payload}{}", step.name);
            let (function, computer) = (step.function.clone(), "computer-1".parse().unwrap());
            ran.push(StepRan { step: None, function, computer, timing: Timing::default() });
        }
        called.borrow_mut().push(flow.steps()[segment.step].name.to_string());
        Ok::<_, PlatformError>(Reply { steps: if ahead { ran } else { Vec::new() }, ..answer(payload) })
    })
    .await
    .unwrap();
    let steps: Vec<_> = finished.steps.iter().map(|ran| ran.step.as_ref().unwrap().to_string()).collect();
    assert_eq!(steps.len(), flow.steps().len(), "every step ran, once: {steps:?}");
    (String::from_utf8(finished.answer.payload.to_vec()).unwrap(), called.into_inner(), finished.hops)
}

#[tokio::test]
async fn a_chain_hands_on_what_each_step_answers() {
    let chain = Flow::chain(["a", "b", "c"].map(|name| name.parse().unwrap())).unwrap();
    assert_eq!(told(&chain, false).await, ("xabc".into(), vec!["a".into(), "b".into(), "c".into()], 8));
    assert_eq!(told(&chain, true).await, ("xabc".into(), vec!["a".into()], 2), "one place runs all of it");
}

#[tokio::test]
async fn a_join_is_given_every_branch_with_its_name() {
    let flow = diamond();
    let joined = RefCell::new(Headers::default());
    let finished = run(&flow, input("in"), ROOM, async |segment: Segment| {
        let payload = match segment.step {
            0 => "p",
            1 => "left",
            2 => "right!",
            _ => {
                joined.replace(segment.input.headers.clone());
                return Ok(answer(segment.input.payload));
            }
        };
        Ok(answer(payload))
    })
    .await
    .unwrap();
    assert_eq!(finished.answer.payload, "leftright!");
    let parts: Vec<_> = joined.borrow().iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(parts, [(PART_HEADER.to_owned(), "f1=4".to_owned()), (PART_HEADER.to_owned(), "f2=6".to_owned())]);
    assert_eq!(told(&flow, true).await.1.len(), 4, "nothing runs ahead where a flow parts or joins");
}

#[tokio::test]
async fn a_failed_branch_fails_the_flow_once_and_ends_the_others() {
    let flow = diamond();
    let failed = run(&flow, input(""), ROOM, async |segment: Segment| match segment.step {
        1 => Ok(reply(Outcome::Error { kind: "bad-input".into(), message: "no picture".into() })),
        2 => std::future::pending().await,
        _ => Ok(answer("")),
    })
    .await
    .unwrap_err();
    let Failure::Function { way, kind, message, .. } = failed else { panic!("{failed:?}") };
    assert_eq!((way.as_str(), kind.as_str(), message.as_str()), ("f0 → f1", "bad-input", "no picture"));

    let failed = run(&flow, input(""), ROOM, async |segment: Segment| match segment.step {
        3 => Err(PlatformError::new(Reason::QueueFull, "full")),
        _ => Ok(answer("")),
    });
    let Failure::Platform { way, error, .. } = failed.await.unwrap_err() else { panic!("the platform failed") };
    assert_eq!((way.as_str(), error.reason), ("f0 → f1 → f3", Reason::QueueFull));
}

#[tokio::test]
async fn more_than_a_step_may_be_given_is_not_joined() {
    let flow = diamond();
    let failed = run(&flow, input(""), 10, async |_: Segment| Ok(answer("123456"))).await.unwrap_err();
    let Failure::Platform { way, error, .. } = failed else { panic!("{failed:?}") };
    assert_eq!((way.as_str(), error.reason), ("f0 → f1 → f3", Reason::TooLarge));
}

#[test]
fn definitions_are_read_in_each_of_their_forms() {
    let toml = Definition::from_toml(
        "name = 'faces'\n[[steps]]\nname = 'detect'\nfunction = 'face-detect'\n[[steps]]\nfunction = 'thumbnail'\n\
         after = []\n[[steps]]\nname = 'report'\nafter = ['detect', 'thumbnail']\n[states.seen]\nfunctions = ['report']\nbytes = 7\n",
    )
    .unwrap();
    assert_eq!(names(&toml.flow), ["detect", "thumbnail", "report"]);
    assert_eq!(toml.flow.steps()[2].after, [0, 1]);
    assert_eq!(toml.states_of(&"report".parse().unwrap()), ["seen"]);
    let json = r#"{"name": "two", "chain": ["echo", "echo"]}"#;
    assert_eq!(names(&Definition::from_json(json).unwrap().flow), ["echo", "echo-2"]);
}

/// Acceptance case 36.
#[test]
fn the_older_systems_chains_and_dags_are_read() {
    let chain = r#"{"functions": ["f1", "f2", "f1"], "dependencies": {"s0": ["f1"], "s1": ["f1", "f2"], "s2": ["f2"], "s3": null},
        "state-sizes": {"s0": 10000, "s1": 20000, "s2": 30000, "s3": 40000}}"#;
    let chain = Definition::from_json(chain).unwrap();
    let function = |name: &str| name.parse().unwrap();
    assert_eq!(chain.functions(), [&function("f1"), &function("f2")]);
    assert_eq!(chain.states.keys().collect::<Vec<_>>(), ["s0", "s1", "s2", "s3"]);
    assert_eq!(
        (chain.states_of(&function("f1")), chain.states_of(&function("f2"))),
        (vec!["s0", "s1"], vec!["s1", "s2"])
    );
    assert_eq!(chain.states["s3"].bytes, Some(40_000));

    let dag = r#"{"successors": [[1, 2], [3], [3]], "functionNames": ["f0", "f1", "f2", "f2"],
        "dependencies": {"s0": ["f0"], "s1": ["f0", "f1"], "s2": ["f2"], "s3": null}}"#;
    let dag = Definition::from_json(dag).unwrap();
    assert_eq!(names(&dag.flow), ["f0", "f1", "f2", "f2-2"]);
    assert_eq!((dag.flow.successors(0), &dag.flow.steps()[3].after[..]), (&[1, 2][..], &[1, 2][..]));
}

#[test]
fn definitions_that_are_none_are_told_where() {
    let json = |text: &str| Definition::from_json(text).unwrap_err().to_string();
    let toml = |text: &str| Definition::from_toml(text).unwrap_err().to_string();
    for (told, expected) in [
        (json(r#"{"functions": ["f1"]}"#), "missing field `dependencies`"),
        (json(r#"{"functions": ["f1"], "dependencies": {"s": ["f2"]}}"#), "needed by f2, which no step runs"),
        (json(r#"{"functions": ["f1"], "dependencies": {}, "state-sizes": {"s": 1}}"#), "s is no state"),
        (json(r#"{"functions": ["F 1"], "dependencies": {}}"#), "functions, name 1"),
        (json(r#"{"successors": [[1]], "functionNames": ["a"], "dependencies": {}}"#), "one name more"),
        (
            json(r#"{"successors": [[0]], "functionNames": ["a", "b"], "dependencies": {}}"#),
            "successors of 0: 0 is out of range",
        ),
        (json(r#"{"successors": [[2]], "functionNames": ["a", "b"], "dependencies": {}}"#), "use 1 to 1"),
        (json(r#"{"functions": "#), "line 1"),
        (toml("chain = ['a']\nsteps = [{function = 'a'}]"), "either `steps` or `chain`"),
        (toml("[[steps]]\nafter = []"), "step 1: give it a `function`"),
        (
            toml("[[steps]]\nname = 'a'\n[[steps]]\nname = 'b'\nafter = ['c']"),
            "step b: comes after c, which is no step",
        ),
        (toml("[[steps]]\nname = 'a'\nafter = ['b']\n[[steps]]\nname = 'b'"), "a → b → a"),
        (toml("chains = ['a']"), "chains"),
        (toml("chain = ['a']\n[states.s]\nfunctions = ['b']"), "state s"),
    ] {
        assert!(told.contains(expected), "{told:?} should tell {expected:?}");
    }
}

#[test]
fn a_forecast_takes_the_longest_way() {
    let estimate = |ms| Estimate { run: Duration::from_millis(ms), samples: 5, ..Estimate::default() };
    let steps = [1, 10, 30, 2].map(estimate);
    assert_eq!(forecast(&diamond(), &steps).run, Duration::from_millis(33));
    let unknown =
        [estimate(1), estimate(1), Estimate { run: Duration::from_millis(9), ..Estimate::default() }, estimate(1)];
    assert_eq!(forecast(&diamond(), &unknown).samples, 0, "a way with an unknown step is unknown");
}

#[test]
fn a_drawing_shows_every_step_and_every_arrow() {
    let flow = Definition::from_toml("[[steps]]\nname = 'a<b'").map(|_| ()).unwrap_err().to_string();
    assert!(flow.contains("step 1"), "names cannot hold what would break a drawing: {flow}");
    let flow = diamond();
    assert_eq!(draw::text(&flow), "● f0  ← the input\n└─► f1  ← f0\n└─► f2  ← f0\n   └─► f3  ← f1 + f2\n");
    let svg = draw::svg(&flow, "a & b");
    assert_eq!((svg.matches("<rect x").count(), svg.matches("marker-end").count()), (4, 4));
    assert!(svg.contains("a &amp; b") && !svg.contains("a & b"));
    let skips = "[[steps]]\nname='a'\n[[steps]]\nname='b'\n[[steps]]\nname='c'\nafter=['b','a']";
    let svg = draw::svg(&Definition::from_toml(skips).unwrap().flow, "");
    assert!(svg.contains('V'), "a line that skips a layer passes beside it: {svg}");
}

proptest! {
    /// Whatever the graph: each step runs once, after all that it comes after, and is given just what they answered.
    #[test]
    fn any_flow_runs_each_step_once_with_what_came_before(
        after in proptest::collection::vec(proptest::collection::btree_set(0usize..12, 0..4), 1..12),
    ) {
        let step = |(at, after): (usize, &std::collections::BTreeSet<usize>)| Step {
            name: format!("s{at}").parse().unwrap(),
            function: "echo".parse().unwrap(),
            after: after.iter().copied().filter(|&before| before < at).collect(),
        };
        let flow = Flow::new(after.iter().enumerate().map(step).collect()).unwrap();
        let given = RefCell::new(BTreeMap::new());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let finished = runtime.block_on(run(&flow, input("in"), ROOM, async |segment: Segment| {
            let name = flow.steps()[segment.step].name.clone();
            let before = given.borrow_mut().insert(name.to_string(), segment.input.payload);
            assert!(before.is_none(), "once");
            Ok::<_, PlatformError>(answer(format!("[{name}]")))
        })).unwrap();
        prop_assert_eq!(finished.steps.len(), flow.steps().len());
        for step in flow.steps() {
            let expected: String = step.after.iter().map(|&before| format!("[{}]", flow.steps()[before].name)).collect();
            let expected = if step.after.is_empty() { "in".to_owned() } else { expected };
            prop_assert_eq!(&given.borrow()[step.name.as_str()], &expected);
        }
    }

    #[test]
    fn any_text_is_judged_without_panic(text in "[\\[\\]{}\":,a-c0-9= \n]{0,64}") {
        let _ = (Definition::from_toml(&text), Definition::from_json(&text));
    }
}

#[test]
fn a_flow_travels_with_its_call() {
    let mut call = Call::new("whole".parse().unwrap(), "x", Duration::from_secs(1));
    call.flow = Some(diamond());
    let wire = call.to_wire();
    let arrived = Call::from_wire(wire, None, &nigh_proto::CallLimits::default(), std::time::Instant::now()).unwrap();
    assert_eq!(arrived.flow, call.flow);
}
