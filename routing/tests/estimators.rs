//! What dispatchers of old were accepted by, case by case, and what their estimators do here beyond that.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by panicking")]

use std::time::Duration;

use nigh_routing::estimate::{Line, Samples, Window, mean, variance};
use nigh_routing::forwarding::{Row, TableText};
use nigh_routing::{Demand, Member, Observation, Policy, Report, Scope, Table};
use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const F: &str = "lambda";

/// A table of an estimator, with the answers that its destinations give.
struct Estimated {
    table: Table<&'static str, &'static str>,
    now: Duration,
    rng: ChaCha8Rng,
}

impl Estimated {
    fn new(policy: &str, destinations: &[&'static str]) -> Self {
        let policy: Policy = policy.parse().unwrap();
        let mut world = Self { table: Table::new(policy), now: SECOND, rng: ChaCha8Rng::seed_from_u64(1) };
        world.set(destinations);
        world
    }

    fn set(&mut self, destinations: &[&'static str]) {
        let members: Vec<_> =
            destinations.iter().map(|&destination| Member { destination, is_final: destination != "broker" }).collect();
        self.table.set_destinations(F, &members, self.now);
    }

    /// One call of so many bytes, answered after the latency in ms that is made of the network's and the computer's part.
    fn call(&mut self, payload_bytes: u64, answer: impl Fn(&str) -> (u32, Report)) -> &'static str {
        self.now += MS;
        let demand = Demand { scope: Scope::Overall, exclude: None, payload_bytes };
        let pick = self.table.pick(F, demand, self.now, &mut self.rng).unwrap();
        let (network_ms, report) = answer(pick.destination);
        let latency = MS * network_ms + report.queue + report.run;
        self.table.observe(F, &pick, Observation::Answered { latency, report }, self.now);
        pick.destination
    }

    fn text(&self, scope: Scope) -> String {
        let rows = self.table.destinations(F, scope).unwrap().map(|view| Row {
            function: F,
            destination: view.destination,
            weight: view.latency_ms.unwrap(),
            is_final: *view.destination != "broker",
        });
        TableText::new(rows).to_string()
    }
}

fn busy(run_ms: u32, load_percent: u32) -> Report {
    Report { run: MS * run_ms, load_percent, ..Report::default() }
}

#[test]
fn case_9_an_estimators_weights_are_1_and_what_it_knows_lasts_as_long_as_the_destination() {
    let mut world = Estimated::new("rtt", &["a", "b", "broker"]);
    assert_eq!(world.text(Scope::Overall), "lambda [1] a (F)\n       [1] b (F)\n       [1] broker\n");
    assert_eq!(world.text(Scope::Final), "lambda [1] a (F)\n       [1] b (F)\n");
    let network = |destination: &str| (if destination == "b" { 1 } else { 5 }, busy(1, 0));
    let mut known = 0;
    // What is the same again changes nothing; one that comes back is new, and tried once to be known.
    let changes: [(&[&str], usize); 8] = [
        (&["a", "b"], 2),
        (&["a", "b"], 0),
        (&["a", "b", "c"], 1),
        (&["b", "c"], 0),
        (&["b", "c"], 0),
        (&["a", "b", "c"], 1),
        (&["a", "b"], 0),
        (&["a", "b", "c"], 1),
    ];
    for (destinations, new) in changes {
        world.set(destinations);
        let picks: Vec<_> = (0..10).map(|_| world.call(100, network)).collect();
        assert_eq!(picks.iter().filter(|pick| **pick != "b").count() + usize::from(known == 0), new, "{picks:?}");
        known += new;
        assert!(world.table.set_latency(F, &"b", 99.0, world.now));
        assert!(world.text(Scope::Overall).lines().all(|line| line.contains("[1]")), "{}", world.text(Scope::Overall));
    }
    world.table.remove_function("unknown");
    assert!(!world.table.set_latency(F, &"unknown", 1.0, world.now));
}

fn close(line: Line, intercept: f64, slope: f64, within: f64) {
    let near = |have: f64, wanted: f64| (have - wanted).abs() <= within * wanted.abs().max(1.0);
    assert!(near(line.intercept, intercept) && near(line.slope, slope), "{line:?}");
}

#[test]
fn case_10_a_line_is_fit_through_points() {
    let fit = |points: &[(f64, f64)]| Line::fit(points.iter().copied());
    assert_eq!(fit(&[]), Line::default());
    assert_eq!(fit(&[(1.0, 1.0)]), Line { intercept: 1.0, slope: 0.0 });
    let mut points: Vec<_> = (0..100).map(|y| (-42.0, f64::from(y))).collect();
    close(fit(&points), 49.5, 0.0, 1e-9);
    points.push((-41.0, 100.0));
    close(fit(&points), 2170.5, 50.5, 1e-9);
    // The older system's figure, in single precision.
    close(fit(&points), 2170.8962, 50.509438, 1e-3);
    close(fit(&[(2.0, 0.0), (3.0, 1.0)]), -2.0, 1.0, 1e-9);
    let (x, y) = (
        [0.28533, 2.28057, 4.29102, 6.29523, 8.29327, 10.3628, 12.3393, 14.3074, 16.396, 18.444],
        [285.322, 280.516, 290.224, 294.152, 291.654, 356.357, 331.829, 298.476, 385.218, 429.69],
    );
    close(Line::fit(x.into_iter().zip(y)), 260.95938, 6.7939849, 1e-6);
}

#[test]
fn case_11_a_window_holds_the_last_few_samples_and_none_too_old() {
    let samples = |window, stale_s| Samples { window, stale: (stale_s > 0).then(|| SECOND * stale_s) };
    assert!(Window::<f64>::new(samples(0, 0)).is_err());
    let mut window = Window::new(samples(5, 0)).unwrap();
    (1..=5).for_each(|value| window.push(f64::from(value), MS));
    assert_eq!(mean(window.fresh(MS)), 3.0);
    let mut window = Window::new(samples(10, 0)).unwrap();
    let mut variance_with = |value: f64| {
        window.push(value, MS);
        variance(window.fresh(MS))
    };
    let with_nine = (0..10).map(|value| variance_with(f64::from(value))).last().unwrap();
    for (have, wanted) in [(with_nine, 8.25), (variance_with(100.0), 818.25), (variance_with(200.0), 3845.04)] {
        assert!((have - wanted).abs() < 1e-9, "{have}");
    }
    let mut aging = Window::new(samples(10, 10)).unwrap();
    (0..5u32).for_each(|second| aging.push(second, SECOND * second));
    assert_eq!(aging.fresh(SECOND * 12).collect::<Vec<_>>(), [2, 3, 4]);
    aging.push(5, SECOND * 14);
    assert_eq!(aging.fresh(SECOND * 14).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(aging.fresh(SECOND * 60).count(), 0);
}

#[test]
fn rtt_goes_where_the_network_is_quick_for_the_size_and_measures_anew_what_is_stale() {
    let mut world = Estimated::new("rtt,stale-period=1", &["far", "thin"]);
    for _ in 0..20 {
        for bytes in [1_000, 100_000u32] {
            // The far one takes 20 ms for any size, the thin one 1 ms for each 1000 bytes.
            world.now += MS * 100;
            let answer = |destination: &str| (if destination == "far" { 20 } else { bytes / 1000 }, busy(50, 0));
            world.call(bytes.into(), answer);
        }
    }
    let answer = |_: &str| (1, busy(1, 0));
    world.now += SECOND * 2;
    let picks = [world.call(1_000, answer), world.call(1_000, answer)];
    assert!(picks[0] != picks[1], "both were stale, so both are measured: {picks:?}");
}

#[test]
fn util_expects_of_a_busy_computer_what_it_took_when_busy() {
    let mut world = Estimated::new("util", &["a", "b"]);
    // Alike when idle; the busier, the slower.
    for load in [10, 90, 10, 90] {
        for (destination, load) in [("a", load), ("b", 100 - load)] {
            let demand = Demand { scope: Scope::Overall, exclude: None, payload_bytes: 1000 };
            let pick = world.table.pick_one(F, &destination, demand, world.now).unwrap();
            let (latency, report) = (MS * (11 + load), busy(10 + load, load));
            world.table.observe(F, &pick, Observation::Answered { latency, report }, world.now);
        }
    }
    let answer = |destination: &str| (1, if destination == "a" { busy(90, 80) } else { busy(40, 30) });
    let picks: Vec<_> = (0..20).map(|_| world.call(1000, answer)).collect();
    assert!(picks.iter().all(|pick| *pick == "b"), "{picks:?}");
    // What it told is too old to be believed: it counts as idle and is tried again.
    world.now += SECOND * 11;
    assert_eq!(world.call(1000, answer), "a");
}

#[test]
fn delay_counts_the_whole_time_and_knows_sizes_that_it_has_not_seen() {
    let mut world = Estimated::new("delay", &["a", "b"]);
    for bytes in [1_000, 1_000_000u32] {
        for _ in 0..3 {
            let ms = bytes / 10_000;
            world.call(bytes.into(), |destination| (if destination == "a" { 1 + ms } else { 20 }, busy(1, 0)));
        }
    }
    let answer = |_: &str| (20, busy(1, 0));
    assert_eq!(world.call(1_000, answer), "a");
    assert_eq!(world.call(1_000_000, answer), "b");
    assert_eq!(world.call(800_000, answer), "b", "of the size between, the line through the others tells");
}

#[test]
fn one_that_answers_but_is_never_measured_does_not_draw_all_calls() {
    for policy in ["rtt", "util", "delay"] {
        let mut world = Estimated::new(policy, &["broken", "good"]);
        let mut picks = Vec::new();
        for _ in 0..50 {
            world.now += MS;
            let demand = Demand { scope: Scope::Overall, exclude: None, payload_bytes: 10 };
            let pick = world.table.pick(F, demand, world.now, &mut world.rng).unwrap();
            let observation = match pick.destination {
                "broken" => Observation::Unmeasured,
                _ => Observation::Answered { latency: MS * 5, report: busy(2, 0) },
            };
            world.table.observe(F, &pick, observation, world.now);
            picks.push(pick.destination);
        }
        assert!(picks.iter().filter(|pick| **pick == "broken").count() <= 2, "{policy}: {picks:?}");
    }
}

#[test]
fn one_call_at_a_time_finds_out_about_a_newcomer() {
    let mut world = Estimated::new("rtt", &["a"]);
    world.call(100, |_| (1, busy(1, 0)));
    world.set(&["a", "b"]);
    let demand = Demand { scope: Scope::Overall, exclude: None, payload_bytes: 100 };
    let picks: Vec<_> =
        (0..10).map(|_| world.table.pick(F, demand, world.now, &mut world.rng).unwrap().destination).collect();
    assert_eq!(picks.iter().filter(|pick| **pick == "b").count(), 1, "{picks:?}");
}

#[test]
fn what_one_functions_calls_tell_of_a_computer_serves_all_functions() {
    let mut world = Estimated::new("predict", &["a", "b"]);
    let members = ["a", "b"].map(|destination| Member { destination, is_final: true });
    world.table.set_destinations("other", &members, world.now);
    let loaded = |destination: &str, queued| Report {
        run: MS * 10,
        running: 2,
        queued: if destination == "a" { queued } else { 0 },
        workers: 2,
        service: MS * 10,
        ..Report::default()
    };
    for _ in 0..20 {
        world.call(100, |destination| (1, loaded(destination, 0)));
    }
    let demand = Demand { scope: Scope::Overall, exclude: None, payload_bytes: 100 };
    for destination in ["a", "b"].repeat(3) {
        let pick = world.table.pick_one("other", &destination, demand, world.now).unwrap();
        let observation = Observation::Answered { latency: MS * 11, report: loaded(destination, 50) };
        world.table.observe("other", &pick, observation, world.now);
    }
    assert_eq!(world.table.cheapest(F, demand, world.now), Ok("b"), "the other function was told of a long queue");
}
