//! Newcomers and those that are back: they get their full share step by step, and nobody waits for them.

use nigh_routing::DEAD_WAIT_MIN;

use super::*;

const WINDOW: Duration = Duration::from_secs(2);
const RAMPED: [Policy; 3] =
    [Policy::Predict { choices: Policy::CHOICES }, Policy::P2cEwma { decay: Policy::DECAY }, Policy::LeastOutstanding];

/// Calls under way for so long each, one begun every millisecond; how many went to each.
fn open_loop(world: &mut World, count: u32, lasts: u32) -> BTreeMap<u32, u32> {
    let mut under_way = std::collections::VecDeque::new();
    let mut picks = Vec::new();
    for _ in 0..count {
        world.now += MS;
        let pick = world.pick(None).unwrap();
        picks.push(pick.destination);
        under_way.push_back((world.now, pick));
        while under_way.front().is_some_and(|(began, _)| world.now - *began >= MS * lasts) {
            let (_, pick) = under_way.pop_front().unwrap();
            world.observe(&pick, Observation::answered(MS * lasts));
        }
    }
    for (_, pick) in under_way {
        world.observe(&pick, Observation::answered(MS * lasts));
    }
    tally(&picks)
}

#[test]
fn a_newcomer_gets_its_share_step_by_step() {
    for policy in RAMPED {
        let strategy = Strategy { slow_start: WINDOW, ..policy.into() };
        let mut world = World::with(strategy, &[1, 2], 1);
        open_loop(&mut world, 1000, 20);
        world.set(F, &[1, 2, 3]);
        let first = open_loop(&mut world, 200, 20)[&3];
        world.now += WINDOW;
        let later = open_loop(&mut world, 200, 20)[&3];
        assert!(first * 2 < later && (45..=95).contains(&later), "{policy}: {first}, then {later} of 200");
    }
}

#[test]
fn one_that_was_dead_gets_its_share_step_by_step() {
    for policy in RAMPED {
        let strategy = Strategy { slow_start: WINDOW, ..policy.into() };
        let mut world = World::with(strategy, &[1, 2], 1);
        open_loop(&mut world, 1000, 20);
        while let Ok(pick) = world.pick(None) {
            let is_dead = pick.destination == 1;
            world.observe(&pick, if is_dead { Observation::Dead } else { Observation::answered(20 * MS) });
            if is_dead {
                break;
            }
        }
        world.now += DEAD_WAIT_MIN;
        let probe = world.pick(None).unwrap();
        assert!(probe.is_probe());
        world.observe(&probe, Observation::answered(20 * MS));
        let first = open_loop(&mut world, 200, 20)[&1];
        world.now += WINDOW;
        let later = open_loop(&mut world, 200, 20)[&1];
        assert!(first * 2 < later && (75..=125).contains(&later), "{policy}: {first}, then {later} of 200");
    }
}

#[test]
fn asking_for_the_cheapest_changes_nothing() {
    for policy in POLICIES {
        let mut world = World::new(policy, &[1, 2, 3], 1);
        world.calls(50, MS, |destination| destination * 10 * MS);
        let demand = Demand { scope: Scope::Overall, exclude: None, payload_bytes: 100 };
        let before: Vec<_> =
            world.table.destinations(F, Scope::Overall).unwrap().map(|view| format!("{view:?}")).collect();
        let cheapest = world.table.cheapest(F, demand, world.now).unwrap();
        let after: Vec<_> =
            world.table.destinations(F, Scope::Overall).unwrap().map(|view| format!("{view:?}")).collect();
        assert_eq!((cheapest, before), (1, after), "{policy}");
        let demand = Demand { exclude: Some(&1), ..demand };
        assert_eq!(world.table.cheapest(F, demand, world.now).unwrap(), 2, "{policy}");
    }
}

#[test]
fn one_that_only_ever_fails_draws_no_calls_however_long_the_function_runs_elsewhere() {
    for run in [10 * MS, 500 * MS, 5000 * MS] {
        let mut world = World::new(Policy::Predict { choices: Policy::CHOICES }, &[1, 2, 3, 4], 1);
        let mut failed = 0;
        for _ in 0..400 {
            world.now += run;
            let pick = world.pick(None).unwrap();
            let fails = pick.destination == 4;
            world.observe(&pick, if fails { Observation::Unmeasured } else { Observation::answered(run) });
            failed += u32::from(fails);
        }
        // It is asked now and then, ever more seldom, whether it can be measured by now.
        assert!(failed <= 80, "{run:?}: {failed} of 400");
    }
}
