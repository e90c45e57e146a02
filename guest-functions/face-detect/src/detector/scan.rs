//! Looks at the windows of a row: contrast first, then stage by stage, fewer and fewer.

use wide::{f32x4, f64x4, i32x4};

use super::kernel::{Group, LANES, Plan};
use super::sums::{Layout, Sums};
use crate::cascade::Cascade;

/// Groups that go through a stage together: enough to make up for what each node costs beside them, few enough that the
/// rows of the tables below them stay in the first-level cache.
const GROUPS_PER_BATCH: usize = 32;
/// Before these stages groups wait until there is a batch of them, as most are out by then.
const WAIT_BEFORE: [usize; 4] = [1, 2, 4, 9];

/// A cascade ready for windows that stand `step` pixels apart.
#[derive(Debug)]
pub(super) struct Scanner {
    plan: Plan,
    layout: Layout,
    contrast: Contrast,
    /// Those that no stage has seen.
    fresh: Vec<Group>,
    /// Those that wait, in the order in which their windows stand.
    waiting: [Vec<Group>; WAIT_BEFORE.len()],
}

/// The test of contrast, and the norm that follows from the same sums: over the window less a margin of one pixel, the
/// standard deviation must exceed 10 grey levels.
#[derive(Debug)]
struct Contrast {
    /// Offsets of the inner rectangle's corners.
    corners: [usize; 4],
    area: f64,
    /// Least `area^2 * variance` that passes.
    least: f64,
}

impl Contrast {
    fn new(window: (usize, usize), layout: Layout) -> Self {
        let (right, lower) = (window.0 - 1, window.1 - 1);
        let corners = [(1, 1), (right, 1), (1, lower), (right, lower)].map(|(x, y)| layout.offset(x, y, false));
        let area = ((window.0 - 2) * (window.1 - 2)) as f64;
        Self { corners, area, least: least_passing(area) }
    }

