//! Steps in layers: each right below the lowest that it comes after, and side by side so that few lines cross.

use nigh_proto::Flow;

/// Passes over the layers, down and up, that put steps near those that they are joined to.
const PASSES: usize = 8;

/// The layers from the first to the last, each from left to right.
pub(crate) fn layers(flow: &Flow) -> Vec<Vec<usize>> {
    let mut layer_of = vec![0; flow.steps().len()];
    for &at in flow.order() {
        let before = flow.steps()[at].after.iter().map(|&before| layer_of[before] + 1);
        layer_of[at] = before.max().unwrap_or(0);
    }
    let depth = layer_of.iter().max().map_or(0, |deepest| deepest + 1);
    let mut layers: Vec<Vec<usize>> = vec![Vec::new(); depth];
    layer_of.iter().enumerate().for_each(|(at, &layer)| layers[layer].push(at));
    for pass in 0..PASSES {
        let downwards = pass % 2 == 0;
        let places = |layers: &[Vec<usize>]| {
            let mut place = vec![0.0; flow.steps().len()];
            for layer in layers {
                for (at, &step) in layer.iter().enumerate() {
                    place[step] = centre(at, layer.len());
                }
            }
            place
        };
        let order: Vec<usize> =
            if downwards { (1..depth).collect() } else { (0..depth.saturating_sub(1)).rev().collect() };
        for layer in order {
            let place = places(&layers);
            let pull = |step: &usize| {
                let joined = if downwards { &flow.steps()[*step].after[..] } else { flow.successors(*step) };
                mean(joined.iter().map(|&other| place[other])).unwrap_or(place[*step])
            };
            // A stable sort: steps that are pulled alike stay as they were written.
            layers[layer].sort_by(|a, b| pull(a).total_cmp(&pull(b)));
        }
    }
    layers
}

/// Where a step stands in its layer, from 0 to 1.
pub(crate) fn centre(at: usize, of: usize) -> f64 {
    let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    (count(at) + 0.5) / count(of)
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> Option<f64> {
    let count = f64::from(u32::try_from(values.len()).ok()?);
    (count > 0.0).then(|| values.sum::<f64>() / count)
}
