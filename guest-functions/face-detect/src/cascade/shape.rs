//! What a feature comes down to: a few corners of a table of sums, each with a weight.
//!
//! Where rectangles share corners, their weights add up or cancel out. Only a handful of patterns of weights remain, and
//! the detector has one loop without branches for each.

use super::Feature;

/// A pattern of weights. In ascending order they are:
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// -2 -1 -1 1 1 2
    Edge,
    /// -2 -2 -1 -1 1 1 2 2
    Line2,
    /// -3 -3 -1 -1 1 1 3 3
    Line3,
    /// -9 -9 -1 -1 1 1 9 9
    Line9,
    /// -2 -2 -2 -2 1 1 1 1 4
    Diagonal,
    /// -4 -1 -1 -1 -1 2 2 2 2
    Antidiagonal,
}

impl Shape {
    fn of(weights: &[i32]) -> Option<Self> {
        Some(match weights {
            [-2, -1, -1, 1, 1, 2] => Self::Edge,
            [-2, -2, -1, -1, 1, 1, 2, 2] => Self::Line2,
            [-3, -3, -1, -1, 1, 1, 3, 3] => Self::Line3,
            [-9, -9, -1, -1, 1, 1, 9, 9] => Self::Line9,
            [-2, -2, -2, -2, 1, 1, 1, 1, 4] => Self::Diagonal,
            [-4, -1, -1, -1, -1, 2, 2, 2, 2] => Self::Antidiagonal,
            _ => return None,
        })
    }
}

/// A feature as a shape and the places of its corners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Corners {
    pub(crate) shape: Shape,
    /// The corners (x, y) in the ascending order of their weights. Where a shape has fewer than nine, the rest is zero.
    pub(crate) at: [(u8, u8); 9],
}

impl Corners {
    /// The corners of a feature whose rectangles lie in the window; `None` where it has another shape than those above.
    pub(super) fn of(feature: &Feature) -> Option<Self> {
        let mut merged = [(0, (0, 0)); 12];
        let mut count = 0;
        for (weight, rectangle) in feature.rectangles() {
            for (sign, place) in rectangle.corners(feature.tilted) {
                match merged[..count].iter_mut().find(|(_, known)| *known == place) {
                    Some((sum, _)) => *sum += sign * weight,
                    None => {
                        merged[count] = (sign * weight, place);
                        count += 1;
                    }
                }
            }
        }
        let merged = &mut merged[..count];
        // Those that cancelled out go to the end.
        merged.sort_unstable_by_key(|(weight, (x, y))| (*weight == 0, *weight, *y, *x));
        let count = merged.iter().take_while(|(weight, _)| *weight != 0).count().min(9);
        let mut corners = Self { shape: Shape::Edge, at: [(0, 0); 9] };
        let mut weights = [0; 9];
        for (at, (weight, (x, y))) in merged[..count].iter().enumerate() {
            weights[at] = *weight;
            corners.at[at] = (u8::try_from(*x).ok()?, u8::try_from(*y).ok()?);
        }
        corners.shape = Shape::of(&weights[..count])?;
        Some(corners)
    }
}
