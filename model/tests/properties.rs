//! What holds whatever arrives: nothing is lost, nobody starves, no core idles in vain, and looking changes nothing.

use std::time::Duration;

use nigh_model::{
    Completion, Container, ContainerId, Demand, Formulas, Hardware, Linear, Model, OVERTAKEN_MAX, OpId, Operation,
    Output, Processor, ProcessorKind, Requirement,
};
use proptest::prelude::*;

/// Bytes of memory of every processor.
const MEMORY: u64 = 100;

/// One arrival: so long after the one before, at this container.
#[derive(Debug, Clone)]
struct Arrival {
    after: Duration,
    container: usize,
    demand: Demand,
}

fn processor(number: usize, cores: u32, speed: f64) -> Processor {
    Processor { name: format!("p{number}"), kind: ProcessorKind::GenericCpu, speed, cores, memory_bytes: MEMORY }
}

fn container(number: usize, processor: usize, workers: u32) -> Container {
    let nothing = Linear { coefficient: 0.0, offset: 0.0 };
    Container {
        name: format!("c{number}"),
        processor: format!("p{processor}"),
        workers,
        queue: u32::MAX,
        function: format!("f{number}"),
        requirement: Requirement::Proportional { ops: nothing, memory: nothing },
        output: Output::CopyInput,
    }
}

fn hardware() -> impl Strategy<Value = Hardware> {
    let processors = prop::collection::vec((1u32..4, 1.0f64..1e6), 1..3);
    processors.prop_flat_map(|processors| {
        let containers = prop::collection::vec((0..processors.len(), 1u32..5), 1..4);
        containers.prop_map(move |containers| Hardware {
            processors: processors
                .iter()
                .enumerate()
                .map(|(at, (cores, speed))| processor(at, *cores, *speed))
                .collect(),
            containers: containers.iter().enumerate().map(|(at, (on, workers))| container(at, *on, *workers)).collect(),
            formulas: Formulas::Exact,
        })
    })
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let demand = (0u64..2000, 0..=MEMORY).prop_map(|(ops, memory_bytes)| Demand { ops, memory_bytes });
    let after = prop_oneof![Just(Duration::ZERO), (0u64..20_000_000).prop_map(Duration::from_nanos)];
    let arrival =
        (after, 0usize..4, demand).prop_map(|(after, container, demand)| Arrival { after, container, demand });
    prop::collection::vec(arrival, 1..60)
}

fn operation(model: &Model, arrival: &Arrival) -> Operation {
    let ids: Vec<ContainerId> = model.containers().map(|(id, _)| id).collect();
    Operation { container: ids[arrival.container % ids.len()], demand: arrival.demand }
}

fn finish(model: &mut Model) -> Vec<Completion> {
    let mut done: Vec<Completion> = model.advance(Duration::ZERO).collect();
    while let Some(at) = model.next_event() {
        done.extend(model.advance(at));
    }
    done
}

/// All arrivals, then everything to its end; `look` may advance in between.
fn run(
    model: &mut Model,
    arrivals: &[Arrival],
    mut look: impl FnMut(&mut Model, Duration, Duration) -> Vec<Completion>,
) -> (Vec<(OpId, Operation)>, Vec<Completion>) {
    let (mut now, mut taken, mut done) = (Duration::ZERO, Vec::new(), Vec::new());
    for arrival in arrivals {
        done.extend(look(model, now, now + arrival.after));
        now += arrival.after;
        let operation = operation(model, arrival);
        taken.push((model.submit(operation, now).expect("there is room"), operation));
    }
    done.extend(finish(model));
    (taken, done)
}

fn no_look(_: &mut Model, _: Duration, _: Duration) -> Vec<Completion> {
    Vec::new()
}

/// Work that a processor did while these ran, from when they started and ended alone.
fn work_done(processor: &Processor, done: &[&Completion]) -> f64 {
    let mut times: Vec<Duration> = done.iter().flat_map(|one| [one.started, one.finished]).collect();
    times.sort();
    times.dedup();
    let during = |span: &[Duration]| {
        let running = done.iter().filter(|one| one.started <= span[0] && one.finished >= span[1]).count();
        let cores = running.min(processor.cores as usize) as f64;
        cores * processor.speed * (span[1] - span[0]).as_secs_f64()
    };
    times.windows(2).map(during).sum()
}

