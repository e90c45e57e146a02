//! Queues whose behaviour is known by formula: the model agrees with queueing theory.

#[path = "../examples/queues/queue.rs"]
mod queue;

use queue::{QUEUES, SERVICE};

#[test]
fn the_formulas_are_those_of_the_books() {
    let at = |name: &str, load| QUEUES.iter().find(|queue| queue.name == name).unwrap().expected(load);
    let near = |have: f64, want: f64| (have - want).abs() < 1e-3;
    assert_eq!(SERVICE.as_millis(), 1);
    assert!(near(at("M/M/1", 0.5), 2.0) && near(at("M/M/1 PS", 0.8), 5.0));
    assert!(near(at("M/D/1", 0.5), 1.5) && near(at("M/D/1 PS", 0.5), 2.0));
    // Erlang C of 4 servers at an offered load of 2: 4/23.
    assert!(near(at("M/M/4", 0.5), 1.0 + 4.0 / 23.0 / 2.0));
}

#[test]
fn the_model_agrees_with_the_formulas() {
    for queue in QUEUES {
        for load in [0.3, 0.5, 0.8] {
            let found = queue.measure(load, 10, 6000);
            let expected = queue.expected(load);
            assert!(found.sojourn.holds(expected), "{} at {load}: {found:?}, not {expected}", queue.name);
            assert!(found.sojourn.half_width < 0.15 * expected, "{} at {load}: {found:?} says little", queue.name);
            assert!(found.busy.holds(load), "{} at {load}: {found:?}", queue.name);
        }
    }
}
