//! Asynchronous calls in an edge of real processes: whatever is killed, every call that was accepted has a result in the end or
//! stands among the dead letters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nigh_client::{CallQueue, CallerLimits};
use nigh_proto::{Acceptance, Call, CallId, Outcome};
use nigh_tests::guests;
use nigh_tests::processes::{Processes, nigh};
use tokio::task::JoinHandle;

/// How long processes are killed for; a longer run says so with `NIGH_KILL_TEST_SECONDS`.
const SECONDS: u64 = 10;
/// Time for a call to be accepted, and for all outcomes once everything is up again.
const PATIENCE: Duration = Duration::from_secs(120);
/// Callers at once.
const CALLERS: u64 = 4;

fn queue(edge: &Processes) -> CallQueue {
    CallQueue::new(edge.broker.endpoint.clone(), &CallerLimits::default())
}

/// Hands in one call after another, to any of these brokers, until it is told to stop; those that were accepted.
pub(crate) fn caller(queues: Vec<CallQueue>, number: u64, stop: Arc<AtomicBool>) -> JoinHandle<Vec<CallId>> {
    tokio::spawn(async move {
        let mut accepted = Vec::new();
        for at in 0u64.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let mut call = Call::new("echo".parse().unwrap(), "", Duration::from_secs(5));
            call.id = format!("{number}-{at}").parse().unwrap();
            call.payload = call.id.to_string().into();
            call.retry_safe = at % 2 == 0;
            let acceptance = Acceptance { call, timeout: Duration::from_secs(5), callback: None };
            // Who is told nothing asks again, with the same id.
            let began = Instant::now();
            loop {
                let queue = &queues[rand::random_range(0..queues.len())];
                match queue.accept(&acceptance).await {
                    Ok(told) => break accepted.push(told.id),
                    Err(error) => assert!(began.elapsed() < PATIENCE, "{error:?}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        accepted
    })
}

/// Kills one of the edge's processes and starts it again after a while.
async fn kill_one(edge: &mut Processes) {
    let pause = Duration::from_millis(rand::random_range(0..400));
    let victim = match rand::random_range(0..8u32) {
        0..4 => &mut edge.broker,
        4..7 => {
            let number = rand::random_range(0..edge.computers.len());
            &mut edge.computers[number]
        }
        _ => &mut edge.controller,
    };
    victim.kill();
    tokio::time::sleep(pause).await;
    victim.start_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_that_was_accepted_comes_to_an_outcome_whatever_is_killed() {
    let mut edge = Processes::start(2).await;
    edge.deploy("echo", guests::echo()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..CALLERS).map(|number| caller(vec![queue(&edge)], number, stop.clone())).collect();
    let (began, mut kills) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(seconds()) {
        tokio::time::sleep(Duration::from_millis(rand::random_range(100..1000))).await;
        kill_one(&mut edge).await;
        kills += 1;
    }
    stop.store(true, Ordering::Relaxed);
    account_for(&queue(&edge), callers, kills, || edge.until_ready("echo")).await;
}

/// How long processes are killed for.
pub(crate) fn seconds() -> u64 {
    std::env::var("NIGH_KILL_TEST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS)
}

/// Finds the outcome of every call that these callers had accepted, once all is up again.
#[expect(clippy::print_stdout, reason = "for whoever looks on while it runs for minutes")]
pub(crate) async fn account_for<F: Future<Output = ()>>(
    queue: &CallQueue,
    callers: Vec<JoinHandle<Vec<CallId>>>,
    kills: u32,
    until_ready: impl FnOnce() -> F,
) {
    let mut accepted = BTreeSet::new();
    for caller in callers {
        let ids = caller.await.unwrap();
        accepted.extend(ids.iter().map(|id| id.as_str().to_owned()));
    }
    until_ready().await;

    let settling = Instant::now();
    let (mut answered, mut failed) = (0, BTreeMap::new());
    for id in &accepted {
        let settled = loop {
            match queue.result(&id.parse().unwrap(), Duration::from_secs(5)).await {
                Ok(Some(settled)) => break settled,
                Ok(None) => assert!(settling.elapsed() < PATIENCE, "{id} has no outcome; {:?}", queue.counts().await),
                // A store that was away a moment ago may be found by one broker before another.
                Err(error) if error.reason.retry_helps() && settling.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("{id} was accepted and is lost: {error:?}"),
            }
        };
        match settled {
            Ok(reply) => match reply.outcome {
                Outcome::Answer { payload, .. } => {
                    assert_eq!(payload, id.as_bytes(), "the answer to {id} is another call's");
                    answered += 1;
                }
                other => panic!("{id}: {other:?}"),
            },
            Err(error) => drop(failed.insert(id.clone(), error)),
        }
    }
    // What was given up is told as such just before it stands among the dead.
    let dead = loop {
        let dead: BTreeSet<String> =
            queue.dead_letters(1000).await.unwrap().into_iter().map(|letter| letter.call.to_string()).collect();
        if dead.len() >= failed.len() || settling.elapsed() > PATIENCE {
            break dead;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    println!("{} accepted, {answered} answered, {} dead, {kills} kills", accepted.len(), dead.len());
    assert_eq!(failed.keys().cloned().collect::<BTreeSet<_>>(), dead, "{failed:?}");
    assert_eq!(answered + dead.len(), accepted.len());
    assert!(answered > 10 && kills > 2, "little was done");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asynchronous_call_by_the_command_line() {
    let edge = Processes::start(1).await;
    edge.deploy("echo", guests::echo()).await;
    let run = |arguments: &[&str]| {
        let ran = nigh().args(arguments).env("NIGH_BROKER", edge.broker.endpoint.as_str()).output().unwrap();
        let told = String::from_utf8(ran.stdout).unwrap();
        (ran.status.success(), told.trim_end().to_owned(), String::from_utf8(ran.stderr).unwrap())
    };
    let (done, id, told) = run(&["invoke", "echo", "--data", "later", "--async"]);
    assert!(done, "{told}");
    assert_eq!(run(&["result", &id, "--wait"]).1, "later");
    assert!(run(&["queue"]).1.contains("dead 0"));
    assert!(run(&["queue", "dead"]).0);
    let (done, _, told) = run(&["queue", "retry", &id]);
    assert!(!done && told.contains("no dead letter"), "{told}");
    let (done, _, told) = run(&["result", "nobody-knows"]);
    assert!(!done && told.contains("unknown-call"), "{told}");
}
