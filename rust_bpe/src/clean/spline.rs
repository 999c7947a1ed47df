//! Another length by a cubic spline.

use super::leads::{Block, LANES, vec_of};
use crate::Result;

/// Samples that a cubic needs.
pub(super) const SHORTEST: usize = 4;

/// After so many steps of the elimination nothing changes.
const NUM_FACTORS: usize = 32;

/// The cubic spline through the samples, not-a-knot at the ends, at `num_samples` points from the first to
/// the last sample. That is `scipy.interpolate.interp1d(kind="cubic")` on uniform grids, up to rounding.
pub(super) fn resample(samples: &[Block], num_samples: usize) -> Result<Vec<Block>> {
    let bends = bends(samples)?;
    let mut resampled = vec_of(num_samples)?;
    let last = samples.len() - 1;
    let steps = num_samples.saturating_sub(1).max(1);
    // Point k lies k * last / steps samples from the first: counted in whole numbers, it never drifts.
    let (mut left, mut rest) = (0, 0);
    for _ in 0..num_samples {
        let right = (left + 1).min(last);
        let u = rest as f64 / steps as f64;
        let v = 1.0 - u;
        let (cube_u, cube_v) = (u * u * u - u, v * v * v - v);
        resampled.push(std::array::from_fn(|lane| {
            let straight = v * samples[left][lane] + u * samples[right][lane];
            straight + (cube_v * bends[left][lane] + cube_u * bends[right][lane])
        }));
        left += last / steps;
        rest += last % steps;
        if rest >= steps {
            (left, rest) = (left + 1, rest - steps);
        }
    }
    Ok(resampled)
}

/// A sixth of the spline's second derivative at each sample, the samples one apart.
///
/// Equal slopes on both sides of sample i ask for `bend[i-1] + 4 bend[i] + bend[i+1]` to be the second
/// difference there. Not-a-knot makes the three outermost bends of each end lie on a line, so the second
/// one is a sixth of its second difference; those between follow by elimination and substitution.
fn bends(samples: &[Block]) -> Result<Vec<Block>> {
    let last = samples.len() - 1;
    let difference = |i: usize, lane: usize| {
        (samples[i - 1][lane] - samples[i][lane]) + (samples[i + 1][lane] - samples[i][lane])
    };
    let mut bends = vec_of(samples.len())?;
    bends.resize(samples.len(), [0.0; LANES]);
    for i in [1, last - 1] {
        bends[i] = std::array::from_fn(|lane| difference(i, lane) / 6.0);
    }
    let factors = factors();
    let factor = |i: usize| factors[(i - 2).min(NUM_FACTORS - 1)];
    for i in 2..last - 1 {
        let before: Block = bends[i - 1];
        bends[i] = std::array::from_fn(|lane| (difference(i, lane) - before[lane]) * factor(i));
    }
    for i in (2..last - 1).rev() {
        let after: Block = bends[i + 1];
        for (bend, after) in bends[i].iter_mut().zip(after) {
            *bend -= factor(i) * after;
        }
    }
    let line = |near: Block, far: Block| -> Block {
        std::array::from_fn(|lane| 2.0 * near[lane] - far[lane])
    };
    bends[0] = line(bends[1], bends[2]);
    bends[last] = line(bends[last - 1], bends[last - 2]);
    Ok(bends)
}

/// How much of bend[i+1] is left in the equation of bend[i] after elimination, from i = 2 on. Each step takes a
/// fourteenth of the distance to the limit, so that all further ones are equal.
fn factors() -> [f64; NUM_FACTORS] {
    let mut factor = 0.0;
    std::array::from_fn(|_| {
        factor = 1.0 / (4.0 - factor);
        factor
    })
}
