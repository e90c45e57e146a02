//! Rules of the schedule, on plain numbers as calls.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

#[path = "schedule_fairness_tests.rs"]
mod fairness;

fn budgets() -> Budgets {
    Budgets { workers: 4, instances_max: 100, queue_max: 100, payload_bytes_max: 1000, memory_bytes_max: 100 }
}

fn claim(lane: LaneId) -> Claim {
    Claim {
        lane,
        concurrency: 2,
        queue: 10,
        memory_bytes: 1,
        payload_bytes: 1,
        expected: Duration::from_millis(8),
        computing: Duration::from_millis(8),
        deadline: Instant::now() + Duration::from_secs(1),
    }
}

fn long(lane: LaneId) -> Claim {
    Claim { expected: Duration::from_secs(2), computing: Duration::from_secs(2), ..claim(lane) }
}

fn schedule(budgets: Budgets) -> Schedule<u64> {
    Schedule::new(budgets, 2, Instant::now())
}

fn submit(schedule: &mut Schedule<u64>, claim: Claim, job: u64) -> Result<Number, Full> {
    schedule.submit(claim, |_| job)
}

fn take(schedule: &mut Schedule<u64>) -> Option<(Number, u64)> {
    match schedule.next(Instant::now()) {
        Next::Run(number, job) => Some((number, job)),
        Next::Evict | Next::Nothing => None,
    }
}

/// A slice in which the call yields.
fn yields(schedule: &mut Schedule<u64>, number: Number, job: u64, took: Duration) {
    let slice = schedule.slice(number);
    assert!(schedule.wake(number, job, Instant::now()).is_none());
    schedule.pause(number, slice, took, Instant::now());
}

/// A slice in which the call ends.
fn ends(schedule: &mut Schedule<u64>, number: Number) {
    let slice = schedule.slice(number);
    schedule.finish(number);
    schedule.pause(number, slice, Duration::ZERO, Instant::now());
}

#[test]
fn functions_take_turns_and_calls_of_one_keep_their_order() {
    let mut schedule = schedule(budgets());
    for job in 0..5 {
        submit(&mut schedule, claim(1), job).unwrap();
    }
    submit(&mut schedule, claim(2), 100).unwrap();
    let begun: Vec<_> = std::iter::from_fn(|| take(&mut schedule)).collect();
    assert_eq!(begun.iter().map(|(_, job)| *job).collect::<Vec<_>>(), [0, 100, 1]);
    ends(&mut schedule, begun[0].0);
    assert_eq!(take(&mut schedule).unwrap().1, 2);
    assert!(take(&mut schedule).is_none());
}

#[test]
fn brief_calls_begin_although_long_ones_hold_every_worker() {
    let mut schedule = schedule(Budgets { workers: 1, ..budgets() });
    submit(&mut schedule, long(1), 10).unwrap();
    submit(&mut schedule, long(2), 20).unwrap();
    submit(&mut schedule, long(1), 11).unwrap();
    let (first, _) = take(&mut schedule).unwrap();
    let (second, job) = take(&mut schedule).unwrap();
    assert_eq!(job, 20, "one function's long call keeps no other function's from its turn");
    assert_eq!(schedule.demand(), Demand::None, "the first function's second has to wait for its first");
    submit(&mut schedule, claim(3), 30).unwrap();
    assert_eq!(schedule.demand(), Demand::Brief);
    let (brief, job) = take(&mut schedule).unwrap();
    assert_eq!(job, 30);
    yields(&mut schedule, first, 10, Duration::from_millis(1));
    ends(&mut schedule, brief);
    assert_eq!(take(&mut schedule), Some((first, 10)));
    ends(&mut schedule, first);
    ends(&mut schedule, second);
    assert_eq!(take(&mut schedule).unwrap().1, 11);
}

#[test]
fn a_call_that_computes_for_long_makes_its_function_a_long_one() {
    let mut schedule = schedule(Budgets { workers: 1, ..budgets() });
    submit(&mut schedule, claim(1), 10).unwrap();
    let (number, _) = take(&mut schedule).unwrap();
    submit(&mut schedule, claim(1), 11).unwrap();
    assert!(take(&mut schedule).is_none(), "one worker, one brief call");
    yields(&mut schedule, number, 10, LONG);
    take(&mut schedule).unwrap();
    yields(&mut schedule, number, 10, LONG);
    // It is long now and leaves its place to brief ones, but not to more of its own kind.
    assert_eq!(take(&mut schedule), Some((number, 10)));
    assert!(take(&mut schedule).is_none());
    submit(&mut schedule, claim(2), 20).unwrap();
    assert_eq!(take(&mut schedule).unwrap().1, 20);
}

