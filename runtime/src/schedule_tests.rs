//! Rules of the schedule, on plain numbers as calls.

use proptest::prelude::*;

use super::*;

fn budgets() -> Budgets {
    Budgets { workers: 4, queue_max: 100, payload_bytes_max: 1000, memory_bytes_max: 100 }
}

fn claim(lane: LaneId) -> Claim {
    Claim { lane, concurrency: 2, queue: 10, memory_bytes: 1, payload_bytes: 1, expected: Duration::from_millis(10) }
}

fn schedule(budgets: Budgets) -> Schedule<u64> {
    Schedule::new(budgets, 2, Instant::now())
}

fn take(schedule: &mut Schedule<u64>) -> Option<(Claim, u64)> {
    match schedule.next(Instant::now()) {
        Next::Run(claim, job) => Some((claim, job)),
        Next::Evict | Next::Nothing => None,
    }
}

#[test]
fn functions_take_turns_and_calls_of_one_keep_their_order() {
    let mut schedule = schedule(budgets());
    for job in 0..5 {
        schedule.submit(claim(1), job).unwrap();
    }
    schedule.submit(claim(2), 100).unwrap();
    let started: Vec<_> = std::iter::from_fn(|| take(&mut schedule)).collect();
    assert_eq!(started.iter().map(|(_, job)| *job).collect::<Vec<_>>(), [0, 100, 1]);
    schedule.finish(&started[0].0, Instant::now());
    assert_eq!(take(&mut schedule).unwrap().1, 2);
    assert!(take(&mut schedule).is_none());
}

#[test]
fn a_call_that_begins_at_once_needs_no_place_in_the_queue() {
    let mut schedule = schedule(budgets());
    let claim = Claim { queue: 1, ..claim(1) };
    for job in 0..3 {
        schedule.submit(claim, job).unwrap();
    }
    assert_eq!(schedule.submit(claim, 3), Err(Full::Function));
    take(&mut schedule).unwrap();
    take(&mut schedule).unwrap();
    assert_eq!(schedule.submit(claim, 3), Err(Full::Function));
}

#[test]
fn the_computers_own_queue_and_payloads_are_bounded() {
    let mut few = schedule(Budgets { workers: 1, queue_max: 2, ..budgets() });
    for lane in 0..3 {
        few.submit(claim(lane), lane).unwrap();
    }
    assert_eq!(few.submit(claim(9), 9), Err(Full::Computer));

    let mut big = schedule(budgets());
    let half = Claim { payload_bytes: 500, ..claim(1) };
    let first = big.submit(half, 0).unwrap();
    big.submit(half, 1).unwrap();
    assert_eq!(big.submit(claim(2), 2), Err(Full::Payloads));
    assert_eq!(big.cancel(1, first), Some(0));
    assert!(big.submit(claim(2), 2).is_ok());
}

#[test]
fn a_call_that_waits_for_memory_is_passed_over_but_not_for_ever() {
    let mut schedule = schedule(budgets());
    let large = Claim { memory_bytes: 99, ..claim(1) };
    let small = Claim { memory_bytes: 2, concurrency: 4, queue: 1000, ..claim(2) };
    schedule.submit(small, 0).unwrap();
    let (mut running, _) = take(&mut schedule).unwrap();
    schedule.submit(large, 1000).unwrap();
    for job in 1.. {
        schedule.submit(small, job).unwrap();
        let Some((next, _)) = take(&mut schedule) else { break };
        schedule.finish(&running, Instant::now());
        running = next;
        assert!(job < 1000, "the large call starves");
    }
    schedule.finish(&running, Instant::now());
    assert_eq!(take(&mut schedule).unwrap().1, 1000);
}

#[test]
fn kept_instances_give_way_to_calls() {
    let mut schedule = schedule(budgets());
    assert!(schedule.keep(80));
    assert!(!schedule.keep(80));
    schedule.submit(Claim { memory_bytes: 50, ..claim(1) }, 0).unwrap();
    assert!(matches!(schedule.next(Instant::now()), Next::Evict));
    schedule.release_kept(80);
    assert_eq!(take(&mut schedule).unwrap().1, 0);
}

#[test]
fn the_wait_follows_from_the_work_ahead() {
    let mut schedule = schedule(Budgets { workers: 1, ..budgets() });
    assert_eq!(schedule.expected_wait(1, 2), Duration::ZERO);
    schedule.submit(claim(1), 0).unwrap();
    take(&mut schedule).unwrap();
    assert_eq!(schedule.expected_wait(1, 2), Duration::from_millis(5));
    for job in 1..5 {
        schedule.submit(claim(1), job).unwrap();
    }
    assert_eq!(schedule.expected_wait(1, 2), Duration::from_millis(45));
    // A function without a backlog waits for one call of each other function.
    assert_eq!(schedule.expected_wait(2, 2), Duration::from_millis(15));
}

proptest! {
    /// Whatever happens, no budget is broken, every call is started or cancelled once, and nothing is left behind.
    #[test]
    fn budgets_hold_and_nothing_is_lost(steps in prop::collection::vec((0u8..4, 0u64..5, 1u64..60), 1..300)) {
        let mut schedule = schedule(budgets());
        let (mut running, mut waiting) = (Vec::<Claim>::new(), Vec::<(LaneId, u64, u64)>::new());
        for (job, (step, lane, size)) in (0..).zip(steps) {
            match step {
                0 | 1 => {
                    let claim = Claim { memory_bytes: size, payload_bytes: size, ..claim(lane) };
                    if let Ok(number) = schedule.submit(claim, job) {
                        waiting.push((lane, number, job));
                    }
                }
                2 if running.len() < 4 => {
                    if let Some((claim, job)) = take(&mut schedule) {
                        let at = waiting.iter().position(|waiting| waiting.2 == job).unwrap();
                        prop_assert!(!waiting[..at].iter().any(|earlier| earlier.0 == claim.lane), "not in order");
                        waiting.remove(at);
                        running.push(claim);
                    }
                }
                2 => {}
                _ if size % 2 == 0 && !waiting.is_empty() => {
                    let (lane, number, job) = waiting.swap_remove(usize::try_from(size).unwrap() % waiting.len());
                    prop_assert_eq!(schedule.cancel(lane, number), Some(job));
                }
                _ => if let Some(claim) = running.pop() {
                    schedule.finish(&claim, Instant::now());
                },
            }
            waiting.sort_unstable_by_key(|waiting| waiting.1);
            prop_assert!(running.iter().map(|claim| claim.memory_bytes).sum::<u64>() <= 100);
            prop_assert!((0..5).all(|lane| running.iter().filter(|claim| claim.lane == lane).count() <= 2));
            prop_assert_eq!(schedule.under_way(), running.len() + waiting.len());
        }
        while !running.is_empty() || !waiting.is_empty() {
            running.drain(..).for_each(|claim| schedule.finish(&claim, Instant::now()));
            while let Some((claim, job)) = take(&mut schedule) {
                waiting.retain(|waiting| waiting.2 != job);
                running.push(claim);
            }
            prop_assert!(!running.is_empty() || waiting.is_empty(), "a call is never started");
        }
        // A lane whose calls were all cancelled goes when it would be its turn.
        prop_assert!(take(&mut schedule).is_none());
        prop_assert!(schedule.lanes.is_empty() && schedule.turn.is_empty());
        prop_assert_eq!(schedule.payload_bytes + schedule.running_memory_bytes, 0);
    }
}
