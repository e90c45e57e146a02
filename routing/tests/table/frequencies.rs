//! How often each destination is chosen.

use nigh_routing::{CHOICES_PER_MEASUREMENT, STALE_AFTER_MAX};
use proptest::prelude::*;

use super::*;

#[test]
fn random_follows_the_inverse_of_latencies() {
    let mut world = World::new(RANDOM, &[1, 2, 3], 1);
    let latency = |destination: u32| 60 * MS / destination;
    let picks = world.calls(30_003, Duration::ZERO, latency);
    let share = |destination| f64::from(tally(&picks[3..])[&destination]) / 30_000.0;
    for (destination, expected) in [(1, 1.0 / 6.0), (2, 2.0 / 6.0), (3, 3.0 / 6.0)] {
        assert!((share(destination) - expected).abs() < 0.01, "{destination}: {}", share(destination));
    }
}

#[test]
fn round_robin_takes_turns_by_latency_among_the_fast() {
    let mut world = World::new(ROUND_ROBIN, &[1, 2, 3], 1);
    let latency = |destination: u32| [100, 110, 1000][destination as usize - 1] * MS;
    assert_eq!(world.calls(10, Duration::ZERO, latency), [1, 2, 3, 1, 2, 1, 2, 1, 2, 1]);
    world.table.set_latency(F, &1, 400.0, world.now);
    assert_eq!(world.calls(5, Duration::ZERO, latency), [2; 5]);
    world.set(F, &[1, 3]);
    assert_eq!(world.calls(3, Duration::ZERO, |_| 400 * MS), [1; 3]);
    world.set(F, &[3]);
    assert_eq!(world.calls(3, Duration::ZERO, latency), [3; 3]);
}

#[test]
fn least_latency_tries_each_once_and_then_takes_the_fastest() {
    let mut world = World::new(Policy::LeastLatency, &[6, 3, 1], 1);
    let latency = |destination: u32| destination * MS;
    assert_eq!(world.calls(8, Duration::ZERO, latency), [6, 3, 1, 1, 1, 1, 1, 1]);
    world.set(F, &[6, 3]);
    assert_eq!(world.calls(3, Duration::ZERO, latency), [3; 3]);
}

#[test]
fn calls_at_once_before_anything_is_measured_are_spread() {
    for policy in [ROUND_ROBIN, Policy::LeastLatency] {
        let mut world = World::new(policy, &[1, 2, 3, 4], 1);
        let picks: Vec<_> = (0..40).map(|_| world.pick(None).unwrap().destination).collect();
        assert_eq!(tally(&picks), BTreeMap::from([(1, 10), (2, 10), (3, 10), (4, 10)]), "{policy}");
    }
}

#[test]
fn a_destination_that_has_become_fast_is_noticed() {
    for policy in by_speed() {
        let mut world = World::new(policy, &[1, 2], 1);
        world.calls(2000, 10 * MS, |destination| [2, 400][destination as usize - 1] * MS);
        let changed = world.calls(4000, 10 * MS, |destination| [20, 1][destination as usize - 1] * MS);
        let after = tally(&changed[3500..]);
        assert!(after[&2] > 2 * after.get(&1).copied().unwrap_or(0), "{policy}: {after:?}");
    }
}

#[test]
fn on_a_quiet_edge_most_calls_still_go_to_the_fastest() {
    let mut world = World::new(Policy::LeastLatency, &[1, 2, 3], 1);
    let picks = world.calls(900, Duration::from_secs(60), |destination| destination * 100 * MS);
    assert!(tally(&picks)[&1] >= 900 * CHOICES_PER_MEASUREMENT / (CHOICES_PER_MEASUREMENT + 1) - 3);
}

#[test]
fn errors_answered_fast_attract_no_calls() {
    for policy in by_speed() {
        let mut world = World::new(policy, &[1, 2], 1);
        let mut erring = 0;
        for _ in 0..2000 {
            world.now += MS;
            let pick = world.pick(None).unwrap();
            let observation = if pick.destination == 1 {
                erring += 1;
                Observation::Unmeasured
            } else {
                Observation::answered(5 * MS)
            };
            world.observe(&pick, observation);
        }
        assert!(policy == RANDOM || erring < 1700, "{policy}: {erring}");
    }
}

#[test]
fn one_that_never_finishes_is_left_alone_though_nothing_was_ever_measured() {
    let mut world = World::new(Policy::LeastLatency, &[1, 2], 1);
    let mut picks = Vec::new();
    for _ in 0..200 {
        world.now += 50 * MS;
        let pick = world.pick(None).unwrap();
        picks.push(pick.destination);
        let observation = if pick.destination == 1 {
            Observation::Unfinished { elapsed: Duration::from_secs(1) }
        } else {
            Observation::answered(5 * MS)
        };
        world.observe(&pick, observation);
    }
    assert!(tally(&picks)[&1] < 20, "{:?}", tally(&picks));
}

fn policies() -> impl prop::strategy::Strategy<Value = Policy> {
    prop::sample::select(by_themselves().collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_frequencies_follow_any_latencies(
        ms in prop::collection::vec(1u32..50, 2..8),
        seed: u64,
    ) {
        let count = u32::try_from(ms.len()).unwrap();
        let mut world = World::new(RANDOM, &(0..count).collect::<Vec<_>>(), seed);
        let picks = world.calls(count + 20_000, Duration::ZERO, |destination| ms[destination as usize] * MS);
        let total: f64 = ms.iter().map(|&ms| 1.0 / f64::from(ms)).sum();
        let counted = tally(&picks[ms.len()..]);
        for (destination, &ms) in (0..).zip(&ms) {
            let expected = 1.0 / f64::from(ms) / total;
            let share = f64::from(counted.get(&destination).copied().unwrap_or(0)) / 20_000.0;
            // Five standard deviations of a binomial share.
            prop_assert!((share - expected).abs() < 5.0 * (expected * (1.0 - expected) / 20_000.0).sqrt() + 1e-4);
        }
    }

    #[test]
    fn round_robin_spends_the_same_time_at_each_that_takes_turns(
        ms in prop::collection::vec(100u32..200, 2..8),
    ) {
        let count = u32::try_from(ms.len()).unwrap();
        let mut world = World::new(ROUND_ROBIN, &(0..count).collect::<Vec<_>>(), 1);
        let picks = world.calls(10_000, Duration::ZERO, |destination| ms[destination as usize] * MS);
        let spent: Vec<_> = tally(&picks).values().zip(&ms).map(|(&calls, &ms)| calls * ms).collect();
        let (least, most) = (spent.iter().min().unwrap(), spent.iter().max().unwrap());
        prop_assert!(spent.len() == ms.len() && most - least <= 2 * 200, "{spent:?}");
    }

    #[test]
    fn nobody_starves(
        policy in policies(),
        ms in prop::collection::vec(1u32..2000, 1..8),
        seed: u64,
    ) {
        let count = u32::try_from(ms.len()).unwrap();
        let mut world = World::new(policy, &(0..count).collect::<Vec<_>>(), seed);
        let latency = |destination: u32| ms[destination as usize] * MS;
        world.calls(5000, 10 * MS, latency);
        // Whatever happened before, within the longest staleness (and the wait for a turn to measure) each has a call.
        let step = 10 * MS;
        let window = u32::try_from((STALE_AFTER_MAX + Duration::from_secs(5)).as_millis() / step.as_millis()).unwrap();
        let counted = tally(&world.calls(window, step, latency));
        for destination in 0..count {
            prop_assert!(counted.contains_key(&destination), "{destination} of {counted:?}");
        }
    }
}