#[test]
fn long_calls_have_their_share_however_many_brief_ones_there_are() {
    let mut schedule = schedule(Budgets { workers: 2, ..budgets() });
    submit(&mut schedule, long(1), 10).unwrap();
    let (number, _) = take(&mut schedule).unwrap();
    yields(&mut schedule, number, 10, Duration::from_millis(1));
    let mut slices = 0;
    for job in 100..200 {
        submit(&mut schedule, claim(2), job).unwrap();
        let (next, job) = take(&mut schedule).unwrap();
        if next == number {
            slices += 1;
            yields(&mut schedule, number, job, Duration::from_millis(1));
            let (brief, _) = take(&mut schedule).unwrap();
            ends(&mut schedule, brief);
        } else {
            ends(&mut schedule, next);
        }
    }
    assert!((20..=50).contains(&slices), "{slices} of 100");
}

#[test]
fn the_earliest_deadline_goes_first_among_those_ready() {
    let mut schedule = schedule(budgets());
    let due = |lane, s| Claim { deadline: Instant::now() + Duration::from_secs(s), ..claim(lane) };
    for (lane, s) in [(1, 30), (2, 10), (3, 20)] {
        submit(&mut schedule, due(lane, s), s).unwrap();
    }
    let begun: Vec<_> = std::iter::from_fn(|| take(&mut schedule)).collect();
    begun.iter().for_each(|(number, job)| yields(&mut schedule, *number, *job, Duration::ZERO));
    let order: Vec<_> = std::iter::from_fn(|| take(&mut schedule)).map(|(_, job)| job).collect();
    assert_eq!(order, [10, 20, 30]);
}

#[test]
fn a_call_that_waits_for_its_host_holds_no_worker() {
    let mut schedule = schedule(Budgets { workers: 1, ..budgets() });
    submit(&mut schedule, claim(1), 10).unwrap();
    submit(&mut schedule, claim(1), 20).unwrap();
    let (first, _) = take(&mut schedule).unwrap();
    assert!(take(&mut schedule).is_none());
    schedule.pause(first, schedule.slice(first), Duration::ZERO, Instant::now());
    let (second, job) = take(&mut schedule).unwrap();
    assert_eq!((job, schedule.begun()), (20, 2));
    assert!(schedule.wake(first, 10, Instant::now()).is_none());
    assert_eq!(take(&mut schedule), Some((first, 10)));
    ends(&mut schedule, second);
    ends(&mut schedule, first);
    assert!(schedule.wake(first, 10, Instant::now()).is_some(), "one that has ended is given back");
}

#[test]
fn a_call_begins_at_once_only_where_nobody_is_passed_over() {
    let now = Instant::now();
    let mut schedule = schedule(Budgets { workers: 2, ..budgets() });
    let first = submit(&mut schedule, claim(1), 10).unwrap();
    assert_eq!(schedule.begin_at_once(1, first, now), Some((first, 10)));
    submit(&mut schedule, claim(2), 20).unwrap();
    let third = submit(&mut schedule, claim(3), 30).unwrap();
    assert_eq!(schedule.begin_at_once(3, third, now), None, "lane 2 is first");
    assert_eq!(take(&mut schedule).unwrap().1, 20);
    let further = submit(&mut schedule, claim(2), 21).unwrap();
    assert_eq!(schedule.begin_at_once(2, further, now), None, "both workers are taken, one by its own function");
    assert_eq!(schedule.begin_at_once(3, third, now), Some((third, 30)), "of its function nothing computes");
    let fourth = submit(&mut schedule, long(4), 40).unwrap();
    assert_eq!(schedule.begin_at_once(4, fourth, now), None, "it is long");
}

#[test]
fn who_computes_already_keeps_no_other_function_from_beginning_at_once() {
    let now = Instant::now();
    let mut schedule = schedule(Budgets { workers: 2, ..budgets() });
    let crowd = crowd_of(&mut schedule, Claim { concurrency: 10, ..claim(1) }, 4);
    let began: Vec<_> = std::iter::from_fn(|| take(&mut schedule)).collect();
    assert_eq!(began.len(), 2, "two compute, two wait");
    let other = submit(&mut schedule, claim(2), 20).unwrap();
    assert_eq!(schedule.begin_at_once(2, other, now), Some((other, 20)));
    let further = submit(&mut schedule, claim(2), 21).unwrap();
    assert_eq!(schedule.begin_at_once(2, further, now), None, "a second one has no precedence");
    // One of the crowd makes way and is ready again: as long as another of it computes, it is not left out.
    yields(&mut schedule, crowd[0], 10, Duration::from_millis(1));
    let third = submit(&mut schedule, claim(3), 30).unwrap();
    assert_eq!(schedule.begin_at_once(3, third, now), Some((third, 30)));
    yields(&mut schedule, crowd[1], 11, Duration::from_millis(1));
    let fourth = submit(&mut schedule, claim(4), 40).unwrap();
    assert_eq!(schedule.begin_at_once(4, fourth, now), None, "of the crowd nothing computes now");
}

