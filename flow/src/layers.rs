//! Steps in layers: each right below the lowest that it comes after, and side by side so that few lines cross.

use nigh_proto::Flow;

/// Passes over the layers, down and up, that put what is joined near each other.
const PASSES: usize = 8;

/// Where everything of a drawing stands. Nodes are the flow's steps, by their numbers, and after them the places where a line
/// passes a layer.
pub(crate) struct Layout {
    /// The layers from the first to the last, each with its nodes from left to right.
    pub(crate) layers: Vec<Vec<usize>>,
    /// The lines: from a step through layers that they pass to another step.
    pub(crate) lines: Vec<Vec<usize>>,
}

impl Layout {
    pub(crate) fn of(flow: &Flow) -> Self {
        let layer_of = depths(flow);
        let depth = layer_of.iter().max().map_or(0, |deepest| deepest + 1);
        let mut layers: Vec<Vec<usize>> = vec![Vec::new(); depth];
        layer_of.iter().enumerate().for_each(|(at, &layer)| layers[layer].push(at));
        let mut nodes = flow.steps().len();
        let mut lines = Vec::new();
        for (at, step) in flow.steps().iter().enumerate() {
            for &before in &step.after {
                let mut line = vec![before];
                for layer in &mut layers[layer_of[before] + 1..layer_of[at]] {
                    layer.push(nodes);
                    line.push(nodes);
                    nodes += 1;
                }
                line.push(at);
                lines.push(line);
            }
        }
        let mut layout = Self { layers, lines };
        layout.untangle(nodes);
        layout
    }

    /// The barycentre heuristic of Sugiyama: over and over each node goes to the mean place of those that it is joined to, in
    /// the layer above and then in the layer below.
    fn untangle(&mut self, nodes: usize) {
        let (mut above, mut below) = (vec![Vec::new(); nodes], vec![Vec::new(); nodes]);
        for line in &self.lines {
            for pair in line.windows(2) {
                below[pair[0]].push(pair[1]);
                above[pair[1]].push(pair[0]);
            }
        }
        let mut place = vec![0.0; nodes];
        let mut settle = |layer: &mut Vec<usize>, joined: Option<&[Vec<usize>]>| {
            if let Some(joined) = joined {
                let pull: Vec<f64> =
                    layer.iter().map(|&node| mean(&joined[node], &place).unwrap_or(place[node])).collect();
                let mut order: Vec<usize> = (0..layer.len()).collect();
                // A stable sort: nodes that are pulled alike stay as they were.
                order.sort_by(|&a, &b| pull[a].total_cmp(&pull[b]));
                *layer = order.into_iter().map(|at| layer[at]).collect();
            }
            let width = count(layer.len());
            layer.iter().enumerate().for_each(|(at, &node)| place[node] = (count(at) + 0.5) / width);
        };
        self.layers.iter_mut().for_each(|layer| settle(layer, None));
        for _ in 0..PASSES / 2 {
            self.layers.iter_mut().for_each(|layer| settle(layer, Some(&above)));
            self.layers.iter_mut().rev().for_each(|layer| settle(layer, Some(&below)));
        }
    }
}

/// Of each step how many come before it on its longest way.
fn depths(flow: &Flow) -> Vec<usize> {
    let mut depth = vec![0; flow.steps().len()];
    for &at in flow.order() {
        depth[at] = flow.steps()[at].after.iter().map(|&before| depth[before] + 1).max().unwrap_or(0);
    }
    depth
}

pub(crate) fn count(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

fn mean(joined: &[usize], place: &[f64]) -> Option<f64> {
    (!joined.is_empty()).then(|| joined.iter().map(|&node| place[node]).sum::<f64>() / count(joined.len()))
}
