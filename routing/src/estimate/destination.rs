//! What an estimator knows of one destination of one function.

use std::time::Duration;

use super::line::Line;
use super::window::Window;
use super::{Busy, Estimator, Samples};
use crate::outcome::Report;
use crate::peer::Peer;
use crate::slot::STALE_AFTER_MAX;

/// Before anything is known, while a call is finding out: behind all that are known, in seconds.
const ASSUMED: f64 = 1.0;
/// How long one that answers without a measurement counts as slow.
const SILENT: Duration = Duration::from_secs(10);
/// Sizes of payload, by powers of two, whose time by load is kept apart; the one not seen for longest gives way.
const CLASSES_MAX: usize = 16;

/// One destination's samples.
#[derive(Debug)]
pub(crate) struct Estimates {
    estimator: Estimator,
    /// The network's time by bytes.
    rtt: Fit,
    /// The computer's time by load, for sizes of about 2^n bytes.
    by_load: Vec<Class>,
    /// The same by bytes, for sizes not seen yet.
    by_size: Fit,
    silent_until: Duration,
    /// When it last answered. What nobody has asked for long may have changed, so then
    /// it begins anew.
    answered: Option<Duration>,
}

#[derive(Debug)]
struct Class {
    log2: u32,
    seen: Duration,
    fit: Fit,
}

impl Estimates {
    pub(crate) fn new(estimator: Estimator) -> Self {
        let rtt = match estimator {
            Estimator::Rtt(samples) | Estimator::Util { rtt: samples, .. } => samples,
            Estimator::Delay(_) | Estimator::Probe { .. } => Samples::default(),
        };
        let by_size = busy(estimator).map_or_else(Samples::default, lasting);
        let (rtt, by_size) = (Fit::new(rtt), Fit::new(by_size));
        Self { estimator, rtt, by_load: Vec::new(), by_size, silent_until: Duration::ZERO, answered: None }
    }

    /// Takes in an answer to a call with so many bytes.
    pub(crate) fn learn(&mut self, bytes: f64, latency: Duration, report: &Report, now: Duration) {
        if !self.is_recent(now) {
            *self = Self::new(self.estimator);
        }
        self.answered = Some(now);
        let at_computer = report.queue + report.run;
        let on_network = latency.saturating_sub(at_computer).as_secs_f64();
        match self.estimator {
            Estimator::Rtt(_) => self.rtt.learn(bytes, on_network, now),
            Estimator::Util { busy, .. } => {
                self.rtt.learn(bytes, on_network, now);
                self.learn_by_load(busy, bytes, at_computer.as_secs_f64(), report, now);
            }
            Estimator::Delay(busy) => self.learn_by_load(busy, bytes, latency.as_secs_f64(), report, now),
            Estimator::Probe { .. } => {}
        }
    }

    fn learn_by_load(&mut self, busy: Busy, bytes: f64, seconds: f64, report: &Report, now: Duration) {
        self.by_size.learn(bytes, seconds, now);
        let log2 = class(bytes);
        let at = match self.by_load.iter().position(|class| class.log2 == log2) {
            Some(at) => at,
            None => {
                if self.by_load.len() >= CLASSES_MAX
                    && let Some((oldest, _)) = self.by_load.iter().enumerate().min_by_key(|(_, class)| class.seen)
                {
                    self.by_load.swap_remove(oldest);
                }
                self.by_load.push(Class { log2, seen: now, fit: Fit::new(lasting(busy)) });
                self.by_load.len() - 1
            }
        };
        let class = &mut self.by_load[at];
        class.seen = now;
        class.fit.learn(Peer::load_of(report), seconds, now);
    }

    fn is_recent(&self, now: Duration) -> bool {
        self.answered.is_some_and(|at| now.saturating_sub(at) < STALE_AFTER_MAX)
    }

    /// It answered in a way that says nothing of how fast it is: it must not go on looking like the fastest.
    pub(crate) fn learn_nothing(&mut self, now: Duration) {
        self.silent_until = now + SILENT;
    }

    /// Seconds until the answer to a call with so many bytes, as far as it can be told; `in_flight` of this function's calls
    /// are under way there.
    pub(crate) fn estimate(&self, bytes: f64, peer: &Peer, in_flight: u32, now: Duration) -> f64 {
        let known = match self.estimator {
            Estimator::Rtt(_) => self.rtt.at(bytes, now),
            Estimator::Util { busy, .. } => {
                let at_computer = self.at_computer(busy, bytes, peer, now);
                at_computer.map(|seconds| seconds + self.rtt.at(bytes, now).unwrap_or(0.0))
            }
            Estimator::Delay(busy) => self.at_computer(busy, bytes, peer, now),
            Estimator::Probe { .. } => Some(0.0),
        };
        match known {
            Some(seconds) if self.is_recent(now) || matches!(self.estimator, Estimator::Probe { .. }) => seconds,
            Some(_) | None if in_flight > 0 || now < self.silent_until => ASSUMED,
            Some(_) | None => 0.0,
        }
    }

    fn at_computer(&self, busy: Busy, bytes: f64, peer: &Peer, now: Duration) -> Option<f64> {
        let log2 = class(bytes);
        match self.by_load.iter().find(|class| class.log2 == log2) {
            Some(class) => class.fit.at(peer.load(busy.load_timeout, now), now),
            None => self.by_size.at(bytes, now),
        }
    }
}

fn busy(estimator: Estimator) -> Option<Busy> {
    match estimator {
        Estimator::Util { busy, .. } | Estimator::Delay(busy) => Some(busy),
        Estimator::Rtt(_) | Estimator::Probe { .. } => None,
    }
}

fn lasting(busy: Busy) -> Samples {
    Samples { window: busy.window, stale: None }
}

/// The size's place among powers of two.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a logarithm of at least 1")]
fn class(bytes: f64) -> u32 {
    bytes.max(1.0).log2() as u32
}

/// Samples, and the line through those that are fresh.
#[derive(Debug)]
struct Fit {
    window: Window<(f64, f64)>,
    /// Through all that the window held when the last one came.
    line: Line,
}

impl Fit {
    fn new(samples: Samples) -> Self {
        Self { window: Window::of(samples), line: Line::default() }
    }

    fn learn(&mut self, x: f64, y: f64, now: Duration) {
        self.window.push((x, y), now);
        self.line = Line::fit(self.window.fresh(now));
    }

    /// What the line says there, never less than nothing; none without fresh samples.
    fn at(&self, x: f64, now: Duration) -> Option<f64> {
        let line = match self.window.goes_stale() {
            // Only some of what the line was made of is left.
            Some(stale) if stale < now => {
                self.window.fresh(now).next()?;
                Line::fit(self.window.fresh(now))
            }
            Some(_) | None => self.line,
        };
        (!self.window.is_empty()).then(|| line.at(x).max(0.0))
    }
}