fn crowd_of(schedule: &mut Schedule<u64>, claim: Claim, calls: u64) -> Vec<Number> {
    (0..calls).map(|job| submit(schedule, claim, job).unwrap()).collect()
}

#[test]
fn a_call_that_begins_at_once_needs_no_place_in_the_queue() {
    let mut schedule = schedule(budgets());
    let claim = Claim { queue: 1, ..claim(1) };
    for job in 0..3 {
        submit(&mut schedule, claim, job).unwrap();
    }
    assert_eq!(submit(&mut schedule, claim, 3), Err(Full::Function));
    take(&mut schedule).unwrap();
    take(&mut schedule).unwrap();
    assert_eq!(submit(&mut schedule, claim, 3), Err(Full::Function));
}

#[test]
fn the_computers_own_queue_and_payloads_are_bounded() {
    let mut few = schedule(Budgets { workers: 1, queue_max: 2, ..budgets() });
    for lane in 0..3 {
        submit(&mut few, claim(lane), lane).unwrap();
    }
    assert_eq!(submit(&mut few, claim(9), 9), Err(Full::Computer));

    let mut big = schedule(budgets());
    let half = |lane| Claim { payload_bytes: 500, ..claim(lane) };
    let first = submit(&mut big, half(1), 0).unwrap();
    submit(&mut big, half(2), 1).unwrap();
    assert_eq!(submit(&mut big, claim(3), 2), Err(Full::Payloads));
    assert_eq!(big.cancel(1, first), Some(0));
    assert!(submit(&mut big, claim(3), 2).is_ok());
}

#[test]
fn a_call_that_waits_for_memory_is_passed_over_but_not_for_ever() {
    let mut schedule = schedule(budgets());
    let large = Claim { memory_bytes: 99, ..claim(1) };
    let small = Claim { memory_bytes: 2, concurrency: 4, queue: 1000, ..claim(2) };
    submit(&mut schedule, small, 0).unwrap();
    let (mut running, _) = take(&mut schedule).unwrap();
    submit(&mut schedule, large, 1000).unwrap();
    for job in 1.. {
        submit(&mut schedule, small, job).unwrap();
        let Some((next, _)) = take(&mut schedule) else { break };
        ends(&mut schedule, running);
        running = next;
        assert!(job < 1000, "the large call starves");
    }
    ends(&mut schedule, running);
    assert_eq!(take(&mut schedule).unwrap().1, 1000);
}

#[test]
fn kept_instances_give_way_to_calls() {
    let mut schedule = schedule(budgets());
    assert!(schedule.keep(80));
    assert!(!schedule.keep(80));
    submit(&mut schedule, Claim { memory_bytes: 50, ..claim(1) }, 0).unwrap();
    assert!(matches!(schedule.next(Instant::now()), Next::Evict));
    schedule.release_kept(80);
    assert_eq!(take(&mut schedule).unwrap().1, 0);
}

#[test]
fn the_wait_follows_from_the_work_ahead() {
    let mut schedule = schedule(Budgets { workers: 1, ..budgets() });
    assert_eq!(schedule.expected_wait(&claim(1)), Duration::ZERO);
    submit(&mut schedule, claim(1), 0).unwrap();
    take(&mut schedule).unwrap();
    assert_eq!(schedule.expected_wait(&claim(1)), Duration::from_millis(4));
    for job in 1..5 {
        submit(&mut schedule, claim(1), job).unwrap();
    }
    assert_eq!(schedule.expected_wait(&claim(1)), Duration::from_millis(36));
    // A function without a backlog waits for one call of each other function, and a brief one for no long ones.
    assert_eq!(schedule.expected_wait(&claim(2)), Duration::from_millis(12));
    submit(&mut schedule, long(3), 30).unwrap();
    assert_eq!(schedule.expected_wait(&claim(2)), Duration::from_millis(12));
    submit(&mut schedule, long(4), 40).unwrap();
    assert!(schedule.expected_wait(&long(5)) >= Duration::from_secs(4));
}

