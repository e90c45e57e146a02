//! What computers of the older system were accepted by, as numbers.

use std::time::Duration;

use nigh_model::{
    Completion, Container, Demand, FileError, Formulas, Hardware, IntelServer, Linear, Model, OpId, Operation, Output,
    Processor, ProcessorKind, Raspberry, Refusal, Requirement,
};

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn is_near(have: Duration, want: f64) -> bool {
    (have.as_secs_f64() - want).abs() <= 2e-9
}

fn processor(name: &str, speed: f64, cores: u32, memory_bytes: u64) -> Processor {
    Processor { name: name.to_owned(), kind: ProcessorKind::GenericCpu, speed, cores, memory_bytes }
}

fn container(name: &str, processor: &str, workers: u32) -> Container {
    let requirement = Requirement::Proportional {
        ops: Linear { coefficient: 1.0, offset: 0.0 },
        memory: Linear { coefficient: 0.0, offset: 0.0 },
    };
    Container {
        name: name.to_owned(),
        processor: processor.to_owned(),
        workers,
        queue: 1000,
        function: format!("{name}-function"),
        requirement,
        output: Output::CopyInput,
    }
}

/// One processor with one container.
fn single(speed: f64, memory_bytes: u64, workers: u32, formulas: Formulas) -> Hardware {
    Hardware {
        processors: vec![processor("cpu", speed, 1, memory_bytes)],
        containers: vec![container("one", "cpu", workers)],
        formulas,
    }
}

fn operation(model: &Model, ops: u64, memory_bytes: u64) -> Operation {
    let (container, _) = model.containers().next().expect("a container");
    Operation { container, demand: Demand { ops, memory_bytes } }
}

fn submit(model: &mut Model, ops: u64, memory_bytes: u64, now: Duration) -> OpId {
    model.submit(operation(model, ops, memory_bytes), now).expect("it is taken")
}

/// Everything to its end.
fn finish(model: &mut Model) -> Vec<Completion> {
    let mut done = Vec::new();
    while let Some(at) = model.next_event() {
        done.extend(model.advance(at));
    }
    done
}

fn running_and_waiting(model: &Model) -> (u32, u32) {
    let (container, _) = model.containers().next().expect("a container");
    model.counts(container)
}

