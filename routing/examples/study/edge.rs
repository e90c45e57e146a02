//! The modelled edge: computers, brokers, and the events between them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use nigh_routing::{Demand, Member, Observation, Pick, Report, Scope, Strategy, Table};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};

use crate::statistics::Outcome;

const BROKERS: usize = 3;
const WORKERS: u32 = 2;
const SPEEDS: [f64; 12] = [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 4.0];
/// Payload bytes, and how often.
const SIZES: [(u64, f64); 3] = [(1_000, 0.6), (50_000, 0.3), (200_000, 0.1)];
/// Seconds that a call runs at speed 1: for whatever payload, and for each byte.
const RUN: (f64, f64) = (0.008, 3e-7);
/// Seconds between a broker and a computer, one way: at least, and on average beyond.
const NETWORK: (f64, f64) = (2e-4, 2e-4);
/// The computer that is slow for a while, from and to which part of the run, and how much.
const SLOW: (usize, f64, f64, f64) = (11, 0.3, 0.5, 8.0);
/// The computer that dies, and from and to which part of the run it is dead.
const DEAD: (usize, f64, f64) = (7, 0.6, 0.8);
/// Tries of a call: where one finds nobody, it is made again elsewhere.
const TRIES_MAX: u32 = 3;

/// One run's conditions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// The share of the edge's capacity that calls ask for.
    pub(crate) load: f64,
    pub(crate) seconds: f64,
    pub(crate) seed: u64,
}

#[derive(Debug)]
struct Call {
    broker: usize,
    bytes: u64,
    /// Seconds of run time at speed 1.
    work: f64,
    began: f64,
    sent: f64,
    tries: u32,
    pick: Option<Pick<usize>>,
}

#[derive(Debug)]
enum What {
    /// The next call arrives.
    Arrival,
    /// A call reaches its computer.
    There(Call),
    /// A computer has run a call; the life in which it began.
    Done {
        computer: usize,
        life: u32,
        call: Call,
        waited: f64,
        run: f64,
    },
    /// An answer reaches its broker.
    Answer(Call, Report),
    /// A broker notices that nobody is there.
    Broken(Call),
    Dies,
    Returns,
}

struct Event {
    at: f64,
    number: u64,
    what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.total_cmp(&other.at).then(self.number.cmp(&other.number))
    }
}

#[derive(Debug, Default)]
struct Computer {
    is_dead: bool,
    life: u32,
    running: u32,
    queue: VecDeque<(Call, f64)>,
    service: f64,
}

/// An edge in virtual time.
pub(crate) struct Edge {
    setting: Setting,
    rng: ChaCha8Rng,
    brokers: Vec<Table<&'static str, usize>>,
    computers: Vec<Computer>,
    events: BinaryHeap<Reverse<Event>>,
    numbers: u64,
    now: f64,
    rate: f64,
    latencies: Vec<f64>,
    failed: u64,
}

const F: &str = "function";

fn duration(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.max(0.0))
}

impl Edge {
    /// One run from begin to end.
    pub(crate) fn run(strategy: Strategy, setting: Setting) -> Outcome {
        let members: Vec<_> = (0..SPEEDS.len()).map(|destination| Member { destination, is_final: true }).collect();
        let broker = |_| {
            let mut table = Table::new(strategy);
            table.set_destinations(F, &members, Duration::ZERO);
            table
        };
        let mean_work: f64 = SIZES.iter().map(|(bytes, share)| share * work(*bytes)).sum();
        let capacity = f64::from(WORKERS) * SPEEDS.iter().sum::<f64>() / mean_work;
        let mut edge = Self {
            setting,
            rng: ChaCha8Rng::seed_from_u64(setting.seed),
            brokers: (0..BROKERS).map(broker).collect(),
            computers: SPEEDS.iter().map(|_| Computer::default()).collect(),
            events: BinaryHeap::new(),
            numbers: 0,
            now: 0.0,
            rate: setting.load * capacity,
            latencies: Vec::new(),
            failed: 0,
        };
        edge.after(0.0, What::Arrival);
        edge.after(DEAD.1 * setting.seconds, What::Dies);
        edge.after(DEAD.2 * setting.seconds, What::Returns);
        while let Some(Reverse(event)) = edge.events.pop() {
            edge.now = event.at;
            edge.happens(event.what);
        }
        Outcome::of(edge.latencies, edge.failed)
    }

