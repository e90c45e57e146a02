//! At which scales a picture is searched, and which windows of a scale are looked at.

use super::parameters::Parameters;

/// One size of window; the picture is shrunk by `scale`, and the window is the cascade's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    pub(super) scale: f32,
    /// Sides of the shrunk picture.
    pub(super) width: usize,
    pub(super) height: usize,
    /// Windows stand this many pixels apart in both directions.
    pub(super) step: usize,
    /// Number of windows in a row.
    pub(super) columns: usize,
    /// Number of rows of windows.
    pub(super) rows: usize,
}

/// Rounds to the nearest whole number, halves to the even one.
#[expect(clippy::cast_possible_truncation, reason = "coordinates are far below 2^31, and the cast saturates")]
pub(super) fn round(value: f64) -> i32 {
    value.round_ties_even() as i32
}

fn round_to_size(value: f64) -> usize {
    usize::try_from(round(value)).unwrap_or(0)
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest f32 is what is wanted")]
fn narrow(value: f64) -> f32 {
    value as f32
}

/// A side of a few thousand pixels as a number; exact.
fn exact(side: usize) -> f32 {
    side as f32
}

/// The scales at which a picture of these sides is searched, ascending.
pub(super) fn scales(picture: (usize, usize), window: (usize, usize), parameters: &Parameters) -> Vec<Scale> {
    let kept = choose(&all(picture, window, parameters.scale_factor.get()), window, parameters.min_size);
    let mut stripes = None;
    let laid_out = kept.into_iter().map(|scale| {
        let shrunk = |side: usize| round_to_size(f64::from(exact(side) / scale));
        let (width, height) = (shrunk(picture.0), shrunk(picture.1));
        let step = if scale >= 2.0 { 1 } else { 2 };
        let positions = |side: usize, window: usize| (side + 1).saturating_sub(window);
        let (across, down) = (positions(width, window.0), positions(height, window.1));
        // OpenCV cuts every scale into as many stripes as the first one has, for its threads, even with one thread. The
        // last row of windows can get lost in that.
        let stripes = *stripes.get_or_insert(across.div_ceil(STRIPE_WIDTH));
        let stripe = if stripes == 0 { 0 } else { (down / step).div_ceil(stripes).max(1) * step };
        let rows = (stripes * stripe).min(down).div_ceil(step);
        Scale { scale, width, height, step, columns: across.div_ceil(step), rows }
    });
    laid_out.collect()
}

const STRIPE_WIDTH: usize = 32;

/// Every scale at which the window fits into the picture.
fn all(picture: (usize, usize), window: (usize, usize), factor: f64) -> Vec<f32> {
    let mut scales = Vec::new();
    let mut scale = 1.0;
    let side = |side: usize, scale: f64| round_to_size(f64::from(exact(side)) * scale);
    while side(window.0, scale) <= picture.0 && side(window.1, scale) <= picture.1 {
        scales.push(narrow(scale));
        scale *= factor;
    }
    scales
}

/// Those at which the window has the least size wanted, or the one at which it comes closest.
fn choose(scales: &[f32], window: (usize, usize), min_size: u32) -> Vec<f32> {
    let side = |side: usize, scale: f32| i64::from(round(f64::from(exact(side) * scale)));
    let sides = |scale: f32| (side(window.0, scale), side(window.1, scale));
    let min = i64::from(min_size);
    let large: Vec<f32> =
        scales.iter().copied().filter(|scale| sides(*scale).0 >= min && sides(*scale).1 >= min).collect();
    if !large.is_empty() {
        return large;
    }
    let distance = |scale: &f32| {
        let (width, height) = sides(*scale);
        (width - min).pow(2) + (height - min).pow(2)
    };
    scales.iter().copied().min_by_key(distance).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parameters::ScaleFactor;
    use super::*;

    fn parameters(factor: f64, min_size: u32) -> Parameters {
        Parameters { scale_factor: ScaleFactor::new(factor).unwrap(), min_size, ..Parameters::default() }
    }

    #[test]
    fn windows_grow_from_the_least_size_to_the_picture() {
        let scales = scales((640, 480), (24, 24), &parameters(1.1, 30));
        let first = scales.first().unwrap();
        assert_eq!((first.scale, first.width, first.height), (1.331, 481, 361));
        assert_eq!((first.step, first.columns, first.rows), (2, 229, 169));
        let last = scales.last().unwrap();
        assert!(last.scale * 24.0 <= 480.5 && last.scale * 24.0 * 1.1 > 480.0);
        assert!(scales.iter().all(|scale| (scale.step == 1) == (scale.scale >= 2.0)));
    }

    #[test]
    fn a_picture_smaller_than_the_window_has_no_scale() {
        assert!(scales((23, 100), (24, 24), &parameters(1.1, 30)).is_empty());
        assert!(scales((100, 23), (24, 24), &parameters(1.1, 30)).is_empty());
        assert_eq!(scales((24, 24), (24, 24), &parameters(1.1, 0)).len(), 1);
    }

    #[test]
    fn a_least_size_beyond_the_picture_leaves_the_closest_window() {
        let scales = scales((100, 100), (20, 20), &parameters(1.5, 5000));
        assert_eq!(scales.iter().map(|scale| scale.scale).collect::<Vec<_>>(), [3.375]);
    }

    proptest! {
        #[test]
        fn every_window_lies_in_its_layer(
            width in 1usize..3000, height in 1usize..3000, factor in 1.02f64..4.0, min_size in 0u32..400,
        ) {
            for scale in scales((width, height), (20, 20), &parameters(factor, min_size)) {
                prop_assert!(scale.columns == 0 || (scale.columns - 1) * scale.step + 20 <= scale.width);
                prop_assert!(scale.rows == 0 || (scale.rows - 1) * scale.step + 20 <= scale.height);
            }
        }
    }
}
