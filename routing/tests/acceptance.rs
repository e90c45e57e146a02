//! What brokers of old were accepted by, case by case: forwarding tables. Estimators are in `estimators.rs`.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by panicking")]

use std::time::Duration;

use nigh_routing::forwarding::{ForwardingTable, Optimizer, Selection, TableError};
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
