//! Functions and destinations that come and go.

use proptest::prelude::*;

use super::*;

#[test]
fn unknown_functions_and_those_that_nobody_serves_are_told_apart() {
    let mut world = World::new(Policy::LeastLatency, &[], 1);
    assert_eq!(world.pick(None).unwrap_err(), PickError::NoDestination);
    world.table.remove_function(F);
    assert_eq!(world.pick(None).unwrap_err(), PickError::UnknownFunction);
}

#[test]
fn those_that_stay_keep_what_was_learnt() {
    let mut world = World::new(Policy::LeastLatency, &[1, 2, 3], 1);
    world.calls(3, MS, |destination| destination * 10 * MS);
    world.set(F, &[3, 4, 2, 3]);
    let latencies: Vec<_> =
        world.table.destinations(F, Scope::Overall).unwrap().map(|view| (*view.destination, view.latency_ms)).collect();
    assert_eq!(latencies, [(3, Some(30.0)), (4, None), (2, Some(20.0))]);
}

#[test]
fn what_a_call_reports_is_not_taken_for_news_of_a_later_namesake() {
    let mut world = World::new(Policy::LeastLatency, &[1, 2], 1);
    let pick = world.pick(None).unwrap();
    world.set(F, &[2]);
    world.observe(&pick, Observation::Dead);
    world.set(F, &[1, 2]);
    world.observe(&pick, Observation::Dead);
    let namesake = world.table.destinations(F, Scope::Overall).unwrap().next().unwrap();
    assert_eq!((namesake.state, namesake.in_flight), (nigh_routing::State::InUse, 0));
}

#[test]
fn a_latency_set_by_hand_stands_until_measured() {
    let mut world = World::new(Policy::LeastLatency, &[1, 2], 1);
    world.calls(2, MS, |_| 10 * MS);
    assert!(world.table.set_latency(F, &2, 1.0, world.now));
    assert_eq!(world.call(|_| 50 * MS), 2);
    assert_eq!(world.call(|_| 50 * MS), 1);
    assert!(!world.table.set_latency(F, &9, 1.0, world.now));
}

proptest! {
    /// A choice is always one of the present destinations, and there is one whenever there are any in use.
    #[test]
    fn no_choice_dangles(
        policy in prop::sample::select(POLICIES.to_vec()),
        sets in prop::collection::vec(prop::collection::btree_set(0u32..12, 0..8), 1..20),
        seed: u64,
    ) {
        let mut world = World::new(policy, &[], seed);
        let mut left_over = Vec::new();
        for set in sets {
            let set: Vec<_> = set.into_iter().collect();
            world.set(F, &set);
            for pick in left_over.drain(..) {
                world.observe(&pick, Observation::answered(MS));
            }
            for n in 0..20u32 {
                world.now += 30 * MS;
                match world.pick(None) {
                    Ok(pick) => {
                        prop_assert!(set.contains(&pick.destination));
                        if n % 7 == 0 {
                            left_over.push(pick);
                        } else {
                            world.observe(&pick, Observation::answered(3 * MS));
                        }
                    }
                    Err(error) => {
                        prop_assert!(set.is_empty());
                        prop_assert_eq!(error, PickError::NoDestination);
                    }
                }
            }
        }
    }
}