proptest! {
    #[test]
    fn all_that_is_taken_ends_once_after_it_started_after_it_came(hardware in hardware(), arrivals in arrivals()) {
        let mut model = Model::new(hardware).unwrap();
        let (taken, done) = run(&mut model, &arrivals, no_look);
        let mut ended: Vec<OpId> = done.iter().map(|done| done.id).collect();
        ended.sort();
        prop_assert_eq!(ended, taken.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        prop_assert!(done.iter().all(|done| done.submitted <= done.started && done.started <= done.finished));
        prop_assert!(done.is_sorted_by_key(|done| done.finished));
        prop_assert_eq!((model.under_way(), model.next_event()), (0, None));
    }

    #[test]
    fn exactly_the_work_that_was_asked_for_is_done(hardware in hardware(), arrivals in arrivals()) {
        let mut model = Model::new(hardware.clone()).unwrap();
        let (taken, done) = run(&mut model, &arrivals, no_look);
        for processor in &hardware.processors {
            let is_here = |id: &ContainerId| model.processor_of(*id).name == processor.name;
            let here: Vec<&Completion> = done.iter().filter(|done| is_here(&done.container)).collect();
            let asked: u64 = taken.iter().filter(|(_, one)| is_here(&one.container)).map(|(_, one)| one.demand.ops).sum();
            let found = work_done(processor, &here);
            // Each end is at a whole nanosecond.
            let rounding = here.len() as f64 * f64::from(processor.cores) * processor.speed * 1e-9;
            prop_assert!((found - asked as f64).abs() <= rounding + 1e-6 * asked as f64, "{found}, not {asked}");
        }
    }

    #[test]
    fn a_processor_never_idles_while_something_waits_for_it(hardware in hardware(), arrivals in arrivals()) {
        let mut model = Model::new(hardware.clone()).unwrap();
        let (mut now, mut at_rest) = (Duration::ZERO, Vec::new());
        let mut look = |model: &Model| {
            for processor in &hardware.processors {
                let here = model.containers().map(|(id, _)| id).filter(|id| model.processor_of(*id).name == processor.name);
                let (running, waiting) = here.map(|id| model.counts(id)).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
                if running == 0 && waiting > 0 {
                    at_rest.push(processor.name.clone());
                }
            }
        };
        for arrival in &arrivals {
            now += arrival.after;
            let operation = operation(&model, arrival);
            model.submit(operation, now).unwrap();
            look(&model);
        }
        while let Some(at) = model.next_event() {
            let _ = model.advance(at).count();
            look(&model);
        }
        prop_assert!(at_rest.is_empty(), "{at_rest:?} idle");
    }

    #[test]
    fn looking_in_between_changes_nothing(hardware in hardware(), arrivals in arrivals(), parts in 2u32..7) {
        let (mut seldom, mut often) = (Model::new(hardware.clone()).unwrap(), Model::new(hardware).unwrap());
        let look = |model: &mut Model, from: Duration, to: Duration| {
            let mut seen = Vec::new();
            for part in 1..parts {
                let at = from + (to - from) * part / parts;
                seen.extend(model.advance(at));
                let _ = (model.next_event(), model.utilisation(at).count());
            }
            seen
        };
        prop_assert_eq!(run(&mut seldom, &arrivals, no_look), run(&mut often, &arrivals, look));
    }

    #[test]
    fn what_is_estimated_is_what_happens_if_nothing_else_arrives(hardware in hardware(), arrivals in arrivals(), later in 0u64..5_000_000) {
        let mut model = Model::new(hardware).unwrap();
        let mut now = Duration::ZERO;
        for arrival in &arrivals {
            now += arrival.after;
            let operation = operation(&model, arrival);
            model.submit(operation, now).unwrap();
        }
        now += Duration::from_nanos(later);
        let last = operation(&model, &arrivals[0]);
        let estimate = model.estimate(last, now).unwrap();
        let id = model.submit(last, now).unwrap();
        let done = finish(&mut model).into_iter().find(|done| done.id == id).unwrap();
        prop_assert_eq!((estimate.wait, estimate.run), (done.wait(), done.run()));
    }

    #[test]
    fn what_is_cancelled_never_ends_and_leaves_nothing_behind(
        hardware in hardware(),
        arrivals in arrivals(),
        cancels in prop::collection::vec((any::<prop::sample::Index>(), 0u64..10_000_000), 1..20),
    ) {
        let mut model = Model::new(hardware).unwrap();
        let (mut now, mut taken) = (Duration::ZERO, Vec::new());
        for arrival in &arrivals {
            now += arrival.after;
            let operation = operation(&model, arrival);
            taken.push(model.submit(operation, now).unwrap());
        }
        let mut cancelled = Vec::new();
        for (which, after) in cancels {
            now += Duration::from_nanos(after);
            let id = *which.get(&taken);
            if model.cancel(id, now) {
                prop_assert!(!model.cancel(id, now), "once is enough");
                cancelled.push(id);
            }
        }
        let done: Vec<OpId> = finish(&mut model).iter().map(|done| done.id).collect();
        prop_assert_eq!(done.len() + cancelled.len(), taken.len());
        prop_assert!(done.iter().all(|id| !cancelled.contains(id)));
        // All memory and every worker is free again.
        let ids: Vec<ContainerId> = model.containers().map(|(id, _)| id).collect();
        for container in ids {
            let id = model.submit(Operation { container, demand: Demand { ops: 1, memory_bytes: MEMORY } }, now).unwrap();
            prop_assert_eq!(model.counts(container), (1, 0));
            prop_assert!(model.cancel(id, now));
        }
    }

    #[test]
    fn whatever_the_order_of_times_it_does_not_panic(hardware in hardware(), arrivals in arrivals(), times in prop::collection::vec(any::<u64>(), 60)) {
        let mut model = Model::new(hardware).unwrap();
        let mut seen = 0;
        for (arrival, at) in arrivals.iter().zip(times) {
            let operation = operation(&model, arrival);
            model.submit(operation, Duration::from_nanos(at)).unwrap();
            seen += model.advance(Duration::from_nanos(at / 2)).count();
        }
        seen += finish(&mut model).len();
        prop_assert_eq!(seen, arrivals.len());
    }
}

/// Small ones keep coming, each before the last has ended, so that memory is never free at once.
fn starts_in_the_end(containers: &[Container], of_small: usize) {
    let hardware = Hardware {
        processors: vec![processor(0, 4, 1000.0)],
        containers: containers.to_vec(),
        formulas: Formulas::Exact,
    };
    let mut model = Model::new(hardware).expect("it makes sense");
    let ids: Vec<ContainerId> = model.containers().map(|(id, _)| id).collect();
    let small = Operation { container: ids[of_small], demand: Demand { ops: 30, memory_bytes: 30 } };
    let step = Duration::from_millis(10);
    model.submit(small, Duration::ZERO).expect("there is room");
    let large = Operation { container: ids[0], demand: Demand { ops: 1, memory_bytes: MEMORY } };
    let large = model.submit(large, step).expect("there is room");
    let (mut now, mut before) = (step, 0);
    loop {
        now += step;
        model.submit(small, now).expect("there is room");
        let done: Vec<Completion> = model.advance(now).collect();
        if done.iter().any(|done| done.id == large) {
            break;
        }
        before += 1;
        assert!(before <= OVERTAKEN_MAX + 10, "it starves");
    }
    assert!(before >= OVERTAKEN_MAX, "{before}: small ones may overtake");
}

#[test]
fn what_needs_much_memory_is_overtaken_but_does_not_starve() {
    starts_in_the_end(&[container(0, 0, 50)], 0);
    starts_in_the_end(&[container(0, 0, 50), container(1, 0, 50)], 1);
}