#[test]
fn nobody_waits_for_a_call_that_is_as_good_as_over() {
    let mut schedule = schedule(budgets());
    let alone = Claim { concurrency: 1, expected: Duration::from_millis(40), ..claim(1) };
    submit(&mut schedule, alone, 0).unwrap();
    let (number, _) = take(&mut schedule).unwrap();
    assert_eq!(schedule.expected_wait(&alone), Duration::from_millis(20));
    schedule.report(number, Instant::now());
    assert_eq!(schedule.expected_wait(&alone), Duration::ZERO);
    // Another that waits behind it has its time all the same.
    submit(&mut schedule, alone, 1).unwrap();
    assert_eq!(schedule.expected_wait(&alone), Duration::from_millis(40));
    ends(&mut schedule, number);
    let (number, _) = take(&mut schedule).unwrap();
    assert_eq!(schedule.expected_wait(&alone), Duration::from_millis(20));
    ends(&mut schedule, number);
    assert_eq!(schedule.under_way(), 0);
}

proptest! {
    /// Whatever happens, no budget is broken, every call begins or is cancelled once, and nothing is left behind.
    #[test]
    fn budgets_hold_and_nothing_is_lost(steps in prop::collection::vec((0u8..6, 0u64..5, 1u64..60), 1..400)) {
        let mut schedule = schedule(budgets());
        let mut claims = NumberMap::<Claim>::default();
        let mut waiting = Vec::<(LaneId, Number, u64)>::new();
        let (mut computing, mut blocked) = (Vec::<(Number, u64)>::new(), Vec::<(Number, u64)>::new());
        let mut ready = HashSet::<Number>::new();
        for (job, (step, lane, size)) in (0..).zip(steps) {
            match step {
                0 | 1 => {
                    let computing = Duration::from_millis(size);
                    let claim = Claim { memory_bytes: size, payload_bytes: size, computing, ..claim(lane) };
                    if let Ok(number) = submit(&mut schedule, claim, job) {
                        claims.insert(number, claim);
                        waiting.push((lane, number, job));
                    }
                }
                2 | 3 if computing.len() < 4 => if let Some((number, job)) = take(&mut schedule) {
                    if let Some(at) = waiting.iter().position(|waiting| waiting.1 == number) {
                        let (lane, _, submitted) = waiting.remove(at);
                        prop_assert_eq!(submitted, job);
                        prop_assert!(!waiting[..at].iter().any(|earlier| earlier.0 == lane), "not in order");
                    } else {
                        prop_assert!(ready.remove(&number), "a call that nobody woke");
                    }
                    computing.push((number, job));
                },
                2 | 3 => {}
                4 => if let Some((number, job)) = computing.pop() {
                    if size % 3 == 0 {
                        schedule.pause(number, schedule.slice(number), Duration::from_millis(size), Instant::now());
                        blocked.push((number, job));
                    } else {
                        yields(&mut schedule, number, job, Duration::from_millis(size));
                        ready.insert(number);
                    }
                } else if let Some((number, job)) = blocked.pop() {
                    prop_assert!(schedule.wake(number, job, Instant::now()).is_none());
                    ready.insert(number);
                },
                _ if size % 2 == 0 && !waiting.is_empty() => {
                    let (lane, number, job) = waiting.swap_remove(usize::try_from(size).unwrap() % waiting.len());
                    prop_assert_eq!(schedule.cancel(lane, number), Some(job));
                }
                _ => if let Some((number, _)) = computing.pop() {
                    ends(&mut schedule, number);
                } else if let Some((number, _)) = blocked.pop() {
                    schedule.finish(number);
                },
            }
            waiting.sort_unstable_by_key(|waiting| waiting.1);
            let begun: Vec<Claim> =
                computing.iter().chain(&blocked).map(|(number, _)| number).chain(&ready).map(|number| claims[number]).collect();
            prop_assert!(begun.iter().map(|claim| claim.memory_bytes).sum::<u64>() <= 100);
            prop_assert!((0..5).all(|lane| begun.iter().filter(|claim| claim.lane == lane).count() <= 2));
            prop_assert_eq!(schedule.under_way(), begun.len() + waiting.len());
            prop_assert_eq!(schedule.active.iter().sum::<usize>(), computing.len() + ready.len());
            prop_assert_eq!(schedule.computing, computing.len());
        }
        blocked.drain(..).for_each(|(number, _)| schedule.finish(number));
        while schedule.under_way() > 0 {
            computing.drain(..).for_each(|(number, _)| ends(&mut schedule, number));
            while let Some((number, job)) = take(&mut schedule) {
                computing.push((number, job));
            }
            prop_assert!(!computing.is_empty() || schedule.under_way() == 0, "a call never begins");
        }
        // A lane whose calls were all cancelled goes when it would be its turn.
        prop_assert!(take(&mut schedule).is_none());
        prop_assert!(schedule.lanes.is_empty() && schedule.turns.iter().all(VecDeque::is_empty));
        prop_assert_eq!(schedule.payload_bytes + schedule.begun_memory_bytes, 0);
        prop_assert_eq!(schedule.active, [0; 2]);
    }
}