    fn after(&mut self, seconds: f64, what: What) {
        self.numbers += 1;
        self.events.push(Reverse(Event { at: self.now + seconds, number: self.numbers, what }));
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.rng.random::<f64>()).ln()
    }

    fn network(&mut self) -> f64 {
        NETWORK.0 + self.exponential(NETWORK.1)
    }

    fn happens(&mut self, what: What) {
        match what {
            What::Arrival => self.arrival(),
            What::There(call) => self.there(call),
            What::Done { computer, life, call, waited, run } => self.done(computer, life, call, waited, run),
            What::Answer(call, report) => self.answer(call, report),
            What::Broken(call) => self.broken(call),
            What::Dies => self.dies(),
            What::Returns => self.computers[DEAD.0].is_dead = false,
        }
    }

    fn arrival(&mut self) {
        let broker = self.rng.random_range(0..BROKERS);
        let mut point: f64 = self.rng.random();
        let size = SIZES.iter().find(|(_, share)| {
            point -= share;
            point < 0.0
        });
        let bytes = size.unwrap_or(&SIZES[0]).0;
        // Half of the run time varies.
        let work = work(bytes) * (0.5 + self.exponential(0.5));
        self.send(Call { broker, bytes, work, began: self.now, sent: self.now, tries: 0, pick: None });
        let next = self.exponential(1.0 / self.rate);
        if self.now + next < self.setting.seconds {
            self.after(next, What::Arrival);
        }
    }

    fn send(&mut self, mut call: Call) {
        let before = call.pick.take();
        let exclude = before.as_ref().map(|pick| &pick.destination);
        let demand = Demand { scope: Scope::Overall, exclude, payload_bytes: call.bytes };
        let Ok(pick) = self.brokers[call.broker].pick(F, demand, duration(self.now), &mut self.rng) else {
            self.failed += 1;
            return;
        };
        call.pick = Some(pick);
        call.sent = self.now;
        call.tries += 1;
        let way = self.network();
        self.after(way, What::There(call));
    }

    fn there(&mut self, call: Call) {
        let Some(pick) = &call.pick else { return };
        let at = pick.destination;
        if self.computers[at].is_dead {
            let way = self.network();
            self.after(way, What::Broken(call));
            return;
        }
        self.computers[at].queue.push_back((call, self.now));
        self.begin(at);
    }

    fn begin(&mut self, at: usize) {
        let (slow, from, to, factor) = SLOW;
        let part = self.now / self.setting.seconds;
        let slowness = if at == slow && part >= from && part < to { factor } else { 1.0 };
        while self.computers[at].running < WORKERS {
            let Some((call, since)) = self.computers[at].queue.pop_front() else { return };
            let run = call.work / SPEEDS[at] * slowness;
            let computer = &mut self.computers[at];
            computer.running += 1;
            let life = computer.life;
            let waited = self.now - since;
            self.after(run, What::Done { computer: at, life, call, waited, run });
        }
    }

    fn done(&mut self, at: usize, life: u32, call: Call, waited: f64, run: f64) {
        let computer = &mut self.computers[at];
        if computer.life != life {
            let way = self.network();
            self.after(way, What::Broken(call));
            return;
        }
        computer.running -= 1;
        computer.service += (run - computer.service) / 32.0;
        let report = Report {
            queue: duration(waited),
            run: duration(run),
            running: computer.running,
            queued: u32::try_from(computer.queue.len()).unwrap_or(u32::MAX),
            workers: WORKERS,
            service: duration(computer.service),
            load_percent: 0,
        };
        let way = self.network();
        self.after(way, What::Answer(call, report));
        self.begin(at);
    }

    fn answer(&mut self, call: Call, report: Report) {
        let Some(pick) = &call.pick else { return };
        let latency = duration(self.now - call.sent);
        let observation = Observation::Answered { latency, report };
        self.brokers[call.broker].observe(F, pick, observation, duration(self.now));
        if call.began > 0.1 * self.setting.seconds {
            self.latencies.push(self.now - call.began);
        }
    }

    fn broken(&mut self, call: Call) {
        let Some(pick) = &call.pick else { return };
        self.brokers[call.broker].observe(F, pick, Observation::Dead, duration(self.now));
        if call.tries < TRIES_MAX {
            self.send(call);
        } else {
            self.failed += 1;
        }
    }

    fn dies(&mut self) {
        let computer = &mut self.computers[DEAD.0];
        computer.is_dead = true;
        computer.life += 1;
        computer.running = 0;
        let lost: Vec<_> = computer.queue.drain(..).collect();
        for (call, _) in lost {
            let way = self.network();
            self.after(way, What::Broken(call));
        }
    }
}

/// Seconds that a call of so many bytes runs at speed 1, on average.
#[expect(clippy::cast_precision_loss, reason = "sizes of payloads")]
fn work(bytes: u64) -> f64 {
    RUN.0 + RUN.1 * bytes as f64
}
