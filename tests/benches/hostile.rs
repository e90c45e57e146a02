//! What a function's callers notice of the others on its computer: of long calls on every core, and of functions that mean
//! harm (`nigh_tests::hostile`), in one process. Rounds are interleaved, figures are medians of rounds.
//!
//! Beside work that is merely heavy, a neighbour is owed its fair share of the cores and no more; so harm is measured against
//! the same number of callers of a function that only computes, in calls so long that they are as many, within the same seconds.
//!
//! `cargo bench -p nigh-tests --bench hostile [-- --rounds 5 --seconds 1 --only harm|harmless|scheduling --beside fills,wakes]`
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its table, and how far it has got")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shares and counts of a bench are small")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nigh_proto::ingress::Handler as _;
use nigh_proto::{Call, Deployment, Digest, Kind, Limits, Outcome, Reply, Timing};
use nigh_runtime::{Computer, Config};
use nigh_tests::bench::{argument, median};
use nigh_tests::hostile;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Time that each call has.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the neighbour computes in each call.
const BRIEF: Duration = Duration::from_millis(1);
/// What a long call computes.
const LONG: Duration = Duration::from_secs(2);
/// Time between the neighbour's calls beside long ones, and beside harm, where more of them make its p99 steadier.
const PAUSE: Duration = Duration::from_millis(1);
const PAUSE_BESIDE_HARM: Duration = Duration::from_micros(300);
/// Calls of a hostile function at once.
const AT_ONCE: usize = 8;
/// Functions that only compute, by how long each call does.
const HARMLESS: [(&str, Duration); 8] = [
    ("computes-20us", Duration::from_micros(20)),
    ("computes-100us", Duration::from_micros(100)),
    ("computes-200us", Duration::from_micros(200)),
    ("computes-300us", Duration::from_micros(300)),
    ("computes-400us", Duration::from_micros(400)),
    ("computes-800us", Duration::from_micros(800)),
    ("computes-2ms", Duration::from_millis(2)),
    ("computes-200ms", Duration::from_millis(200)),
];

/// How short and how long harmless calls may be that are to be as many as those of a function that means harm.
const SHORTEST_TWIN: Duration = Duration::from_micros(2);
const LONGEST_TWIN: Duration = Duration::from_millis(200);

struct Bench {
    computer: Arc<Computer>,
    /// Rounds of `hostile::works` in a millisecond.
    per_ms: f64,
    time: Duration,
    rounds: usize,
}

/// A well-behaved function's only caller.
#[derive(Clone)]
struct Neighbour {
    payload: Bytes,
    /// Time between its calls.
    pause: Duration,
}

#[derive(Clone, Copy)]
struct Figures {
    p50_ms: f64,
    p99_ms: f64,
    /// What that call waited at the computer, and ran.
    p99_queue_ms: f64,
    p99_run_ms: f64,
    /// Calls of the others that ended meanwhile, each second.
    others_per_s: f64,
}

impl Bench {
    async fn deploy(&self, name: &str, module: Bytes, limits: Limits) {
        let (digest, len) = (Digest::of(&module), module.len() as u64);
        let name = name.parse().expect("a name");
        let deployment = Deployment::new(name, digest, len, Kind::Native, limits, Vec::new());
        self.computer.deploy(deployment, module).await.expect("it deploys");
    }

    fn rounds_of(&self, time: Duration) -> Bytes {
        let rounds = (time.as_secs_f64() * 1e3 * self.per_ms) as u32;
        Bytes::copy_from_slice(&rounds.to_le_bytes())
    }

    fn beside_harm(&self) -> Neighbour {
        Neighbour { payload: self.rounds_of(BRIEF / 10), pause: PAUSE_BESIDE_HARM }
    }

    async fn call(&self, name: &str, payload: Bytes) -> Reply {
        let call = Call::new(name.parse().expect("a name"), payload, PATIENCE);
        self.computer.handle(call, Instant::now()).await.expect("the platform does its part")
    }

