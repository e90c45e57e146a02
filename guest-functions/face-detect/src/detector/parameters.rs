//! What a search may be told.

use std::fmt;
use std::str::FromStr;

/// How a picture is searched. The names and the meaning are those of OpenCV's `detectMultiScale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameters {
    /// From one size of window to the next.
    pub scale_factor: ScaleFactor,
    /// How many similar candidates must lie beside a candidate for the lot to count as one object; with 0 every candidate
    /// is an object.
    pub min_neighbors: u32,
    /// Least width and height of an object, in pixels.
    pub min_size: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { scale_factor: ScaleFactor(1.1), min_neighbors: 3, min_size: 30 }
    }
}

/// A factor by which windows grow from one scale to the next: at least [`MIN`](Self::MIN), at most [`MAX`](Self::MAX).
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct ScaleFactor(f64);

impl ScaleFactor {
    /// The least factor: with it a picture of 4000 pixels is searched at some 500 scales.
    pub const MIN: f64 = 1.01;
    /// The greatest factor.
    pub const MAX: f64 = 4.0;

    /// A factor within the limits.
    ///
    /// # Errors
    /// Where it is not.
    pub fn new(factor: f64) -> Result<Self, BadScaleFactor> {
        if (Self::MIN..=Self::MAX).contains(&factor) { Ok(Self(factor)) } else { Err(BadScaleFactor) }
    }

    /// The factor as a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for ScaleFactor {
    type Err = BadScaleFactor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map_err(|_| BadScaleFactor).and_then(Self::new)
    }
}

/// Not a factor, or none within the limits. The caller's fault; the message tells the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadScaleFactor;

impl fmt::Display for BadScaleFactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected a number from {} to {}", ScaleFactor::MIN, ScaleFactor::MAX)
    }
}

impl std::error::Error for BadScaleFactor {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_keeps_its_limits() {
        for good in ["1.1", "1.01", "4", "2e0"] {
            assert_eq!(good.parse::<ScaleFactor>().unwrap().get(), good.parse::<f64>().unwrap());
        }
        for bad in ["1", "1.0", "1.009", "4.01", "-2", "0", "nan", "inf", "", "x"] {
            assert_eq!(bad.parse::<ScaleFactor>(), Err(BadScaleFactor), "{bad}");
        }
        assert_eq!(BadScaleFactor.to_string(), "expected a number from 1.01 to 4");
    }
}
