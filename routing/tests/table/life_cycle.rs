//! Setting aside, probing, and coming back.

use nigh_routing::{Cause, DEAD_PROBE_PATIENCE, DEAD_WAIT_MIN, REFUSING_PROBE_PATIENCE, State};
use proptest::prelude::*;

use super::*;

fn state(world: &World, destination: u32) -> State {
    world.table.destinations(F, Scope::Overall).unwrap().find(|view| *view.destination == destination).unwrap().state
}

/// A world where every destination has been measured.
fn measured(policy: Policy, destinations: &[u32]) -> World {
    let mut world = World::new(policy, destinations, 7);
    world.calls(u32::try_from(destinations.len()).unwrap(), MS, |_| 5 * MS);
    world
}

/// Fails calls of this destination until it is set aside.
fn fail(world: &mut World, destination: u32, observation: Observation) {
    while state(world, destination) == State::InUse {
        let demand = Demand { scope: Scope::Overall, exclude: None, payload_bytes: 100 };
        let pick = world.table.pick_one(F, &destination, demand, world.now).unwrap();
        world.observe(&pick, observation);
    }
}

#[test]
fn the_dead_get_no_calls_then_one_and_when_that_is_answered_all() {
    for policy in POLICIES {
        let mut world = measured(policy, &[1, 2]);
        fail(&mut world, 1, Observation::Dead);
        assert_eq!(state(&world, 1), State::SetAside(Cause::Dead));
        assert_eq!(tally(&world.calls(50, MS, |_| 5 * MS)), BTreeMap::from([(2, 50)]), "{policy}");
        world.now += DEAD_WAIT_MIN;
        let probe = world.pick(None).unwrap();
        assert!(probe.is_probe() && probe.destination == 1);
        assert_eq!(state(&world, 1), State::Probing(Cause::Dead));
        assert_eq!(tally(&world.calls(50, MS, |_| 5 * MS)), BTreeMap::from([(2, 50)]), "one probe at a time");
        world.observe(&probe, Observation::answered(MS));
        assert_eq!(state(&world, 1), State::InUse);
        assert!(tally(&world.calls(200, MS, |_| 5 * MS))[&1] > 10, "{policy}");
    }
}

#[test]
fn a_probe_that_lasts_has_connected() {
    let mut world = measured(Policy::LeastLatency, &[1, 2]);
    fail(&mut world, 1, Observation::Dead);
    world.now += DEAD_WAIT_MIN;
    let probe = world.pick(None).unwrap();
    world.now += DEAD_PROBE_PATIENCE;
    let _ = world.pick(None).unwrap();
    assert_eq!(state(&world, 1), State::InUse);
    world.observe(&probe, Observation::Dead);
    assert_eq!(state(&world, 1), State::SetAside(Cause::Dead), "what it says in the end still counts");
}

#[test]
fn a_probe_given_up_by_its_caller_is_followed_by_another() {
    let mut world = measured(Policy::LeastLatency, &[1, 2]);
    fail(&mut world, 1, Observation::Dead);
    world.now += DEAD_WAIT_MIN;
    let probe = world.pick(None).unwrap();
    world.observe(&probe, Observation::Unfinished { elapsed: MS });
    let next = world.pick(None).unwrap();
    assert!(next.is_probe() && next.destination == 1);
}

#[test]
fn one_that_refuses_is_left_alone_for_as_long_as_it_asks() {
    let mut world = measured(ROUND_ROBIN, &[1, 2]);
    fail(&mut world, 2, Observation::Refused { retry_after: Some(700 * MS) });
    assert_eq!(state(&world, 2), State::SetAside(Cause::Refusing));
    assert_eq!(tally(&world.calls(699, MS, |_| 5 * MS)), BTreeMap::from([(1, 699)]));
    world.now += MS;
    assert_eq!(world.call(|_| 5 * MS), 2);
    assert_eq!(state(&world, 2), State::InUse);
}

#[test]
fn where_all_refuse_a_call_is_told_when_to_retry() {
    let mut world = measured(RANDOM, &[1, 2]);
    fail(&mut world, 1, Observation::Refused { retry_after: Some(300 * MS) });
    fail(&mut world, 2, Observation::Refused { retry_after: Some(200 * MS) });
    let expected = PickError::AllSetAside { retry_after: 200 * MS, cause: Cause::Refusing };
    assert_eq!(world.pick(None).unwrap_err(), expected);
    world.now += 200 * MS;
    let probe = world.pick(None).unwrap();
    assert!(probe.is_probe() && probe.destination == 2);
    let refused = world.pick(None).unwrap_err();
    assert!(matches!(refused, PickError::AllSetAside { cause: Cause::Refusing, .. }), "{refused:?}");
    world.now += REFUSING_PROBE_PATIENCE;
    let _ = world.pick(None).unwrap();
    assert_eq!(state(&world, 1), State::Probing(Cause::Refusing));
    assert_eq!(world.pick(None).unwrap().destination, 2, "the probe was accepted, as it was not refused");
}