    /// Keeps so many calls of a function going until told to stop; counts those that have ended.
    fn keep_going(self: &Arc<Self>, name: &'static str, payload: &Bytes, calls: usize) -> Others {
        let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let one = |_| {
            let (bench, payload, stop, ended) = (self.clone(), payload.clone(), stop.clone(), ended.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    bench.call(name, payload.clone()).await;
                    ended.fetch_add(1, Ordering::Relaxed);
                    // A call that was over at once has not let go of the thread, as callers from elsewhere do.
                    tokio::task::yield_now().await;
                }
            })
        };
        Others { tasks: (0..calls).map(one).collect(), stop, ended }
    }

    /// The neighbour's calls for the time of a round, while the others go on. They come from a thread of their own, as from
    /// elsewhere: a call's time begins when it is there, not when one of the computer's threads gets to it.
    async fn neighbour(self: &Arc<Self>, neighbour: &Neighbour, ended: &AtomicU64) -> Figures {
        let (before, began) = (ended.load(Ordering::Relaxed), Instant::now());
        let (bench, runtime, Neighbour { payload, pause }) = (self.clone(), Handle::current(), neighbour.clone());
        let calls = move || {
            let mut latencies = Vec::new();
            while began.elapsed() < bench.time {
                let (sent, calling, payload) = (Instant::now(), bench.clone(), payload.clone());
                let (done, answered) = std::sync::mpsc::sync_channel(1);
                runtime.spawn(async move {
                    let reply = calling.call("works", payload).await;
                    done.send((reply, Instant::now())).expect("it is waited for");
                });
                let (reply, at) = answered.recv().expect("it is answered");
                assert!(matches!(reply.outcome, Outcome::Answer { .. }));
                latencies.push((at - sent, reply.timing));
                std::thread::sleep(pause);
            }
            latencies
        };
        let mut latencies = tokio::task::spawn_blocking(calls).await.expect("the neighbour does not panic");
        let others = (ended.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
        latencies.sort_unstable_by_key(|(latency, _)| *latency);
        let at = |share: f64| &latencies[((latencies.len() - 1) as f64 * share) as usize];
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let (p99, Timing { queue, run, .. }) = at(0.99);
        Figures {
            p50_ms: ms(at(0.5).0),
            p99_ms: ms(*p99),
            p99_queue_ms: ms(*queue),
            p99_run_ms: ms(*run),
            others_per_s: others,
        }
    }

    /// One round of the neighbour beside so many calls of others.
    async fn round(self: &Arc<Self>, neighbour: &Neighbour, others: Option<(&'static str, Bytes, usize)>) -> Figures {
        let Some((name, with, calls)) = others else {
            return self.neighbour(neighbour, &AtomicU64::new(0)).await;
        };
        let others = self.keep_going(name, &with, calls);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let figures = self.neighbour(neighbour, &others.ended).await;
        others.end().await;
        figures
    }
}

struct Others {
    tasks: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicU64>,
}

impl Others {
    /// Cuts off what still runs.
    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn medians(rounds: &[Figures]) -> Figures {
    let of = |pick: fn(&Figures) -> f64| median(rounds.iter().map(pick));
    Figures {
        p50_ms: of(|f| f.p50_ms),
        p99_ms: of(|f| f.p99_ms),
        p99_queue_ms: of(|f| f.p99_queue_ms),
        p99_run_ms: of(|f| f.p99_run_ms),
        others_per_s: of(|f| f.others_per_s),
    }
}

/// Bytes that this process holds.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// How many rounds of work a millisecond is, the best of several tries.
async fn calibrate(bench: &mut Bench) {
    for _ in 0..20 {
        let began = Instant::now();
        bench.call("works", Bytes::copy_from_slice(&1_000_000u32.to_le_bytes())).await;
        bench.per_ms = bench.per_ms.max(1e6 / (began.elapsed().as_secs_f64() * 1e3));
    }
}

/// The neighbour alone and beside long calls.
async fn scheduling(bench: &Arc<Bench>) {
    let neighbour = Neighbour { payload: bench.rounds_of(BRIEF), pause: PAUSE };
    let long = bench.rounds_of(LONG);
    let cases = [0, 1, 2, 4, 16];
    let mut figures = vec![Vec::new(); cases.len()];
    for round in 0..=bench.rounds {
        for (&calls, figures) in cases.iter().zip(&mut figures) {
            let others = (calls > 0).then(|| ("long", long.clone(), calls));
            let one = bench.round(&neighbour, others).await;
            if round > 0 {
                // The first round warms up.
                figures.push(one);
            }
        }
    }
    println!("\n1 ms calls beside so many calls of 2 s, medians of {} rounds of {:?}", bench.rounds, bench.time);
    println!("| long calls | p50 ms | p99 ms | p99 / alone | long calls ended/s |\n|---|---|---|---|---|");
    let alone = medians(&figures[0]).p99_ms;
    for (calls, rounds) in cases.iter().zip(&figures) {
        let Figures { p50_ms, p99_ms, others_per_s, .. } = medians(rounds);
        println!("| {calls} | {p50_ms:.2} | {p99_ms:.2} | {:.2} | {others_per_s:.2} |", p99_ms / alone);
    }
}

/// A long call alone and beside a flood of brief ones.
async fn fairness(bench: &Arc<Bench>) {
    let (brief, long) = (bench.rounds_of(BRIEF), bench.rounds_of(LONG / 10));
    let mut seconds = [Vec::new(), Vec::new()];
    for _ in 0..bench.rounds {
        for (flooded, seconds) in [false, true].into_iter().zip(&mut seconds) {
            let flood = flooded.then(|| bench.keep_going("works", &brief, 32));
            tokio::time::sleep(Duration::from_millis(100)).await;
            let began = Instant::now();
            bench.call("long", long.clone()).await;
            seconds.push(began.elapsed().as_secs_f64());
            if let Some(flood) = flood {
                flood.end().await;
            }
        }
    }
    let [alone, flooded] = seconds.map(median);
    println!(
        "\na call of {:?} beside 32 callers of 1 ms calls: {flooded:.2} s, alone {alone:.2} s: {:.2}",
        LONG / 10,
        flooded / alone
    );
}

/// The neighbour alone, and beside functions that only compute, in calls of several lengths.
async fn harmless(bench: &Arc<Bench>) {
    let neighbour = bench.beside_harm();
    let mut others = vec![None];
    others.extend(HARMLESS.map(|(name, time)| Some((name, bench.rounds_of(time), AT_ONCE))));
    let mut figures = vec![Vec::new(); others.len()];
    for round in 0..=bench.rounds {
        for (others, figures) in others.iter().zip(&mut figures) {
            let one = bench.round(&neighbour, others.clone()).await;
            if round > 0 {
                // The first round warms up.
                figures.push(one);
            }
        }
    }
    println!(
        "\n0.1 ms calls beside {AT_ONCE} callers of harmless work, medians of {} rounds of {:?}",
        bench.rounds, bench.time
    );
    println!("| beside | p50 ms | p99 ms | their calls/s |\n|---|---|---|---|");
    for (others, rounds) in others.iter().zip(&figures) {
        let Figures { p50_ms, p99_ms, others_per_s, .. } = medians(rounds);
        let name = others.as_ref().map_or("nobody", |(name, ..)| name);
        println!("| {name} | {p50_ms:.2} | {p99_ms:.2} | {others_per_s:.0} |");
    }
}

/// A function that means harm, and what it is held against: a function that only computes, in calls so long that it makes
/// about as many.
struct Case {
    name: &'static str,
    twin: &'static str,
    /// How long each call of the twin computes.
    time: Duration,
    rounds: Vec<CaseRound>,
}

/// What the neighbour noticed within a few seconds.
#[derive(Clone, Copy)]
struct CaseRound {
    alone: Figures,
    twin: Figures,
    harm: Figures,
}

impl CaseRound {
    /// The p99 beside harm in that of a fair share of the cores: that beside as many harmless calls, or alone where that is
    /// more.
    fn ratio(&self) -> f64 {
        self.harm.p99_ms / self.twin.p99_ms.max(self.alone.p99_ms)
    }
}

impl Case {
    fn new(name: &'static str) -> Self {
        let twin = Box::leak(format!("twin-of-{name}").into_boxed_str());
        Self { name, twin, time: LONGEST_TWIN, rounds: Vec::new() }
    }

    async fn round(&mut self, bench: &Arc<Bench>, round: usize) {
        let began = Instant::now();
        let neighbour = bench.beside_harm();
        let harm = || bench.round(&neighbour, Some((self.name, Bytes::new(), AT_ONCE)));
        if round == 0 {
            // How long its calls take, or would if they shared the cores.
            let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
            self.time = Duration::from_secs_f64(cores / harm().await.others_per_s.max(1.0)).min(LONGEST_TWIN);
        }
        let twin = || bench.round(&neighbour, Some((self.twin, bench.rounds_of(self.time), AT_ONCE)));
        let alone = bench.round(&neighbour, None).await;
        // In turn, so that neither always comes after the other.
        let (harm, twin) = if round.is_multiple_of(2) {
            let harm = harm().await;
            (harm, twin().await)
        } else {
            let twin = twin().await;
            (harm().await, twin)
        };
        let one = CaseRound { alone, twin, harm };
        eprintln!(
            "round {round} of {}, {}: alone {:.2}, beside {} harmless calls/s of {:?} {:.2}, beside {} of harm {:.2} ms ({:.2} in the queue, {:.2} running): {:.2}; {:.1} s",
            bench.rounds,
            self.name,
            alone.p99_ms,
            twin.others_per_s as u64,
            self.time,
            twin.p99_ms,
            harm.others_per_s as u64,
            harm.p99_ms,
            harm.p99_queue_ms,
            harm.p99_run_ms,
            one.ratio(),
            began.elapsed().as_secs_f64()
        );
        if round > 0 {
            self.rounds.push(one);
        }
        let more = (twin.others_per_s.max(1.0) / harm.others_per_s.max(1.0)).clamp(0.5, 2.0);
        self.time = self.time.mul_f64(more).clamp(SHORTEST_TWIN, LONGEST_TWIN);
    }

    fn print(&self) {
        let of = |pick: fn(&CaseRound) -> Figures| medians(&self.rounds.iter().map(pick).collect::<Vec<_>>());
        let (alone, twin, harm) = (of(|round| round.alone), of(|round| round.twin), of(|round| round.harm));
        let ratios = || self.rounds.iter().map(CaseRound::ratio);
        let (least, most) =
            ratios().fold((f64::MAX, 0.0f64), |(least, most), ratio| (least.min(ratio), most.max(ratio)));
        println!(
            "| {} | {:.2} | {:.2} | {:.0} | {:.2} | {:.0} | {:.2} | {:.2} | {least:.2} to {most:.2} |",
            self.name,
            harm.p50_ms,
            harm.p99_ms,
            harm.others_per_s,
            twin.p99_ms,
            twin.others_per_s,
            alone.p99_ms,
            median(ratios())
        );
    }
}

/// The neighbour beside each function that means harm, and within the same seconds alone and beside as many harmless calls.
async fn harm(bench: &Arc<Bench>, beside: Option<String>) {
    let wanted = |name: &str| beside.as_deref().is_none_or(|beside| beside.split(',').any(|one| one == name));
    let mut cases: Vec<_> =
        hostile::all().into_iter().map(|one| one.name).filter(|name| wanted(name)).map(Case::new).collect();
    for case in &cases {
        bench.deploy(case.twin, hostile::works(), patient()).await;
    }
    let mut level = 0.0;
    for round in 0..=bench.rounds {
        for case in &mut cases {
            case.round(bench, round).await;
        }
        if round == 0 {
            level = resident_mib();
        }
    }
    println!(
        "\n0.1 ms calls beside {AT_ONCE} callers, medians of {} rounds of {:?}; p99 beside harm in that beside as many harmless calls, or alone where that is more",
        bench.rounds, bench.time
    );
    println!(
        "| beside | p50 ms | p99 ms | their calls/s | harmless: p99 ms | their calls/s | alone: p99 ms | ratio | of single rounds |\n|---|---|---|---|---|---|---|---|---|"
    );
    cases.iter().for_each(Case::print);
    println!("memory held: {level:.0} MiB after the first round, {:.0} MiB after the last", resident_mib());
}

/// Limits of functions that mean no harm.
fn patient() -> Limits {
    Limits { timeout: PATIENCE, concurrency: 64, memory_bytes: 16 << 20, ..Limits::default() }
}

async fn run() {
    let computer = Computer::new(Config::new("computer-1".parse().expect("a name"))).expect("a computer");
    let (rounds, seconds) = (argument("--rounds", 5), argument("--seconds", 1.0));
    let mut bench = Bench { computer, per_ms: 0.0, time: Duration::from_secs_f64(seconds), rounds };
    bench.deploy("works", hostile::works(), patient()).await;
    // The same work under another name: functions, not modules, are what is learnt of.
    bench.deploy("long", hostile::works(), patient()).await;
    for (name, _) in HARMLESS {
        bench.deploy(name, hostile::works(), patient()).await;
    }
    for one in hostile::all() {
        bench.deploy(one.name, one.module, hostile::limits()).await;
    }
    calibrate(&mut bench).await;
    let bench = Arc::new(bench);
    let word = |name: &str| std::env::args().skip_while(|argument| argument != name).nth(1);
    let only = word("--only");
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    if wanted("scheduling") {
        scheduling(&bench).await;
        fairness(&bench).await;
    }
    if wanted("harmless") {
        harmless(&bench).await;
    }
    if wanted("harm") {
        harm(&bench, word("--beside")).await;
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    // A neighbour that is to be served needs its caller awake: spawned, not blocked on.
    let runtime = runtime.expect("a runtime");
    let run = runtime.spawn(run());
    runtime.block_on(run).expect("the bench does not panic");
}
