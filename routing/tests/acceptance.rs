//! What brokers of old were accepted by, case by case: forwarding tables and estimators.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by panicking")]

use std::time::Duration;

use nigh_routing::estimate::{Line, Samples, Window, mean, variance};
use nigh_routing::forwarding::{ForwardingTable, Optimizer, Row, Selection, TableError, TableText};
use nigh_routing::{Demand, Member, Observation, Policy, Report, Scope, Table};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const F: &str = "lambda";

/// A table with its clock and randomness.
struct World {
    table: ForwardingTable<String, String>,
    now: Duration,
    rng: ChaCha8Rng,
}

impl World {
    fn new(selection: &str) -> Self {
        let table = ForwardingTable::new(selection.parse().unwrap());
        Self { table, now: SECOND, rng: ChaCha8Rng::seed_from_u64(1) }
    }

    fn with(selection: &str, destinations: &[(&str, f64)]) -> Self {
        let mut world = Self::new(selection);
        for (destination, weight) in destinations {
            world.change(F, destination, *weight, true).unwrap();
        }
        world
    }

    fn change(&mut self, function: &str, destination: &str, weight: f64, is_final: bool) -> Result<(), TableError> {
        self.table.change(function.to_owned(), destination.to_owned(), weight, is_final, self.now)
    }

    fn select(&mut self) -> Result<String, TableError> {
        self.table.select(F, self.now, &mut self.rng).cloned()
    }

    fn remove(&mut self, destination: &str) {
        self.table.remove(F, destination, self.now);
    }

    /// So many picks, each answered after the latency that its destination has.
    fn served(&mut self, count: usize, latency: impl Fn(&str) -> f64) -> Vec<String> {
        (0..count)
            .map(|_| {
                self.now += MS;
                let destination = self.select().unwrap();
                self.table.set_weight(F, &destination, latency(&destination), self.now).unwrap();
                destination
            })
            .collect()
    }
}

fn count(picks: &[String], destination: &str) -> f64 {
    picks.iter().filter(|pick| *pick == destination).count() as f64
}

#[test]
fn case_1_tables_of_all_types_are_made_from_conf() {
    for name in Selection::NAMES.into_iter().filter(|name| *name != "proportional-fairness") {
        assert_eq!(format!("type={name}").parse::<Selection>().unwrap().name(), name);
    }
    let fairness = "type=proportional-fairness,alpha=1,beta=2".parse::<Selection>();
    assert_eq!(fairness, Ok(Selection::ProportionalFairness { alpha: 1.0, beta: 2.0 }));
    for incomplete in ["", ",alpha=1", ",beta=1"] {
        assert!(format!("type=proportional-fairness{incomplete}").parse::<Selection>().is_err());
    }
    let error = "type=fastest".parse::<Selection>().unwrap_err().to_string();
    assert!(Selection::NAMES.iter().all(|name| error.contains(name)), "{error}");
    assert!("type=none".parse::<Optimizer>().is_ok());
}

#[test]
fn case_2_the_printed_table_has_its_exact_layout() {
    let mut world = World::new("random");
    world.change("lambda2", "dest2:666", 0.5, false).unwrap();
    world.change("lambda1", "dest2:666", 98.0, false).unwrap();
    world.change("lambda1", "dest1:666", 1.0, true).unwrap();
    world.change("a", "dest1:666", 7.0, true).unwrap();
    world.table.multiply("lambda1", "dest2:666", 0.5, world.now).unwrap();
    world.table.set_weight("a", "dest1:666", 2.0, world.now).unwrap();
    let expected = "\
a       [2]   dest1:666 (F)
lambda1 [1]   dest1:666 (F)
        [49]  dest2:666
lambda2 [0.5] dest2:666
";
    assert_eq!(world.table.text().to_string(), expected);
    for _ in 0..2 {
        world.table.remove("a", "dest1:666", world.now);
        assert_eq!(world.table.functions().collect::<Vec<_>>(), ["lambda1", "lambda2"]);
    }
    world.table.remove_function("lambda2");
    world.table.remove_function("lambda2");
    assert_eq!(world.table.text().to_string(), "lambda1 [1]  dest1:666 (F)\n        [49] dest2:666\n");
    assert_eq!(world.table.full_table()[&"lambda1".to_owned()].len(), 2);
    world.table.flush();
    assert_eq!(world.table.text().to_string(), "");
}

