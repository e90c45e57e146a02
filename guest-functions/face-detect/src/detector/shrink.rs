//! Shrinks a picture row by row: bilinear interpolation in whole numbers, as OpenCV's `INTER_LINEAR_EXACT`.

use crate::grey::Grey;

/// A weight of 256 is the whole.
const WHOLE: u16 = 256;

/// Where a pixel of the shrunk picture comes from along one axis: between `first` and the pixel after it, whose part is
/// `weight` of 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tap {
    first: u32,
    weight: u16,
}

/// The taps of an axis of `source >= 2` pixels shrunk to `target`.
fn taps(source: usize, target: usize) -> impl Iterator<Item = Tap> {
    let scale = 1.0 / (target as f64 / source as f64);
    let last = u32::try_from(source).unwrap_or(u32::MAX).saturating_sub(2);
    (0..target).map(move |at| {
        let position = scale * (at as f64 + 0.5) - 0.5;
        let floor = position.floor();
        if position < 0.0 {
            return Tap { first: 0, weight: 0 };
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the picture's side")]
        let (first, weight) = (floor as u32, ((position - floor) * f64::from(WHOLE)).round_ties_even() as u16);
        // Beyond the last pixel that one stands alone.
        if first > last { Tap { first: last, weight: WHOLE } } else { Tap { first, weight } }
    })
}

/// Makes the rows of a shrunk picture, one after the other. Its buffers are used again for the next picture.
#[derive(Debug, Default)]
pub(super) struct Shrinker {
    columns: Vec<Tap>,
    rows: Vec<Tap>,
    /// The last two rows that were shrunk across, in 1/256, by the parity of the source's row.
    across: [Vec<u16>; 2],
    across_of: [Option<usize>; 2],
    row: Vec<u8>,
}

impl Shrinker {
    /// Prepares for shrinking a picture of at least 2x2 pixels to `target`, width and height.
    pub(super) fn start(&mut self, source: &Grey, target: (usize, usize)) {
        self.columns.clear();
        self.rows.clear();
        self.row.clear();
        self.across_of = [None; 2];
        if target == (source.width(), source.height()) {
            return;
        }
        self.columns.extend(taps(source.width(), target.0));
        self.rows.extend(taps(source.height(), target.1));
        self.row.resize(target.0, 0);
        for across in &mut self.across {
            across.resize(target.0, 0);
        }
    }

    /// Row `y` of the shrunk picture.
    #[inline(never)]
    pub(super) fn row<'a>(&'a mut self, source: &'a Grey, y: usize) -> &'a [u8] {
        let Some(Tap { first, weight }) = self.rows.get(y).copied() else {
            return source.row(y);
        };
        let first = first as usize;
        self.shrink_across(source, first);
        self.shrink_across(source, first + 1);
        let [even, odd] = &self.across;
        let (upper, lower) = if first.is_multiple_of(2) { (even, odd) } else { (odd, even) };
        blend(upper, lower, weight, &mut self.row);
        &self.row
    }

    fn shrink_across(&mut self, source: &Grey, y: usize) {
        let slot = y % 2;
        if self.across_of[slot] == Some(y) {
            return;
        }
        self.across_of[slot] = Some(y);
        let pixels = source.row(y);
        for (shrunk, tap) in self.across[slot].iter_mut().zip(&self.columns) {
            if let [first, second, ..] = pixels[tap.first as usize..] {
                *shrunk = u16::from(first) * (WHOLE - tap.weight) + u16::from(second) * tap.weight;
            }
        }
    }
}

fn blend(upper: &[u16], lower: &[u16], weight: u16, into: &mut [u8]) {
    let (above, below) = (u32::from(WHOLE - weight), u32::from(weight));
    for ((pixel, upper), lower) in into.iter_mut().zip(upper).zip(lower) {
        let sum = u32::from(*upper) * above + u32::from(*lower) * below + (1 << 15);
        *pixel = (sum >> 16).to_le_bytes()[0];
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the tests' numbers are small")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shrunk(source: &Grey, width: usize, height: usize) -> Vec<u8> {
        let mut shrinker = Shrinker::default();
        shrinker.start(source, (width, height));
        (0..height).flat_map(|y| shrinker.row(source, y).to_vec()).collect()
    }

    /// The definition, pixel by pixel.
    fn defined(source: &Grey, width: usize, height: usize) -> Vec<u8> {
        let axis = |target: usize, length: usize, at: usize| {
            let scale = 1.0 / (target as f64 / length as f64);
            let position = scale * (at as f64 + 0.5) - 0.5;
            let floor = position.floor();
            let weight = ((position - floor) * 256.0).round_ties_even() as u32;
            match floor as i64 {
                ..0 => [(0, 256), (0, 0)],
                last if last as usize >= length - 1 => [(length - 1, 256), (0, 0)],
                first => [(first as usize, 256 - weight), (first as usize + 1, weight)],
            }
        };
        let pixel = |x: usize, y: usize| {
            let mut sum = 1 << 15;
            for (row, down) in axis(height, source.height(), y) {
                for (column, across) in axis(width, source.width(), x) {
                    sum += u32::from(source.row(row)[column]) * across * down;
                }
            }
            (sum >> 16) as u8
        };
        (0..height).flat_map(|y| (0..width).map(move |x| pixel(x, y))).collect()
    }

    #[test]
    fn the_same_size_is_a_copy() {
        let picture = Grey::new(5, 4, (0..20).collect()).unwrap();
        assert_eq!(shrunk(&picture, 5, 4), picture.pixels());
    }

    #[test]
    fn a_half_is_the_mean_of_four() {
        let picture = Grey::new(4, 2, vec![0, 4, 100, 200, 8, 12, 100, 0]).unwrap();
        assert_eq!(shrunk(&picture, 2, 1), [6, 100]);
    }

    proptest! {
        #[test]
        fn rows_are_as_defined(
            width in 2usize..40, height in 2usize..40, across in 1usize..40, down in 1usize..40, seed: u64,
        ) {
            let mut state = seed;
            let level = || { state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1); (state >> 56) as u8 };
            let picture = Grey::new(width, height, std::iter::repeat_with(level).take(width * height).collect()).unwrap();
            prop_assert_eq!(shrunk(&picture, across, down), defined(&picture, across, down));
        }
    }
}
