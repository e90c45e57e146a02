//! A line through points, by ordinary least squares.

/// `intercept + slope · x`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Line {
    /// At 0.
    pub intercept: f64,
    /// For each unit.
    pub slope: f64,
}

impl Line {
    /// The line with the least squared distance to these points. Through none it is zero everywhere, and where all have the
    /// same x, it is level at their mean.
    pub fn fit(points: impl Iterator<Item = (f64, f64)> + Clone) -> Self {
        let (x, y) = (points.clone().map(|(x, _)| x), points.clone().map(|(_, y)| y));
        let (mean_x, mean_y) = (mean(x.clone()), mean(y));
        let spread = variance(x);
        if spread <= 0.0 {
            return Self { intercept: mean_y, slope: 0.0 };
        }
        let slope = mean(points.map(|(x, y)| (x - mean_x) * (y - mean_y))) / spread;
        Self { intercept: mean_y - slope * mean_x, slope }
    }

    /// Its height there.
    pub fn at(self, x: f64) -> f64 {
        self.intercept + self.slope * x
    }
}

/// The mean; 0 of nothing.
pub fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

/// The mean squared distance from the mean; 0 of nothing.
pub fn variance(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let middle = mean(values.clone());
    mean(values.map(|value| (value - middle) * (value - middle)))
}
