//! Nobody starves, and nobody gets everything: what a function that means harm can do to the others through the schedule.

use super::*;

#[test]
fn long_calls_that_have_not_begun_get_their_share_too() {
    let mut schedule = schedule(Budgets { workers: 2, ..budgets() });
    submit(&mut schedule, long(1), 10).unwrap();
    for job in 100..200 {
        submit(&mut schedule, claim(2), job).unwrap();
        let (number, job) = take(&mut schedule).unwrap();
        if job == 10 {
            return;
        }
        ends(&mut schedule, number);
    }
    panic!("it never begins");
}

/// Calls of one function that sleep and wake, each for a moment: as a crowd they always have one that is ready.
fn crowd(schedule: &mut Schedule<u64>, claim: Claim) -> Vec<Number> {
    let mut numbers = Vec::new();
    for job in 1000..1050 {
        submit(schedule, claim, job).unwrap();
        let (number, _) = take(schedule).unwrap();
        schedule.pause(number, schedule.slice(number), Duration::ZERO, Instant::now());
        numbers.push(number);
    }
    for &number in &numbers {
        assert!(schedule.wake(number, number, Instant::now()).is_none());
    }
    numbers
}

#[test]
fn a_crowd_that_sleeps_and_wakes_keeps_nobody_from_beginning() {
    let urgent = Instant::now();
    for class in [claim(2), long(2)] {
        let mut schedule = schedule(Budgets { workers: 2, memory_bytes_max: 1000, ..budgets() });
        crowd(&mut schedule, Claim { concurrency: 100, queue: 100, deadline: urgent, ..Claim { lane: 1, ..class } });
        submit(&mut schedule, class, 7).unwrap();
        let mut slices = 0;
        loop {
            let (number, job) = take(&mut schedule).unwrap();
            if job == 7 {
                break;
            }
            slices += 1;
            assert!(slices < 8, "the neighbour never begins");
            yields(&mut schedule, number, job, Duration::from_micros(10));
        }
    }
}

#[test]
fn functions_have_their_slices_in_rounds() {
    let mut schedule = schedule(Budgets { workers: 2, memory_bytes_max: 1000, ..budgets() });
    let urgent = Instant::now();
    let patient = Claim { deadline: urgent + Duration::from_secs(60), ..claim(2) };
    submit(&mut schedule, patient, 7).unwrap();
    let (neighbour, _) = take(&mut schedule).unwrap();
    schedule.pause(neighbour, schedule.slice(neighbour), Duration::ZERO, Instant::now());
    crowd(&mut schedule, Claim { concurrency: 100, queue: 100, deadline: urgent, ..claim(1) });
    assert!(schedule.wake(neighbour, 7, Instant::now()).is_none());
    let mut own = 0;
    for _ in 0..100 {
        let (number, job) = take(&mut schedule).unwrap();
        own += u32::from(number == neighbour);
        yields(&mut schedule, number, job, Duration::from_micros(10));
    }
    assert!((40..=60).contains(&own), "{own} of 100 slices");
}

#[test]
fn no_function_gets_all_of_a_budget() {
    let wide = Claim { concurrency: 1000, queue: 1000, ..claim(1) };
    let sleeps = |schedule: &mut Schedule<u64>, number| {
        schedule.pause(number, schedule.slice(number), Duration::ZERO, Instant::now());
    };
    for (greedy, neighbour) in [
        // instances, memory
        (Claim { memory_bytes: 0, payload_bytes: 0, ..wide }, claim(2)),
        (Claim { memory_bytes: 10, payload_bytes: 0, ..wide }, Claim { memory_bytes: 10, ..claim(2) }),
    ] {
        let mut schedule = schedule(budgets());
        for job in 0..75 {
            submit(&mut schedule, greedy, job).unwrap();
        }
        while let Some((number, _)) = take(&mut schedule) {
            sleeps(&mut schedule, number);
        }
        assert!(schedule.begun() >= 8, "it is no beggar either");
        submit(&mut schedule, neighbour, 100).unwrap();
        assert_eq!(take(&mut schedule).unwrap().1, 100);
    }
    // places in the queue, payloads
    for greedy in [Claim { payload_bytes: 0, ..wide }, Claim { payload_bytes: 100, ..wide }] {
        let mut schedule = schedule(budgets());
        let refusal = (0..1000).find_map(|job| submit(&mut schedule, greedy, job).err());
        assert_eq!(refusal, Some(Full::Share));
        assert!(schedule.under_way() >= 8);
        submit(&mut schedule, Claim { payload_bytes: 100, ..claim(2) }, 7).unwrap();
    }
}