    /// Which of the four windows from `position` on have enough contrast, bit by bit, and the norms of those.
    #[inline(never)]
    fn test(&self, sums: &Sums, position: usize) -> (u32, f32x4) {
        let sum = wide_sum(sums.levels(), self.corners.map(|corner| position + corner));
        let squares = wide_sum(sums.squares(), self.corners.map(|corner| position + corner));
        let spread = f64x4::splat(self.area) * squares - sum * sum;
        let passed = spread.simd_ge(f64x4::splat(self.least)).to_bitmask();
        if passed == 0 {
            return (0, f32x4::ZERO);
        }
        let norms = f64x4::ONE / spread.sqrt();
        (passed, f32x4::new(norms.to_array().map(narrow)))
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest f32 is what is wanted")]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[inline(always)]
fn wide_sum(table: &[i32], corners: [usize; 4]) -> f64x4 {
    let [upper_left, upper_right, lower_left, lower_right] =
        corners.map(|at| i32x4::new(*table[at..].first_chunk().expect("tables end with some slack")));
    f64x4::from(upper_left - upper_right - lower_left + lower_right)
}

/// The least whole `spread` for which OpenCV's test, `area * f32(1 / sqrt(spread)) < 0.1`, holds. The left side falls as
/// `spread` grows, so halving the range finds it.
fn least_passing(area: f64) -> f64 {
    let (mut fails, mut passes) = (0.0, area * area * 255.0 * 255.0);
    while passes - fails > 1.0 {
        let middle = ((fails + passes) / 2.0f64).floor();
        if area * f64::from(narrow(1.0 / middle.sqrt())) < 0.1 {
            passes = middle;
        } else {
            fails = middle;
        }
    }
    passes
}

impl Scanner {
    pub(super) fn new(cascade: &Cascade, layout: Layout) -> Self {
        let contrast = Contrast::new(cascade.window(), layout);
        let waiting = WAIT_BEFORE.map(|_| Vec::new());
        Self { plan: Plan::new(cascade, layout), layout, contrast, fresh: Vec::new(), waiting }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Looks at the first `windows` windows in a row of the tables. Hands those that pass to `found`, which some may have to
    /// wait for until [`finish`](Self::finish): their row and their number in it, in ascending order.
    pub(super) fn row(
        &mut self,
        cascade: &Cascade,
        sums: &Sums,
        row: usize,
        windows: usize,
        found: &mut impl FnMut(usize, usize),
    ) {
        let start = self.layout.row(row);
        let mut skip = Skip::default();
        for batch in (0..windows).step_by(GROUPS_PER_BATCH * LANES) {
            let end = windows.min(batch + GROUPS_PER_BATCH * LANES);
            for first in (batch..end).step_by(LANES) {
                let (passed, norm) = self.contrast.test(sums, start + first);
                let alive = passed & exist(end - first);
                if alive != 0 {
                    self.fresh.push(Group::new(start + first, alive, norm));
                }
            }
            let skipping = |group: &Group, passed| skip.after_first_stage(group, passed);
            stage(&mut self.plan, cascade, 0, sums, &mut self.fresh, skipping);
            self.waiting[0].append(&mut self.fresh);
            self.go_on(cascade, sums, GROUPS_PER_BATCH, found);
        }
    }

    /// Looks at all that still wait. To be called before the tables change.
    pub(super) fn finish(&mut self, cascade: &Cascade, sums: &Sums, found: &mut impl FnMut(usize, usize)) {
        self.go_on(cascade, sums, 1, found);
    }

    /// Takes groups through the stages before which at least so many wait.
    fn go_on(&mut self, cascade: &Cascade, sums: &Sums, least: usize, found: &mut impl FnMut(usize, usize)) {
        let stages = cascade.stages.len();
        for (at, first) in WAIT_BEFORE.into_iter().enumerate() {
            let (waiting, later) =
                self.waiting[at..].split_first_mut().expect("as many as there are stages to wait before");
            if waiting.len() < least {
                continue;
            }
            for number in first..WAIT_BEFORE.get(at + 1).map_or(stages, |next| stages.min(*next)) {
                if waiting.is_empty() {
                    break;
                }
                stage(&mut self.plan, cascade, number, sums, waiting, |group, passed| group.alive & passed);
            }
            if let Some(next) = later.first_mut() {
                next.append(waiting);
            }
            for group in waiting.drain(..) {
                let (row, first) = self.layout.place(group.position);
                (0..LANES).filter(|lane| group.alive >> lane & 1 == 1).for_each(|lane| found(row, first + lane));
            }
        }
    }
}

/// Runs a stage on groups and keeps those with a window that stays in.
fn stage(
    plan: &mut Plan,
    cascade: &Cascade,
    stage: usize,
    sums: &Sums,
    groups: &mut Vec<Group>,
    mut stay: impl FnMut(&Group, u32) -> u32,
) {
    plan.run(stage, sums.levels(), groups);
    groups.retain_mut(|group| {
        group.alive = stay(group, plan.passed(cascade, stage, sums.levels(), group));
        group.alive != 0
    });
}

/// The bits of the windows of a group that exist, where `count` are left in the row.
fn exist(count: usize) -> u32 {
    if count < LANES { (1 << count) - 1 } else { (1 << LANES) - 1 }
}

/// OpenCV skips the window after one that fails the first stage. Here all are tested, and those that OpenCV would not have
/// looked at are taken out afterwards.
#[derive(Debug, Default)]
struct Skip {
    /// Whether the next window is skipped: the one at this position.
    next: Option<usize>,
}

impl Skip {
    /// The windows of a group that OpenCV would have looked at and that passed the first stage.
    fn after_first_stage(&mut self, group: &Group, passed: u32) -> u32 {
        let skips = self.next == Some(group.position);
        let entry = SKIPS[usize::from(skips) << 8 | (group.alive << 4 | passed & group.alive) as usize];
        self.next = (entry & 0x10 != 0).then_some(group.position + LANES);
        u32::from(entry & 0xf)
    }
}

/// By whether the first window is skipped (bit 8), which windows have contrast (bits 4 to 7) and which pass the first stage
/// (bits 0 to 3): the windows that go on (bits 0 to 3), and whether the first one after them is skipped (bit 4).
const SKIPS: [u8; 512] = {
    let mut table = [0; 512];
    let mut index = 0;
    while index < 512 {
        let mut skip = index >> 8 == 1;
        let mut lane = 0;
        while lane < LANES {
            if skip {
                skip = false;
            } else if index >> (4 + lane) & 1 == 1 {
                if index >> lane & 1 == 1 {
                    table[index] |= 1 << lane;
                } else {
                    skip = true;
                }
            }
            lane += 1;
        }
        if skip {
            table[index] |= 0x10;
        }
        index += 1;
    }
    table
};

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the tests' numbers are small")]
mod tests {
    use super::*;

    #[test]
    fn the_test_of_contrast_is_opencvs() {
        for area in [18.0 * 18.0, 22.0 * 22.0] {
            let least = least_passing(area);
            let passes = |spread: f64| area * f64::from((1.0 / spread.sqrt()) as f32) < 0.1;
            assert!(passes(least) && !passes(least - 1.0));
            assert!((least / (area * area) - 100.0).abs() < 1e-3, "a standard deviation of 10 levels");
        }
    }

    #[test]
    fn a_window_after_a_failed_one_is_skipped() {
        let mut skip = Skip::default();
        let group = |position, alive| Group::new(position, alive, f32x4::ZERO);
        // The first fails, so the second is skipped; the third passes; the fourth fails.
        assert_eq!(skip.after_first_stage(&group(0, 0b1111), 0b0110), 0b0100);
        // So the next is skipped, whatever it does, and cannot make another be skipped.
        assert_eq!(skip.after_first_stage(&group(4, 0b1111), 0b1110), 0b1110);
        // Windows without contrast skip nothing, but are skipped like others.
        assert_eq!(skip.after_first_stage(&group(8, 0b1001), 0b1000), 0b1000);
        assert_eq!(skip.after_first_stage(&group(12, 0b0111), 0b0101), 0b0001);
        // A group without any contrast lay in between.
        assert_eq!(skip.after_first_stage(&group(24, 0b1000), 0b0000), 0b0000);
        assert_eq!(skip.after_first_stage(&group(32, 0b0001), 0b0001), 0b0001);
    }
}