#[test]
fn where_all_are_dead_one_call_at_a_time_is_a_last_resort() {
    for policy in POLICIES {
        let mut world = measured(policy, &[1, 2]);
        fail(&mut world, 1, Observation::Dead);
        world.now += MS;
        fail(&mut world, 2, Observation::Dead);
        let last = world.pick(None).unwrap();
        assert!(last.is_probe() && last.destination == 1, "the one next due");
        let refused = world.pick(None).unwrap_err();
        assert!(matches!(refused, PickError::AllSetAside { cause: Cause::Dead, .. }), "{refused:?}");
        world.observe(&last, Observation::Dead);
        assert_eq!(state(&world, 1), State::SetAside(Cause::Dead));
        let back = world.pick(None).unwrap();
        world.observe(&back, Observation::answered(MS));
        assert_eq!(state(&world, 1), State::InUse);
    }
}

#[test]
fn a_second_try_goes_elsewhere_and_finds_nothing_out() {
    for policy in POLICIES {
        let mut world = measured(policy, &[1, 2, 3]);
        fail(&mut world, 3, Observation::Dead);
        world.now += DEAD_WAIT_MIN;
        for _ in 0..20 {
            let second = world.pick(Some(1)).unwrap();
            assert_eq!(second.destination, 2, "{policy}");
        }
        assert_eq!(state(&world, 3), State::SetAside(Cause::Dead));
        world.set(F, &[1]);
        assert_eq!(world.pick(Some(1)).unwrap_err(), PickError::NoOther);
    }
}

#[test]
fn a_death_found_by_one_function_is_known_to_all_and_so_is_the_return() {
    let mut world = measured(Policy::LeastLatency, &[1]);
    world.set("other", &[1, 2]);
    fail(&mut world, 1, Observation::Dead);
    let state_for_other =
        |world: &World| world.table.destinations("other", Scope::Overall).unwrap().next().unwrap().state;
    assert_eq!(state_for_other(&world), State::SetAside(Cause::Dead));
    let probe = world.pick(None).unwrap();
    assert_eq!(state_for_other(&world), State::Probing(Cause::Dead));
    world.observe(&probe, Observation::answered(MS));
    assert_eq!(state_for_other(&world), State::InUse);
}

#[test]
fn a_refusal_concerns_one_function() {
    let mut world = measured(Policy::LeastLatency, &[1]);
    world.set("other", &[1]);
    fail(&mut world, 1, Observation::Refused { retry_after: None });
    assert_eq!(world.table.destinations("other", Scope::Overall).unwrap().next().unwrap().state, State::InUse);
}

proptest! {
    /// Whatever happens in whatever order: at most one probe of a destination is under way, a destination set aside gets
    /// none but probes, and calls under way are counted exactly.
    #[test]
    fn rules_hold_in_any_history(
        policy in prop::sample::select(POLICIES.to_vec()),
        steps in prop::collection::vec((0u8..8, 0u64..400, any::<prop::sample::Index>()), 1..200),
        seed: u64,
    ) {
        let mut world = World::new(policy, &[1, 2, 3], seed);
        let mut under_way: Vec<Pick<u32>> = Vec::new();
        for (step, wait_ms, which) in steps {
            world.now += Duration::from_millis(wait_ms);
            if step < 3 || under_way.is_empty() {
                let before: Vec<_> = (1..=3).map(|destination| state(&world, destination)).collect();
                if let Ok(pick) = world.pick(None) {
                    let was = before[pick.destination as usize - 1];
                    let patience_is_over = matches!(was, State::Probing(_)) && !pick.is_probe();
                    prop_assert!(pick.is_probe() == matches!(was, State::SetAside(_)) || patience_is_over, "{was:?}");
                    under_way.push(pick);
                }
            } else {
                let pick = under_way.swap_remove(which.index(under_way.len()));
                world.observe(&pick, [
                    Observation::answered(5 * MS),
                    Observation::Unmeasured,
                    Observation::Unfinished { elapsed: 9 * MS },
                    Observation::Refused { retry_after: Some(50 * MS) },
                    Observation::Dead,
                ][usize::from(step - 3)]);
            }
            for view in world.table.destinations(F, Scope::Overall).unwrap() {
                let counted = under_way.iter().filter(|pick| pick.destination == *view.destination).count();
                prop_assert_eq!(view.in_flight as usize, counted);
            }
        }
    }

    /// However a destination has failed, once it answers it is in use again after at most the longest wait.
    #[test]
    fn everyone_who_is_back_gets_calls(
        policy in prop::sample::select(POLICIES.to_vec()),
        failures in prop::collection::vec(prop::bool::ANY, 1..40),
        seed: u64,
    ) {
        let mut world = measured(policy, &[1, 2]);
        world.rng = ChaCha8Rng::seed_from_u64(seed);
        for dead in failures {
            world.now += 100 * MS;
            let Ok(pick) = world.pick(None) else { continue };
            let observation = if dead { Observation::Dead } else { Observation::Refused { retry_after: None } };
            world.observe(&pick, observation);
        }
        world.now += nigh_routing::DEAD_WAIT_MAX;
        world.calls(100, 20 * MS, |_| 5 * MS);
        prop_assert_eq!((state(&world, 1), state(&world, 2)), (State::InUse, State::InUse));
    }
}
