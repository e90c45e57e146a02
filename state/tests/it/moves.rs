//! States move from computer to computer while these are killed at any moment and answers get lost: no update that was
//! acknowledged is lost, nobody uses a state beside another, and in the end there is one of each.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use nigh_proto::{FunctionName, StateId, StateName};
use nigh_state::{Access, Keeper, Session};
use parking_lot::Mutex;
use proptest::prelude::*;

use crate::PATIENCE;
use crate::world::{Controller, Disk, Luck, Network};

const COMPUTERS: usize = 3;
/// Calls in one run of the model, and times that a computer is killed.
const CALLS: usize = 60;
const KILLS: u64 = 12;

/// What callers know.
#[derive(Debug, Default)]
struct Books {
    /// Updates that were acknowledged.
    told: u64,
    /// Updates of which nobody knows whether they took place.
    unknown: u64,
    in_use: HashSet<StateName>,
}

/// A call that uses a state; killed with its computer, it uses it no more.
struct Using(Arc<Mutex<Books>>, StateName);

impl Using {
    fn begin(books: &Arc<Mutex<Books>>, name: &StateName) -> Self {
        assert!(books.lock().in_use.insert(name.clone()), "two calls use {name} at once");
        Self(books.clone(), name.clone())
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        self.0.lock().in_use.remove(&self.1);
    }
}

/// One call that adds one to a state.
async fn add(keeper: Arc<Keeper>, name: StateName, books: Arc<Mutex<Books>>, luck: Arc<Luck>) -> bool {
    let Ok(mut session) = open(&keeper, &name).await else { return false };
    let using = Using::begin(&books, &name);
    let count = count(&session, &name);
    tokio::time::sleep(Duration::from_micros(luck.below(500))).await;
    session.put(name.as_str(), (count + 1).to_string().into()).unwrap();
    books.lock().unknown += 1;
    // From here on the next one may find it.
    drop(using);
    let is_done = session.commit().await.is_ok();
    if is_done {
        let mut books = books.lock();
        books.unknown -= 1;
        books.told += 1;
    }
    is_done
}

async fn open(keeper: &Arc<Keeper>, name: &StateName) -> Result<Session, nigh_state::StateError> {
    let function: FunctionName = "tally".parse().unwrap();
    let access = Access {
        function: &function,
        application: None,
        declared: std::slice::from_ref(name),
        carried: &[],
        bytes_max: 100,
        until: tokio::time::Instant::now() + Duration::from_secs(1),
        term: Duration::from_secs(1),
    };
    Session::open(keeper, access).await
}

/// The same, as often as a caller that is told to come again does. What was handed over is left for a moment of the real clock to
/// whoever asked for it.
async fn open_again(keeper: &Arc<Keeper>, name: &StateName) -> Result<Session, nigh_state::StateError> {
    let began = std::time::Instant::now();
    loop {
        match open(keeper, name).await {
            Err(nigh_state::StateError::InUse(_)) if began.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return opened,
        }
    }
}

fn count(session: &Session, name: &StateName) -> u64 {
    let content = session.get(name.as_str()).unwrap();
    content.map_or(0, |content| std::str::from_utf8(content).unwrap().parse().unwrap())
}

async fn run(seed: u64) {
    let luck = Luck::new(seed);
    let (controller, network) = (Controller::new(luck.clone()), Network::new(luck.clone()));
    let disks: Vec<_> = (0..COMPUTERS).map(|_| Disk::new(Some(luck.clone()))).collect();
    let name: StateName = "visits".parse().unwrap();
    let id = StateId { application: "default".parse().unwrap(), state: name.clone() };
    let books = Arc::<Mutex<Books>>::default();
    let start = |number: usize| network.start(number, &disks[number], &controller);
    let mut computers: Vec<_> = (0..COMPUTERS).map(start).collect();
    let mut calls: Vec<tokio::task::JoinSet<bool>> = (0..COMPUTERS).map(|_| tokio::task::JoinSet::new()).collect();
    let mut kills = 0;
    for _ in 0..CALLS {
        let at = usize::try_from(luck.below(COMPUTERS as u64)).unwrap();
        calls[at].spawn(add(computers[at].clone(), name.clone(), books.clone(), luck.clone()));
        tokio::time::sleep(Duration::from_micros(luck.below(3000))).await;
        if kills < KILLS && luck.below(4) == 0 {
            kills += 1;
            let at = usize::try_from(luck.below(COMPUTERS as u64)).unwrap();
            network.stop(&computers[at]);
            calls[at].shutdown().await;
            computers[at] = start(at);
        }
    }
    for calls in &mut calls {
        while calls.join_next().await.is_some() {}
    }
    luck.turn();
    for (at, computer) in computers.iter().enumerate() {
        let session = open_again(computer, &name).await;
        let session = session.unwrap_or_else(|error| panic!("computer {at}, seed {seed}: {error}"));
        let found = count(&session, &name);
        let expected = {
            let books = books.lock();
            books.told..=books.told + books.unknown
        };
        assert!(expected.contains(&found), "seed {seed}: {found} of {expected:?}");
        drop(session);
        let mut held = 0;
        for computer in &computers {
            let infos = computer.list(None).await.unwrap();
            held += infos.iter().filter(|info| info.id == id && info.is_held).count();
        }
        assert!(held <= 1, "seed {seed}: held {held} times");
        assert_eq!(controller.holder(&id).unwrap().as_str(), format!("computer-{at}"), "seed {seed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn no_acknowledged_update_is_lost_whoever_is_killed(seed: u64) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(run(seed));
    }
}
