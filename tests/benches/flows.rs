//! What a flow costs beyond its functions: five echoes in a chain, on one computer and step by step, against single calls in
//! the same run. Rounds are interleaved, figures are medians over all calls.
//!
//! `cargo bench -p nigh-tests --bench flows [-- --rounds 5 --calls 2000]`
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::time::{Duration, Instant};

use nigh_flow::{Definition, Finished, Input, Segment};
use nigh_proto::{Call, Flow, Reply};
use nigh_tests::bench::argument;
use nigh_tests::edge::Edge;
use nigh_tests::guests;

const STEPS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(10);

struct Measured {
    name: &'static str,
    /// What the caller waited.
    whole: Vec<Duration>,
    /// The same without what was spent in the functions.
    around: Vec<Duration>,
}

impl Measured {
    fn new(name: &'static str) -> Self {
        Self { name, whole: Vec::new(), around: Vec::new() }
    }

    fn note(&mut self, whole: Duration, in_functions: Duration) {
        self.whole.push(whole);
        self.around.push(whole.saturating_sub(in_functions));
    }

    fn row(&mut self) {
        let [whole, around] = [&mut self.whole, &mut self.around].map(|times| {
            times.sort_unstable();
            times[times.len() / 2].as_secs_f64() * 1e6
        });
        let p99 = self.whole[self.whole.len() * 99 / 100].as_secs_f64() * 1e6;
        println!("| {} | {whole:.0} µs | {p99:.0} µs | {around:.0} µs |", self.name);
    }
}

fn call(flow: Option<&Flow>) -> Call {
    let mut call = Call::new("echo".parse().expect("a name"), vec![7; 64], PATIENCE);
    call.flow = flow.cloned();
    call
}

fn in_functions(reply: &Reply) -> Duration {
    if reply.steps.is_empty() { reply.timing.run } else { reply.steps.iter().map(|ran| ran.timing.run).sum() }
}

async fn once(edge: &Edge, flow: Option<&Flow>, measured: &mut Measured) {
    let began = Instant::now();
    let reply = edge.caller.invoke(call(flow)).await.expect("a reply");
    measured.note(began.elapsed(), in_functions(&reply));
}

/// A call for each step.
async fn step_by_step(edge: &Edge, flow: &Flow, measured: &mut Measured) {
    let Call { payload, headers, .. } = call(None);
    let began = Instant::now();
    let step = |segment: Segment| {
        let Input { payload, headers } = segment.input;
        edge.caller.invoke(Call { payload, headers, ..call(None) })
    };
    let ended = nigh_flow::run(flow, Input { payload, headers }, 1 << 20, step).await;
    let Finished { steps, .. } = ended.unwrap_or_else(|failure| panic!("{failure:?}"));
    measured.note(began.elapsed(), steps.iter().map(|ran| ran.timing.run).sum());
}

async fn measure(rounds: usize, calls: usize) {
    let edge = Edge::start(1).await;
    edge.deploy("echo", guests::built("echo")).await;
    let chain = format!("chain = [{}]", ["'echo'"; STEPS].join(", "));
    let flow = Definition::from_toml(&chain).expect("a flow").flow;
    let mut one = Measured::new("one call");
    let mut here = Measured::new("five in a chain, driven by the broker, on one computer");
    let mut apart = Measured::new("five in a chain, a call for each");
    for _ in 0..calls {
        once(&edge, None, &mut Measured::new("")).await;
    }
    for _ in 0..rounds {
        for _ in 0..calls {
            once(&edge, None, &mut one).await;
            once(&edge, Some(&flow), &mut here).await;
            step_by_step(&edge, &flow, &mut apart).await;
        }
    }
    println!("| {STEPS} echoes of 64 bytes, one caller | p50 | p99 | p50 without the functions |\n|---|---|---|---|");
    for measured in [&mut one, &mut here, &mut apart] {
        measured.row();
    }
    edge.stop().await;
}

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(measure(argument("--rounds", 5), argument("--calls", 1000)));
}
