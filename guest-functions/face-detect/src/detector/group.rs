//! Makes objects of candidates: similar ones are put together, groups with few members are dropped, as OpenCV's
//! `groupRectangles` does.

use super::scales::round;
use super::{Object, Rect};

/// How far the sides of two similar rectangles may lie apart, as a part of their mean side.
const TOLERANCE: f64 = 0.2;

/// The groups of more than `min_neighbors` candidates that do not lie within a stronger one, in the order of their first
/// members.
pub(super) fn group(candidates: &[Rect], min_neighbors: u32) -> Vec<Object> {
    let groups = means(candidates);
    let strong = |group: &&Object| group.neighbors > min_neighbors;
    let lies_in = |inner: &Object, outer: &Object| {
        let (dx, dy) = (round(f64::from(outer.rect.w) * TOLERANCE), round(f64::from(outer.rect.h) * TOLERANCE));
        let (i, o) = (inner.rect, outer.rect);
        i.x >= o.x - dx
            && i.y >= o.y - dy
            && i.x + i.w <= o.x + o.w + dx
            && i.y + i.h <= o.y + o.h + dy
            && (outer.neighbors > inner.neighbors.max(3) || inner.neighbors < 3)
    };
    let kept = groups.iter().enumerate().filter(|(_, group)| strong(group)).filter(|(at, group)| {
        let mut others = groups.iter().enumerate().filter(|(other, _)| other != at);
        !others.any(|(_, other)| strong(&other) && lies_in(group, other))
    });
    kept.map(|(_, group)| *group).collect()
}

/// The mean rectangle and the number of members of each group, in the order of their first members.
fn means(candidates: &[Rect]) -> Vec<Object> {
    let group_of = partition(candidates);
    let mut sums = Vec::<([i32; 4], u32)>::new();
    for (rect, group) in candidates.iter().zip(group_of) {
        if group == sums.len() {
            sums.push(([0; 4], 0));
        }
        let (sides, members) = &mut sums[group];
        for (sum, side) in sides.iter_mut().zip([rect.x, rect.y, rect.w, rect.h]) {
            *sum += side;
        }
        *members += 1;
    }
    let mean = |(sides, members): ([i32; 4], u32)| {
        let part = 1.0 / members as f32;
        let [x, y, w, h] = sides.map(|sum| round(f64::from(sum as f32 * part)));
        Object { rect: Rect { x, y, w, h }, neighbors: members }
    };
    sums.into_iter().map(mean).collect()
}

/// The group of each candidate: the connected components of similarity, numbered by their first members.
///
/// Candidates are compared only with those whose left sides are near enough to matter.
fn partition(candidates: &[Rect]) -> Vec<usize> {
    let mut by_left: Vec<usize> = (0..candidates.len()).collect();
    by_left.sort_by_key(|at| candidates[*at].x);
    let mut parents: Vec<usize> = (0..candidates.len()).collect();
    for (rank, at) in by_left.iter().enumerate() {
        let rect = candidates[*at];
        // No other rectangle makes the tolerance greater than the rectangle itself does.
        let reach = f64::from(rect.w + rect.h) * (TOLERANCE * 0.5);
        for other in &by_left[rank + 1..] {
            if f64::from(candidates[*other].x - rect.x) > reach + 1.0 {
                break;
            }
            if similar(rect, candidates[*other]) {
                let (one, two) = (root(&mut parents, *at), root(&mut parents, *other));
                parents[one.max(two)] = one.min(two);
            }
        }
    }
    // A root is its component's first member, because the smaller index always wins.
    let mut numbers = vec![0; candidates.len()];
    let mut groups = 0;
    for at in 0..candidates.len() {
        let root = root(&mut parents, at);
        if root == at {
            numbers[at] = groups;
            groups += 1;
        } else {
            numbers[at] = numbers[root];
        }
    }
    numbers
}

fn similar(one: Rect, two: Rect) -> bool {
    let apart = f64::from(one.w.min(two.w) + one.h.min(two.h)) * TOLERANCE * 0.5;
    let near = |a: i32, b: i32| f64::from((a - b).abs()) <= apart;
    near(one.x, two.x) && near(one.y, two.y) && near(one.x + one.w, two.x + two.w) && near(one.y + one.h, two.y + two.h)
}

fn root(parents: &mut [usize], mut at: usize) -> usize {
    while parents[at] != at {
        parents[at] = parents[parents[at]];
        at = parents[at];
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rect(x: i32, y: i32, side: i32) -> Rect {
        Rect { x, y, w: side, h: side }
    }

    #[test]
    fn similar_candidates_become_their_mean() {
        let candidates = [rect(10, 10, 40), rect(200, 200, 40), rect(12, 10, 40), rect(11, 12, 42), rect(11, 11, 40)];
        let objects = group(&candidates, 3);
        assert_eq!(objects, [Object { rect: rect(11, 11, 40), neighbors: 4 }]);
        assert_eq!(group(&candidates, 4), []);
        assert_eq!(group(&[], 3), []);
    }

    #[test]
    fn a_group_inside_a_stronger_one_is_dropped() {
        let large = (0..9).map(|at| rect(100 + at % 3, 100 + at / 3, 100));
        let small = (0..5).map(|at| rect(140 + at, 140, 20));
        let candidates: Vec<Rect> = small.chain(large).collect();
        let objects = group(&candidates, 3);
        assert_eq!(objects.iter().map(|object| object.neighbors).collect::<Vec<_>>(), [9]);
        // Just as strong, it stays.
        assert_eq!(group(&candidates[..9], 3).len(), 2);
    }

    proptest! {
        #[test]
        fn groups_are_the_components_of_similarity(
            sides in prop::collection::vec((0i32..120, 0i32..120, 20i32..60), 0..60),
        ) {
            let candidates: Vec<Rect> = sides.into_iter().map(|(x, y, side)| rect(x, y, side)).collect();
            // Labels spread until nothing changes.
            let mut labels: Vec<usize> = (0..candidates.len()).collect();
            while {
                let before = labels.clone();
                for (i, one) in candidates.iter().enumerate() {
                    for (j, two) in candidates.iter().enumerate() {
                        if similar(*one, *two) {
                            labels[i] = labels[i].min(labels[j]);
                        }
                    }
                }
                labels != before
            } {}
            let mut firsts = labels.clone();
            firsts.sort_unstable();
            firsts.dedup();
            let numbered: Vec<usize> = labels.iter().map(|label| firsts.binary_search(label).unwrap()).collect();
            prop_assert_eq!(partition(&candidates), numbered);
        }
    }
}
