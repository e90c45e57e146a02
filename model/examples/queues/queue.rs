//! A queue whose behaviour is known by formula, run through the model.

use std::time::Duration;

use nigh_model::{
    Container, Demand, Formulas, Hardware, Linear, Model, Operation, Output, Processor, ProcessorKind, Requirement,
};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};

/// Mean time that an operation takes on a core of its own.
pub(crate) const SERVICE: Duration = Duration::from_millis(1);
/// Operations per second of a core.
const SPEED: f64 = 1e9;

/// A queue with Poisson arrivals.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queue {
    /// What it is called.
    pub name: &'static str,
    /// How long operations take.
    pub service: Service,
    /// Cores.
    pub cores: u32,
    /// All that are there run at once; otherwise as many as there are cores, and the others wait in order.
    pub is_shared: bool,
}

/// How long operations take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// Exponentially distributed.
    Exponential,
    /// All the same.
    Constant,
}

/// What is checked: queues in order of arrival and queues that share, with one core and with several.
pub(crate) const QUEUES: [Queue; 6] = [
    Queue { name: "M/M/1", service: Service::Exponential, cores: 1, is_shared: false },
    Queue { name: "M/D/1", service: Service::Constant, cores: 1, is_shared: false },
    Queue { name: "M/M/4", service: Service::Exponential, cores: 4, is_shared: false },
    Queue { name: "M/M/1 PS", service: Service::Exponential, cores: 1, is_shared: true },
    Queue { name: "M/D/1 PS", service: Service::Constant, cores: 1, is_shared: true },
    Queue { name: "M/M/4 PS", service: Service::Exponential, cores: 4, is_shared: true },
];

/// A mean over independent runs, and half the width of its confidence interval of 99 %.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// The mean.
    pub mean: f64,
    /// What to add and subtract.
    pub half_width: f64,
}

/// What a queue does at some load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// Milliseconds from arrival to end.
    pub sojourn: Measured,
    /// Share of the cores that was busy.
    pub busy: Measured,
}

impl Queue {
    /// Mean milliseconds from arrival to end, by formula.
    pub(crate) fn expected(&self, load: f64) -> f64 {
        let (service, cores) = (SERVICE.as_secs_f64() * 1e3, f64::from(self.cores));
        let wait = match (self.service, self.is_shared) {
            // Pollaczek and Khinchine: half of what exponential times give.
            (Service::Constant, false) => load / (2.0 * (1.0 - load)) * service,
            // Of a queue that shares, the mean does not depend on how service times are distributed.
            (Service::Exponential, _) | (Service::Constant, true) => {
                erlang_c(self.cores, load * cores) / (cores * (1.0 - load)) * service
            }
        };
        wait + service
    }

    /// Runs it so often, each time for so many operations after as many that do not count.
    pub(crate) fn measure(&self, load: f64, runs: u64, operations: usize) -> Found {
        let runs: Vec<(f64, f64)> = (0..runs).map(|seed| self.run(load, seed, operations)).collect();
        let of = |pick: fn(&(f64, f64)) -> f64| Measured::of(&runs.iter().map(pick).collect::<Vec<_>>());
        Found { sojourn: of(|run| run.0), busy: of(|run| run.1) }
    }

    /// The mean sojourn in milliseconds, and the share of the cores that was busy.
    fn run(&self, load: f64, seed: u64, operations: usize) -> (f64, f64) {
        let mut model = Model::new(self.hardware()).expect("the hardware makes sense");
        let (container, _) = model.containers().next().expect("a container");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let gap = SERVICE.as_secs_f64() / (load * f64::from(self.cores));
        let (mut now, mut done) = (Duration::ZERO, Vec::with_capacity(2 * operations));
        let mut work = Vec::with_capacity(2 * operations);
        for _ in 0..2 * operations {
            now += Duration::from_secs_f64(gap * exponential(&mut rng));
            let factor = if self.service == Service::Constant { 1.0 } else { exponential(&mut rng) };
            let ops = whole(SERVICE.as_secs_f64() * SPEED * factor);
            work.push(ops);
            let operation = Operation { container, demand: Demand { ops, memory_bytes: 0 } };
            model.submit(operation, now).expect("there is room");
            done.extend(model.advance(now));
        }
        while let Some(at) = model.next_event() {
            done.extend(model.advance(at));
        }
        // Of those that arrived in the second half, whenever they ended.
        let mut counted: Vec<_> = done.into_iter().filter(|done| done.id.number() >= operations as u64).collect();
        counted.sort_by_key(|done| done.id);
        let sojourns = counted.iter().map(|done| (done.finished - done.submitted).as_secs_f64());
        let span = (now - counted[0].submitted).as_secs_f64();
        let asked: u64 = work[operations..].iter().sum();
        let busy = asked as f64 / SPEED / f64::from(self.cores) / span;
        (sojourns.sum::<f64>() / counted.len() as f64 * 1e3, busy)
    }

    fn hardware(&self) -> Hardware {
        let processor = Processor {
            name: "cpu".to_owned(),
            kind: ProcessorKind::GenericCpu,
            speed: SPEED,
            cores: self.cores,
            memory_bytes: 1,
        };
        let nothing = Linear { coefficient: 0.0, offset: 0.0 };
        let container = Container {
            name: "queue".to_owned(),
            processor: "cpu".to_owned(),
            workers: if self.is_shared { 1 << 20 } else { self.cores },
            queue: u32::MAX,
            function: "serve".to_owned(),
            requirement: Requirement::Proportional { ops: nothing, memory: nothing },
            output: Output::CopyInput,
        };
        Hardware { processors: vec![processor], containers: vec![container], formulas: Formulas::Exact }
    }
}

impl Measured {
    fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
        Self { mean, half_width: student(values.len() - 1) * (variance / count).sqrt() }
    }

    /// Whether the interval holds this value.
    pub(crate) fn holds(&self, value: f64) -> bool {
        (self.mean - value).abs() <= self.half_width
    }
}

/// What of Student's distribution with so many degrees of freedom is above with one half per cent: by the expansion of
/// Cornish and Fisher.
fn student(degrees: usize) -> f64 {
    let (z, n) = (2.575_829_f64, degrees as f64);
    z + (z.powi(3) + z) / (4.0 * n) + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n)
}

/// The probability that one that arrives has to wait, of so many cores at such an offered load.
fn erlang_c(cores: u32, offered: f64) -> f64 {
    let blocked = (1..=cores).fold(1.0, |blocked, n| offered * blocked / (f64::from(n) + offered * blocked));
    let load = offered / f64::from(cores);
    blocked / (1.0 - load * (1.0 - blocked))
}

fn exponential(rng: &mut ChaCha8Rng) -> f64 {
    -(1.0 - rng.random::<f64>()).ln()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and far below 2^53")]
fn whole(ops: f64) -> u64 {
    ops.round() as u64
}