#[test]
fn a_large_call_that_waits_for_memory_keeps_small_ones_to_one_at_a_time_and_not_from_running() {
    let mut schedule = schedule(budgets());
    submit(&mut schedule, Claim { memory_bytes: 60, ..claim(1) }, 1).unwrap();
    let (sleeper, _) = take(&mut schedule).unwrap();
    schedule.pause(sleeper, schedule.slice(sleeper), Duration::ZERO, Instant::now());
    submit(&mut schedule, Claim { memory_bytes: 60, ..long(2) }, 2).unwrap();
    let small = Claim { concurrency: 4, ..claim(3) };
    for job in 100..400 {
        submit(&mut schedule, small, job).unwrap();
        submit(&mut schedule, small, job).unwrap();
        let (first, _) = take(&mut schedule).unwrap();
        let second = take(&mut schedule);
        assert!(job < 300 || second.is_none(), "they are not held back");
        ends(&mut schedule, first);
        match second {
            Some((second, _)) => ends(&mut schedule, second),
            None => ends_next(&mut schedule),
        }
    }
    ends(&mut schedule, sleeper);
    assert_eq!(take(&mut schedule).unwrap().1, 2);
}

fn ends_next(schedule: &mut Schedule<u64>) {
    let (number, _) = take(schedule).unwrap();
    ends(schedule, number);
}

#[test]
fn kept_instances_are_not_dropped_for_a_call_that_would_not_fit_without_them_either() {
    let mut schedule = schedule(budgets());
    submit(&mut schedule, Claim { memory_bytes: 50, ..claim(1) }, 0).unwrap();
    take(&mut schedule).unwrap();
    assert!(schedule.keep(40));
    submit(&mut schedule, Claim { memory_bytes: 60, ..claim(2) }, 1).unwrap();
    assert!(matches!(schedule.next(Instant::now()), Next::Nothing));
}

#[test]
fn a_ready_call_that_ends_is_not_waited_for() {
    let mut schedule = schedule(budgets());
    submit(&mut schedule, claim(1), 0).unwrap();
    let (number, job) = take(&mut schedule).unwrap();
    yields(&mut schedule, number, job, Duration::ZERO);
    assert_eq!(schedule.demand(), Demand::Brief);
    schedule.finish(number);
    assert_eq!(schedule.demand(), Demand::None);
}

proptest! {
    /// Of the calls of one class that are ready, the one that goes on has the earliest deadline of all functions that have
    /// not had their slice in this round.
    #[test]
    fn within_a_round_the_earliest_deadline_goes_first(calls in prop::collection::vec((0u64..6, 0u64..1000), 1..40)) {
        let now = Instant::now();
        let mut rounds = Rounds::default();
        let mut ready = Vec::new();
        for (number, (lane, ms)) in (0..).zip(calls) {
            rounds.push(lane, now + Duration::from_millis(ms), number);
            ready.push((now + Duration::from_millis(ms), number, lane));
        }
        let mut served = HashSet::new();
        while let Some(number) = rounds.pop() {
            if ready.iter().all(|(_, _, lane)| served.contains(lane)) {
                served.clear();
            }
            let eligible = ready.iter().filter(|(_, _, lane)| !served.contains(lane));
            let first = eligible.clone().map(|(deadline, ..)| *deadline).min().unwrap();
            let at = ready.iter().position(|ready| ready.1 == number).unwrap();
            let (deadline, _, lane) = ready.remove(at);
            prop_assert_eq!(deadline, first);
            prop_assert!(served.insert(lane), "two slices in one round");
        }
        prop_assert!(ready.is_empty() && rounds.is_empty());
    }

    /// Against any crowd of other functions' calls, brief or long, that sleep, wake, yield, end and come again, a call
    /// begins and ends within a bounded number of picks.
    #[test]
    fn nobody_starves(is_long: bool, crowd in prop::collection::vec((0u8..4, 0u64..3, any::<bool>()), 1..60)) {
        let mut schedule = schedule(Budgets { workers: 2, memory_bytes_max: 1000, ..budgets() });
        let rival = |lane, is_long| {
            let of_class = if is_long { long(lane) } else { claim(lane) };
            Claim { concurrency: 100, queue: 100, deadline: Instant::now(), ..of_class }
        };
        let mine = if is_long { long(9) } else { claim(9) };
        let mut asleep = Vec::new();
        let mut picks = None;
        for at in 0..600u64 {
            let (does, lane, is_long) = crowd[usize::try_from(at).unwrap() % crowd.len()];
            if at == 100 {
                submit(&mut schedule, mine, 7).unwrap();
                picks = Some(0);
            }
            let _ = submit(&mut schedule, rival(lane, is_long), 1000 + at);
            for (number, job) in asleep.drain(..) {
                prop_assert_eq!(schedule.wake(number, job, Instant::now()), None);
            }
            let Some((number, job)) = take(&mut schedule) else { continue };
            picks = picks.map(|picks| picks + 1);
            match (job, does) {
                (7, _) => {
                    ends(&mut schedule, number);
                    break;
                }
                (_, 0) => ends(&mut schedule, number),
                (_, 1 | 2) => yields(&mut schedule, number, job, Duration::from_micros(500)),
                _ => {
                    schedule.pause(number, schedule.slice(number), Duration::from_micros(500), Instant::now());
                    asleep.push((number, job));
                }
            }
        }
        prop_assert!(picks.is_some_and(|picks| picks <= 40), "{picks:?}");
    }
}