#[test]
fn workers_bound_what_runs_at_once() {
    let mut model = Model::new(single(42.0, 1, 5, Formulas::Older)).unwrap();
    let ids: Vec<OpId> = (0..10u32)
        .map(|pushed| {
            let id = submit(&mut model, 1, 0, Duration::ZERO);
            let active = (pushed + 1).min(5);
            assert!(is_near(model.next_event().unwrap(), f64::from(active) / 42.0), "after {pushed}");
            assert_eq!(running_and_waiting(&model), (active, pushed + 1 - active));
            id
        })
        .collect();
    let done = finish(&mut model);
    assert_eq!(done.iter().map(|done| done.id).collect::<Vec<_>>(), ids, "in the order of arrival");
    let mut before = 0.0;
    let gaps = done.iter().map(|done| {
        let gap = done.finished.as_secs_f64() - before;
        before += gap;
        (gap * 42.0 / 5.0).round()
    });
    assert_eq!(gaps.collect::<Vec<_>>(), [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn a_dry_run_by_the_older_formula() {
    let mut model = Model::new(single(42.0, 1, 5, Formulas::Older)).unwrap();
    let asked = |model: &mut Model| {
        let operation = operation(model, 1, 0);
        model.estimate(operation, Duration::ZERO).unwrap().total()
    };
    assert!(is_near(asked(&mut model), 1.0 / 42.0));
    for pushed in 0..10u32 {
        submit(&mut model, 1, 0, Duration::ZERO);
        let want = if pushed < 4 { f64::from(2 + pushed) } else { f64::from(5 * (pushed - 2)) };
        assert!(is_near(asked(&mut model), want / 42.0), "after {pushed}: {:?}, not {want}/42", asked(&mut model));
    }
    assert!(is_near(asked(&mut model), 35.0 / 42.0));
}

#[test]
fn an_exact_dry_run_says_what_will_be() {
    let mut model = Model::new(single(42.0, 1, 5, Formulas::Exact)).unwrap();
    for _ in 0..10 {
        submit(&mut model, 1, 0, Duration::ZERO);
    }
    let asked = operation(&model, 1, 0);
    let estimate = model.estimate(asked, Duration::ZERO).unwrap();
    // Five, five, and one alone.
    assert!(is_near(estimate.wait, 10.0 / 42.0) && is_near(estimate.run, 1.0 / 42.0), "{estimate:?}");
}

#[test]
fn memory_bounds_what_runs_at_once() {
    let mut model = Model::new(single(1.0, 100, 10, Formulas::Exact)).unwrap();
    let start = Duration::ZERO;
    for bytes in [10, 20, 30, 30] {
        submit(&mut model, bytes, bytes, start);
    }
    assert_eq!(running_and_waiting(&model), (4, 0));
    let large = submit(&mut model, 30, 30, start);
    assert_eq!(running_and_waiting(&model), (4, 1), "90 of 100 bytes are taken");
    let overtakes = submit(&mut model, 10, 10, start);
    assert_eq!(running_and_waiting(&model), (5, 1));
    let small = submit(&mut model, 10, 10, start);
    assert_eq!(running_and_waiting(&model), (5, 2));

    let nearest = model.next_event().unwrap();
    assert!(is_near(nearest, 50.0), "five share a core: {nearest:?}");
    assert_eq!(model.advance(nearest / 2).count(), 0);
    assert_eq!(model.next_event().unwrap() - nearest / 2, nearest / 2, "half the time, half of what is left");
    // Time does not go back.
    assert_eq!(model.advance(start).count(), 0);
    assert_eq!(model.next_event(), Some(nearest));

    // Those of 10 bytes end; the large one waits until there are 30, and the small one behind it waits with it.
    let ended: Vec<OpId> = model.advance(nearest).map(|done| done.id).collect();
    assert_eq!((ended.len(), ended[1]), (2, overtakes));
    assert_eq!(running_and_waiting(&model), (3, 2));
    let done = finish(&mut model);
    let started = |id: OpId| done.iter().find(|done| done.id == id).unwrap().started;
    assert!(started(large) > nearest && started(small) >= started(large), "{done:?}");
    assert_eq!(done.len(), 5);
    assert_eq!(
        model.submit(operation(&model, 1, 101), start),
        Err(Refusal::TooMuchMemory { wanted: 101, processor: "cpu".into(), total: 100 })
    );
}

#[test]
fn a_computer_takes_as_long_as_its_processor_needs() {
    for workers in [1, 5, 100] {
        let mut model = Model::new(single(100.0, 1, workers, Formulas::Exact)).unwrap();
        let first = submit(&mut model, 10, 0, Duration::ZERO);
        let done = finish(&mut model);
        assert_eq!((done[0].id, done[0].finished), (first, seconds(0.1)));
        let ids: Vec<u64> = (0..10).map(|_| submit(&mut model, 10, 0, seconds(0.1)).number()).collect();
        assert_eq!(ids, (first.number() + 1..=first.number() + 10).collect::<Vec<_>>());
        assert_eq!(finish(&mut model).last().unwrap().finished, seconds(1.1), "{workers} workers");
    }
    assert_eq!(Output::CopyInput.of(b"abc"), b"abc");
    assert_eq!(Output::Fixed("done".into()).of(b"abc"), b"done");
}

#[test]
fn processors_do_not_wait_for_each_other() {
    let mut model = Model::new(Hardware {
        processors: vec![processor("slow", 1.0, 1, 1), processor("fast", 100.0, 1, 1)],
        containers: vec![container("long", "slow", 1), container("short", "fast", 1)],
        formulas: Formulas::Exact,
    })
    .unwrap();
    let ask = |model: &Model, function| model.operation(function, 10).unwrap();
    let long = model.submit(ask(&model, "long-function"), Duration::ZERO).unwrap();
    for _ in 0..10 {
        model.submit(ask(&model, "short-function"), Duration::ZERO).unwrap();
    }
    let done = finish(&mut model);
    assert_eq!(done.last().map(|done| (done.id, done.finished)), Some((long, seconds(10.0))));
    assert_eq!(done[9].finished, seconds(1.0));
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let good = || Hardware {
        processors: vec![processor("cpu", 1.0, 1, 1)],
        containers: vec![container("one", "cpu", 1)],
        formulas: Formulas::Exact,
    };
    assert_eq!(good().check(), Ok(()));
    let refused = |change: &dyn Fn(&mut Hardware)| {
        let mut hardware = good();
        change(&mut hardware);
        Model::new(hardware).unwrap_err().to_string()
    };
    let twice = refused(&|hardware| hardware.processors.push(processor("cpu", 2.0, 1, 1)));
    assert_eq!(twice, "there are two processors called \"cpu\"; each needs a name of its own");
    let twice = refused(&|hardware| hardware.containers.push(container("one", "cpu", 1)));
    assert_eq!(twice, "there are two containers called \"one\"; each needs a name of its own");
    let same = refused(&|hardware| {
        hardware.containers.push(Container { function: "one-function".into(), ..container("two", "cpu", 1) });
    });
    assert!(same.starts_with("two containers run \"one-function\""), "{same}");
    let lost = refused(&|hardware| hardware.containers[0].processor = "gpu".into());
    assert_eq!(lost, "container \"one\" is on processor \"gpu\", which there is not; there are: cpu");
    for change in [
        (&|hardware: &mut Hardware| hardware.containers[0].workers = 0) as &dyn Fn(&mut Hardware),
        &|hardware| hardware.processors[0].cores = 0,
        &|hardware| hardware.processors[0].memory_bytes = 0,
        &|hardware| hardware.processors[0].speed = 0.0,
        &|hardware| hardware.processors[0].speed = f64::NAN,
        &|hardware| hardware.processors[0].name = String::new(),
        &|hardware| hardware.containers[0].function = String::new(),
        &|hardware| hardware.containers.clear(),
    ] {
        assert!(!refused(change).is_empty());
    }
    let unknown = Model::new(good()).unwrap().operation("other", 1).unwrap_err();
    assert_eq!(unknown.to_string(), "no container runs \"other\"; there are containers for: one-function");
    let told = Hardware::raspberry(&Raspberry::default()).to_string();
    assert_eq!(
        told,
        "arm: GenericCpu, 4 cores of 1e11 operations/s, 536870912 bytes\n\
         bm2837: GenericGpu, 1 cores of 1e11 operations/s, 536870912 bytes\n\
         ccontainer0: clambda0 on arm, 4 workers, at most 256 waiting, 1e6 × size + 4e6 operations, 1e2 × size + 0e0 bytes\n\
         gcontainer0: glambda0 on bm2837, 2 workers, at most 256 waiting, 1e6 × size + 1e6 operations, 1e2 × size + 0e0 bytes\n"
    );
}

#[test]
fn requirements_grow_with_the_input_and_are_never_negative() {
    let linear = |coefficient, offset| Linear { coefficient, offset };
    let proportional = Requirement::Proportional { ops: linear(1.0, -100.0), memory: linear(2.0, -200.0) };
    assert_eq!(proportional.of(1000), Demand { ops: 900, memory_bytes: 1800 });
    assert_eq!(proportional.of(100), Demand::default());
    assert_eq!(proportional.of(0), Demand::default());
    let fixed = Demand { ops: 7, memory_bytes: 8 };
    assert_eq!(Requirement::Fixed(fixed).of(1000), fixed);
    let huge = Requirement::Proportional { ops: linear(1e30, 0.0), memory: linear(1e30, 0.0) };
    assert_eq!(huge.of(u64::MAX), Demand { ops: 1 << 53, memory_bytes: u64::MAX });
}

#[test]
fn built_in_hardware() {
    let raspberry = Model::new(Hardware::raspberry(&Raspberry { cpu_containers: 2, ..Raspberry::default() })).unwrap();
    let functions: Vec<&str> = raspberry.containers().map(|(_, container)| container.function.as_str()).collect();
    assert_eq!(functions, ["clambda0", "clambda1", "glambda0"]);
    let on_gpu = raspberry.operation("glambda0", 1000).unwrap();
    assert_eq!(on_gpu.demand, Demand { ops: 1_001_000_000, memory_bytes: 100_000 });
    assert_eq!(raspberry.processor_of(on_gpu.container).name, "bm2837");

    let mut server = Model::new(Hardware::intel_server(&IntelServer::default())).unwrap();
    let operation = server.operation("clambda0", 1000).unwrap();
    assert_eq!(operation.demand.ops, 1_004_000_000);
    server.submit(operation, Duration::ZERO).unwrap();
    assert_eq!(server.next_event(), Some(seconds(0.251)), "4e9 operations per second");
}

#[test]
fn the_examples_load_and_say_the_same() {
    let (toml, json) =
        (Hardware::from_text(Hardware::EXAMPLE).unwrap(), Hardware::from_text(Hardware::EXAMPLE_JSON).unwrap());
    assert_eq!(toml, json);
    assert_eq!((json.processors[0].cores, json.processors[0].memory_bytes), (1, 500_000_000));
    assert_eq!(json.containers[0].requirement.of(1000), Demand { ops: 1_004_000_000, memory_bytes: 100_000 });
}

#[test]
fn files_that_are_no_good_say_why() {
    let refused = |from: &str, to: &str| {
        let (toml, json) = (Hardware::EXAMPLE, Hardware::EXAMPLE_JSON);
        let text = if json.contains(from) { json.replacen(from, to, 1) } else { toml.replacen(from, to, 1) };
        assert!(text != json && text != toml, "{from}");
        Hardware::from_text(&text).unwrap_err()
    };
    assert!(matches!(refused("\"1.0\"", "\"2.0\""), FileError::Version { found } if found == "2.0"));
    for (from, to, named) in [
        ("\"cores\": 1,", "", "cores"),
        ("\"cores\": 1,", "\"cores\": 1.5,", "1.5"),
        ("GenericCpu", "Abacus", "Abacus"),
        ("\"proportional\"", "\"quadratic\"", "quadratic"),
        ("\"copy-input\"", "\"none\"", "none"),
        ("\"copy-input\"", "\"fixed\"", "output-value"),
        ("\"op-coeff\": 1e6,", "", "op-coeff"),
        ("\"arm\",\n      \"num", "\"leg\",\n      \"num", "leg"),
        ("5e8 }", "-1 }", "-1"),
        ("memory = 5e8", "memory = \"much\"", "much"),
        ("speed = 4e9", "sped = 4e9", "sped"),
        ("formulas = \"exact\"", "formulas = \"wishful\"", "wishful"),
        ("ops = { coefficient", "ops = { factor", "coefficient"),
    ] {
        let error = refused(from, to);
        assert!(error.to_string().contains(named), "{from} → {to}: {error}");
    }
    let with_size = Hardware::EXAMPLE.replacen("memory = 5e8", "memory = \"512MiB\"", 1);
    assert_eq!(Hardware::from_text(&with_size).unwrap().processors[0].memory_bytes, 512 << 20);
    let fixed = Hardware::EXAMPLE.replacen("ops = { coefficient = 1e6, offset = 4e6 }", "ops = 5e6", 1);
    let fixed = fixed.replacen("memory = { coefficient = 100, offset = 0 }", "output = \"done\"", 1);
    let fixed = Hardware::from_text(&fixed).unwrap();
    assert_eq!(fixed.containers[0].requirement, Requirement::Fixed(Demand { ops: 5_000_000, memory_bytes: 0 }));
    assert_eq!(fixed.containers[0].output, Output::Fixed("done".into()));
}

#[test]
fn utilisation_is_of_cores_or_by_the_older_formula_of_operations() {
    for (formulas, first) in [(Formulas::Exact, 0.5), (Formulas::Older, 1.0)] {
        let mut model = Model::new(single(100.0, 1, 5, formulas)).unwrap();
        // Two share the core for half a second.
        submit(&mut model, 25, 0, Duration::ZERO);
        submit(&mut model, 25, 0, Duration::ZERO);
        assert_eq!(model.advance(seconds(1.0)).count(), 2);
        let (container, _) = model.containers().next().unwrap();
        assert_eq!(model.utilisation_of(container, seconds(1.0)), [first; 3], "{formulas:?}");
        let [one, ten, thirty] = model.utilisation_of(container, seconds(20.0));
        assert_eq!((one, ten), (0.0, 0.0));
        assert!((thirty - first / 20.0).abs() < 1e-6, "{thirty}");
        let names: Vec<String> =
            model.utilisation(seconds(20.0)).map(|(processor, _)| processor.name.clone()).collect();
        assert_eq!(names, ["cpu"]);
    }
}

#[test]
fn memory_that_another_container_frees_lets_the_waiting_start() {
    let mut model = Model::new(Hardware {
        processors: vec![processor("cpu", 10.0, 1, 100)],
        containers: vec![container("one", "cpu", 1), container("two", "cpu", 1)],
        formulas: Formulas::Exact,
    })
    .unwrap();
    let ids: Vec<_> = model.containers().map(|(id, _)| id).collect();
    let all = Demand { ops: 10, memory_bytes: 100 };
    let first = model.submit(Operation { container: ids[0], demand: all }, Duration::ZERO).unwrap();
    // Nothing of its own container runs that could wake it.
    let second = model.submit(Operation { container: ids[1], demand: all }, Duration::ZERO).unwrap();
    let done = finish(&mut model);
    assert_eq!(
        done.iter().map(|done| (done.id, done.finished)).collect::<Vec<_>>(),
        [(first, seconds(1.0)), (second, seconds(2.0))]
    );
}
