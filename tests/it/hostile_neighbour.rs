//! Functions that mean harm, on a computer that is a process of its own: whatever they do, their neighbour is served, they
//! end as they should, and the memory that they took is given back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nigh_client::{Caller, CallerLimits, ReadyError};
use nigh_proto::{Call, FunctionName, Limits, Outcome, Reason};
use nigh_tests::bombs::{self, Bomb};
use nigh_tests::guests;
use nigh_tests::hostile::{self, Hostile};
use nigh_tests::processes::Processes;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Time that a call of the neighbour has. One that is not answered in it is starved: fair is a small part of it.
const STARVED: Duration = Duration::from_secs(10);
/// Calls of the neighbour beside each of the others, each once the one before was answered.
const NEIGHBOURS_CALLS: usize = 30;
/// Calls of a hostile function at once.
const AT_ONCE: usize = 8;
/// Memory that a computer may hold beyond its level before the harm, once it has settled.
const HELD_MAX: u64 = 48 << 20;
/// Time to settle.
const SETTLE: Duration = Duration::from_secs(30);
/// Time for anything else that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Callers that go on until they are told to stop; each tells in how many ways its calls ended.
struct Harm {
    stop: Arc<AtomicBool>,
    callers: Vec<JoinHandle<BTreeSet<String>>>,
}

impl Harm {
    fn start(edge: &Processes, name: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let caller = |_| {
            let caller = Caller::new(edge.broker.endpoint.clone(), CallerLimits::default());
            let (stop, name): (_, FunctionName) = (stop.clone(), name.parse().unwrap());
            tokio::spawn(async move {
                let mut ends = BTreeSet::new();
                while !stop.load(Ordering::Relaxed) {
                    ends.insert(match caller.invoke(Call::new(name.clone(), "", PATIENCE)).await {
                        Ok(reply) => match reply.outcome {
                            Outcome::Error { kind, .. } => kind,
                            Outcome::Answer { .. } | Outcome::Estimate(_) => "answer".to_owned(),
                        },
                        // Its share of the computer is bounded; it is told so and has to wait.
                        Err(error) => {
                            let is_full =
                                matches!(error.reason, Reason::QueueFull | Reason::TooBusy | Reason::OutOfBudget);
                            assert!(is_full, "{name}: {error}");
                            tokio::time::sleep(error.retry_after.unwrap_or(Duration::from_millis(10))).await;
                            continue;
                        }
                    });
                }
                ends
            })
        };
        Self { callers: (0..AT_ONCE).map(caller).collect(), stop }
    }

    async fn end(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut ends = BTreeSet::new();
        for caller in self.callers {
            ends.extend(caller.await.unwrap());
        }
        ends
    }
}

/// A call of the neighbour, which has to be answered.
async fn neighbour(caller: &Caller, beside: &str) {
    let call = Call::new("neighbour".parse().unwrap(), "still here", STARVED);
    let reply = caller.invoke(call).await.unwrap_or_else(|error| panic!("beside {beside}: {error}"));
    let is_answered = matches!(&reply.outcome, Outcome::Answer { payload, .. } if payload == "still here");
    assert!(is_answered, "beside {beside}: {reply:?}");
}

/// What the computer holds, once that is within the bound, or after all the time that it has.
async fn settled(edge: &Processes, level: u64) -> u64 {
    let began = Instant::now();
    loop {
        let held = edge.computers[0].resident_bytes();
        if held <= level + HELD_MAX || began.elapsed() > SETTLE {
            return held;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_any_function_a_neighbour_is_served_and_memory_comes_back() {
    let edge = Processes::start(1).await;
    edge.deploy("neighbour", guests::echo()).await;
    for Hostile { name, module, .. } in hostile::all() {
        edge.try_deploy(name, module, Limits { idle: Duration::from_secs(1), ..hostile::limits() }).await.unwrap();
    }
    let caller = edge.caller();
    for _ in 0..10 * NEIGHBOURS_CALLS {
        neighbour(&caller, "nobody").await;
    }
    let level = edge.computers[0].resident_bytes();
    for Hostile { name, ends, .. } in hostile::all() {
        let harm = Harm::start(&edge, name);
        for _ in 0..NEIGHBOURS_CALLS {
            neighbour(&caller, name).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let ended = harm.end().await;
        // On a slow machine any of them may be at its limit of time first.
        let unexpected = ended.iter().find(|end| !ends.contains(&end.as_str()) && *end != "time-limit");
        assert!(!ended.is_empty() && unexpected.is_none(), "{name} ended with {ended:?}, expected {ends:?}");
    }
    let held = settled(&edge, level).await;
    assert!(held <= level + HELD_MAX, "the computer held {level} bytes before the harm, and {held} after it");
    neighbour(&caller, "nobody any more").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_made_to_burden_a_compiler_are_bounded_and_hold_nobody_up() {
    let edge = Processes::start_with(1, "compile_cpu_max = \"1s\"\ncompile_memory_bytes_max = \"512MiB\"").await;
    edge.deploy("neighbour", guests::echo()).await;
    let caller = edge.caller();
    let level = edge.computers[0].resident_bytes();
    let stop = CancellationToken::new();
    let (stopped, served) = (stop.clone(), caller.clone());
    let neighbours = tokio::spawn(async move {
        while !stopped.is_cancelled() {
            neighbour(&served, "modules that are compiled").await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut compiling = JoinSet::new();
    for Bomb { name, module, refusal } in bombs::all() {
        let Ok(deployment) = edge.upload(name, module, Limits::default()).await else {
            assert!(refusal.is_some(), "{name} was refused at the door");
            continue;
        };
        let admin = edge.admin();
        compiling.spawn(async move {
            // One after the other, whatever else the machine does.
            let ended = admin.await_ready(&deployment.name, deployment.version, 4 * PATIENCE, |_| {}).await;
            match (ended, refusal) {
                (Ok(_), None) => {}
                // What a slow machine does not compile in a second is refused, and so it should be.
                (Err(ReadyError::Failed(why)), _) => {
                    let why = why.to_string();
                    assert!(refusal.is_none_or(|refusal| why.contains(refusal)), "{name}: {why}");
                }
                (ended, _) => panic!("{name}: {ended:?}"),
            }
        });
    }
    // Behind all of them, and yet it need not wait for their end.
    edge.deploy("innocent", guests::constant("in between")).await;
    assert_eq!(edge.answer("innocent", "").await, "in between");
    while let Some(ended) = compiling.join_next().await {
        ended.unwrap();
    }
    stop.cancel();
    neighbours.await.unwrap();
    let held = settled(&edge, level).await;
    assert!(held <= level + HELD_MAX, "the computer held {level} bytes before the modules came, and {held} after");
}