#[test]
fn case_3_what_is_not_possible_is_refused_by_name() {
    let mut world = World::with("random", &[("dest1", 1.0)]);
    let now = world.now;
    assert_eq!(world.table.set_weight(F, "", 1.0, now), Err(TableError::NoDestinations));
    assert_eq!(world.table.set_weight("other", "dest1", 1.0, now), Err(TableError::NoDestinations));
    assert_eq!(world.table.set_weight(F, "dest1", 0.0, now), Err(TableError::InvalidDestination));
    assert_eq!(world.table.set_weight(F, "dest1", -99.0, now), Err(TableError::InvalidWeight(-99.0)));
    assert_eq!(world.change(F, "", 1.0, true), Err(TableError::InvalidDestination));
    assert_eq!(world.change("new", "dest1", 0.0, true), Err(TableError::InvalidDestination));
    assert_eq!(world.change("new", "dest1", -99.0, true), Err(TableError::InvalidWeight(-99.0)));
    assert_eq!(world.table.functions().collect::<Vec<_>>(), [F], "a change refused leaves nothing behind");
    assert_eq!(world.table.multiply(F, "dest1", -99.0, now), Err(TableError::InvalidWeightFactor(-99.0)));
    assert_eq!(world.table.multiply(F, "dest1", 0.0, now), Err(TableError::InvalidWeightFactor(0.0)));
    assert_eq!(world.table.multiply(F, "dest2", 2.0, now), Err(TableError::NoDestinations));
    world.remove("dest1");
    assert_eq!(world.select(), Err(TableError::NoDestinations));
}

#[test]
fn case_4_random_draws_in_inverse_proportion_to_weight() {
    let mut world = World::with("random", &[("dest1", 1.0), ("dest2", 1.0 / 3.0), ("dest3", 1.0 / 6.0)]);
    let picks: Vec<_> = (0..10_000).map(|_| world.select().unwrap()).collect();
    assert_eq!((count(&picks, "dest2") / count(&picks, "dest1")).round(), 3.0);
    assert_eq!((count(&picks, "dest3") / count(&picks, "dest2")).round(), 2.0);
}

#[test]
fn case_5_least_impedance_takes_the_lightest_that_is_left() {
    let mut world = World::with("least-impedance", &[("dest1", 6.0), ("dest2", 3.0), ("dest3", 1.0)]);
    for expected in ["dest3", "dest2", "dest1"] {
        assert_eq!(world.select().unwrap(), expected);
        world.remove(expected);
    }
    let mut equals = World::with("least-impedance", &[("b", 1.0), ("a", 1.0)]);
    assert_eq!(equals.select().unwrap(), "b", "the one that came first");
}

/// Three destinations that have come to latencies of 100, 110 and 1000.
fn measured_turns() -> (World, Vec<String>) {
    let mut world = World::with("round-robin", &[("1", 1.0), ("2", 1.0), ("3", 1.0)]);
    let first = world.served(10, |destination| match destination {
        "1" => 100.0,
        "2" => 110.0,
        _ => 1000.0,
    });
    (world, first)
}

#[test]
fn case_6_round_robin_takes_turns_by_weight_in_the_active_set() {
    let (mut world, first) = measured_turns();
    assert_eq!(first.concat(), "1231212121");
    let latency = |destination: &str| match destination {
        "1" => 400.0,
        "2" => 110.0,
        _ => 1000.0,
    };
    assert_eq!(world.served(10, latency).concat(), "2122222222");
    world.remove("2");
    assert_eq!(world.served(5, latency).concat(), "11111");
    world.remove("1");
    assert_eq!(world.served(5, latency).concat(), "33333");
    world.change(F, "1", 400.0, true).unwrap();
    assert_eq!(world.served(5, latency).concat(), "11111");
}

#[test]
fn case_7_a_destination_left_out_is_tried_again_after_the_stale_period() {
    let (mut world, _) = measured_turns();
    let latency = |destination: &str| if destination == "3" { 1000.0 } else { 100.0 };
    // Left out for 1 s, then 2, 4, … 30 s: tried once each time, as it is found slow still.
    for wait in [1, 2, 4, 8, 16, 30, 30] {
        world.now += SECOND * wait - 50 * MS;
        assert_eq!(count(&world.served(10, latency), "3"), 0.0, "within {wait} s");
        world.now += 50 * MS;
        assert_eq!(count(&world.served(10, latency), "3"), 1.0, "after {wait} s");
    }
    // Found fast, it is one of them again, once the others have spent what its last turn cost.
    world.now += 30 * SECOND;
    let picks = world.served(100, |_| 100.0);
    assert!(count(&picks[40..], "3") >= 19.0, "{picks:?}");
}

#[test]
fn case_7_also_where_no_other_call_is_answered_any_more() {
    let (mut world, _) = measured_turns();
    world.now += SECOND;
    let picks: Vec<_> = (0..3).map(|_| world.select().unwrap()).collect();
    assert!(picks.contains(&"3".to_owned()), "{picks:?}");
}

#[test]
fn case_8_proportional_fairness_weighs_latency_against_service() {
    let names = ["dest1:666", "dest2:666", "dest1:667"];
    let fresh = names.map(|name| (name, 1.0));
    let mut world = World::with("proportional-fairness,alpha=2,beta=1", &fresh);
    world.now += SECOND;
    assert_eq!(world.select().unwrap(), "dest1:666");
    world.table.set_weight(F, "dest1:666", 2.0, world.now).unwrap();
    assert_eq!(world.select().unwrap(), "dest2:666");
    world.remove("dest2:666");
    assert_eq!(world.select().unwrap(), "dest1:667");
}

