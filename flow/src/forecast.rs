//! How long a flow would take, from what its steps would.

use nigh_proto::reply::Spread;
use nigh_proto::{Estimate, Flow};

/// The estimate of a flow from those of its steps: along the way that takes longest.
///
/// # Panics
/// Where there is not an estimate for each step.
pub fn forecast(flow: &Flow, steps: &[Estimate]) -> Estimate {
    let time = |estimate: &Estimate| estimate.queue + estimate.init + estimate.run;
    let mut until: Vec<Estimate> = vec![Estimate::default(); steps.len()];
    for &at in flow.order() {
        let before = flow.steps()[at].after.iter().map(|&before| until[before]).max_by_key(time);
        until[at] = before.map_or(steps[at], |before| sum(&before, &steps[at]));
    }
    flow.last().map(|at| until[at]).max_by_key(time).unwrap_or_default()
}

fn sum(a: &Estimate, b: &Estimate) -> Estimate {
    let spread = |a: Spread, b: Spread| Spread { p10: a.p10 + b.p10, p90: a.p90 + b.p90 };
    // A sum with one that rests on nothing rests on nothing, unless that one is by a model and needs none.
    let fewest = |of: fn(&Estimate) -> u64| match (a.modelled, b.modelled) {
        (true, _) => of(b),
        (false, true) => of(a),
        (false, false) => of(a).min(of(b)),
    };
    Estimate {
        queue: a.queue + b.queue,
        init: a.init + b.init,
        run: a.run + b.run,
        samples: fewest(|estimate| estimate.samples),
        similar: fewest(|estimate| estimate.similar),
        init_spread: spread(a.init_spread, b.init_spread),
        run_spread: spread(a.run_spread, b.run_spread),
        modelled: a.modelled && b.modelled,
    }
}