/// What may run without asking is never more than what is left, with all seats taken at once.
mod seats {
    use super::*;

    const SEATS: usize = 4;

    proptest! {
        #[test]
        fn all_seats_together_stay_within_the_budgets(
            calls in prop::collection::vec((0u64..5, 0u64..30, 0u64..40_000, any::<bool>()), 0..60),
            seated in prop::collection::vec((5u64..9, 0u64..64, 0u64..=SEAT_PAYLOAD_MAX), SEATS),
        ) {
            let limits = Budgets { instances_max: 20, payload_bytes_max: 1 << 20, memory_bytes_max: 200, ..budgets() };
            let mut schedule = schedule(limits.clone());
            let mut running = Vec::new();
            for (lane, memory_bytes, payload_bytes, ends_one) in calls {
                let _ = submit(&mut schedule, Claim { memory_bytes, payload_bytes, ..claim(lane) }, 0);
                running.extend(take(&mut schedule).map(|(number, _)| number));
                if ends_one && let Some(number) = running.pop() {
                    ends(&mut schedule, number);
                }
            }
            let gate = schedule.gate(SEATS);
            for (at, (lane, memory_bytes, payload_bytes)) in (0..).zip(seated) {
                let claim = Claim { memory_bytes, payload_bytes, ..claim(lane) };
                if gate.closed_lanes & Gate::lane_bit(lane) == 0 && memory_bytes <= gate.memory_bytes {
                    let began = Instant::now();
                    schedule.take_over(Seated { number: (1 << 63) | at, claim, began }, began);
                }
            }
            prop_assert!(schedule.begun() <= limits.instances_max);
            prop_assert!(schedule.begun_memory_bytes <= limits.memory_bytes_max);
            prop_assert!(schedule.payload_bytes <= limits.payload_bytes_max);
        }

        /// A function that has calls here is one whose next call has to ask.
        #[test]
        fn functions_with_calls_have_to_ask(lanes in prop::collection::vec(0u64..200, 0..30)) {
            let mut schedule = schedule(Budgets { memory_bytes_max: 1 << 20, payload_bytes_max: 1 << 20, ..budgets() });
            let mut running = Vec::new();
            for lane in lanes {
                if submit(&mut schedule, claim(lane), lane).is_ok() {
                    running.extend(take(&mut schedule));
                }
                let gate = schedule.gate(SEATS);
                prop_assert!(running.iter().all(|(_, lane)| gate.closed_lanes & Gate::lane_bit(*lane) != 0));
            }
            for (number, _) in running {
                ends(&mut schedule, number);
            }
            while let Some((number, _)) = take(&mut schedule) {
                ends(&mut schedule, number);
            }
            prop_assert_eq!(schedule.gate(SEATS).closed_lanes, 0);
        }
    }

    #[test]
    fn nobody_is_passed_over() {
        let mut schedule = schedule(Budgets { memory_bytes_max: 1 << 20, payload_bytes_max: 1 << 20, ..budgets() });
        assert_eq!(schedule.gate(SEATS).closed_lanes, 0);
        submit(&mut schedule, claim(1), 0).unwrap();
        assert_eq!(schedule.gate(SEATS), Gate::CLOSED);
        let (number, job) = take(&mut schedule).unwrap();
        assert_eq!(schedule.gate(SEATS).closed_lanes, Gate::lane_bit(1));
        yields(&mut schedule, number, job, Duration::ZERO);
        assert_eq!(schedule.gate(SEATS), Gate::CLOSED, "one that is ready goes first");
    }

    #[test]
    fn a_call_taken_over_is_one_like_any_other() {
        let mut schedule = schedule(budgets());
        let began = Instant::now();
        schedule.take_over(Seated { number: 1 << 63, claim: Claim { concurrency: 1, ..claim(1) }, began }, began);
        assert_eq!((schedule.begun(), schedule.counts(1)), (1, (1, 0)));
        submit(&mut schedule, Claim { concurrency: 1, ..claim(1) }, 7).unwrap();
        assert!(take(&mut schedule).is_none(), "its function has its one call");
        ends(&mut schedule, 1 << 63);
        assert_eq!(take(&mut schedule).unwrap().1, 7);
    }
}