#[test]
fn proportional_fairness_is_round_robin_or_greedy_by_its_exponents() {
    let destinations = [("1", 1.0), ("2", 1.0), ("3", 1.0)];
    let latency = |destination: &str| destination.parse().unwrap();
    let mut fair = World::with("proportional-fairness,alpha=0,beta=1", &destinations);
    let picks = fair.served(300, latency);
    assert!(["1", "2", "3"].iter().all(|name| (count(&picks, name) - 100.0).abs() <= 5.0), "{picks:?}");
    let mut greedy = World::with("proportional-fairness,alpha=1,beta=0", &destinations);
    assert_eq!(greedy.served(5, latency).concat(), "11111");
}

#[test]
fn proportional_fairness_does_not_drown_one_that_joins_late() {
    let mut world = World::with("proportional-fairness,alpha=1,beta=1", &[("1", 1.0), ("2", 1.0)]);
    world.served(1000, |_| 10.0);
    world.change(F, "3", 10.0, true).unwrap();
    assert!(count(&world.served(300, |_| 10.0), "3") < 150.0);
}

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

fn selections() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["random", "least-impedance", "round-robin", "proportional-fairness,alpha=1,beta=1"])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is changed in whatever order: what is chosen is there, weights are what was set, and nothing is chosen from
    /// nothing.
    #[test]
    fn no_choice_dangles_and_no_weight_drifts(
        selection in selections(),
        steps in prop::collection::vec((0u8..5, 0usize..5, 0.001f64..1000.0, 0u64..3000), 1..200),
    ) {
        let mut world = World::new(selection);
        let mut weights = std::collections::BTreeMap::new();
        for (step, which, weight, wait) in steps {
            world.now += MS * u32::try_from(wait).unwrap();
            let name = format!("d{which}");
            match step {
                0 => {
                    world.change(F, &name, weight, true).unwrap();
                    weights.insert(name, weight);
                }
                1 => {
                    world.remove(&name);
                    weights.remove(&name);
                }
                2 => {
                    let done = world.table.set_weight(F, &name, weight, world.now);
                    prop_assert_eq!(done.is_ok(), weights.contains_key(&name));
                    weights.entry(name).and_modify(|have| *have = weight);
                }
                _ => match world.select() {
                    Ok(chosen) => prop_assert!(weights.contains_key(&chosen)),
                    Err(error) => {
                        prop_assert!(weights.is_empty());
                        prop_assert_eq!(error, TableError::NoDestinations);
                    }
                },
            }
            let table = world.table.full_table();
            let have: std::collections::BTreeMap<_, _> =
                table.values().flatten().map(|entry| (entry.destination.clone(), entry.weight)).collect();
            prop_assert_eq!(&have, &weights);
        }
    }

    #[test]
    fn random_frequencies_follow_any_weights(weights in prop::collection::vec(0.02f64..1.0, 2..6), seed: u64) {
        let mut world = World::new("random");
        world.rng = ChaCha8Rng::seed_from_u64(seed);
        for (at, weight) in weights.iter().enumerate() {
            world.change(F, &format!("d{at}"), *weight, true).unwrap();
        }
        let picks: Vec<_> = (0..10_000).map(|_| world.select().unwrap()).collect();
        let total: f64 = weights.iter().map(|weight| 1.0 / weight).sum();
        for (at, weight) in weights.iter().enumerate() {
            let expected = 1.0 / weight / total;
            let share = count(&picks, &format!("d{at}")) / 10_000.0;
            prop_assert!((share - expected).abs() < 5.0 * (expected * (1.0 - expected) / 10_000.0).sqrt() + 1e-4);
        }
    }

    /// Nobody whom round robin or proportional fairness has left out stays so for longer than the longest stale period.
    #[test]
    fn nobody_starves(
        selection in prop::sample::select(vec!["random", "round-robin", "proportional-fairness,alpha=1,beta=1"]),
        latencies in prop::collection::vec(1.0f64..200.0, 2..6),
    ) {
        let destinations: Vec<_> = (0..latencies.len()).map(|at| format!("{at}")).collect();
        let mut world = World::new(selection);
        for destination in &destinations {
            world.change(F, destination, 1.0, true).unwrap();
        }
        let latency = |destination: &str| latencies[destination.parse::<usize>().unwrap()];
        world.served(500, latency);
        let mut picks = Vec::new();
        for _ in 0..4000 {
            world.now += 10 * MS;
            picks.extend(world.served(1, latency));
        }
        prop_assert!(destinations.iter().all(|destination| count(&picks, destination) > 0.0));
    }
}
