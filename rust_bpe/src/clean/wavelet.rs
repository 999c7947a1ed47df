//! Wavelet shrinkage: small details are noise.

use super::leads::{Block, LANES};
use crate::{Error, Result};

/// Median of the absolute value of a normal distribution with standard deviation 1.
const NORMAL_MEDIAN: f64 = 0.6745;

/// Details up to this are nothing, in the signal's unit, as in the ECG-Byte paper's code.
const NOTHING: f64 = 1e-10;

/// More levels than any recording has.
const MAX_LEVELS: usize = 30;

/// Moves the details of an orthogonal wavelet towards zero by one threshold for each lead: the noise that
/// the details of the deepest level let expect.
#[derive(Clone, Debug, PartialEq)]
pub struct Shrinkage {
    analysis: Vec<Taps>,
    synthesis: Vec<Taps>,
    levels: usize,
}

/// What one sample adds to the approximation and to the detail, or the other way round.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Taps {
    low: f64,
    high: f64,
}

impl Shrinkage {
    /// `low_pass`: the wavelet's analysis filter (`pywt.Wavelet(name).dec_lo`), which determines the others.
    ///
    /// # Errors
    /// [`Error::WaveletTaps`], [`Error::Levels`].
    pub fn new(low_pass: &[f64], levels: usize) -> Result<Self> {
        if low_pass.is_empty() || !low_pass.len().is_multiple_of(2) {
            return Err(Error::WaveletTaps {
                taps: low_pass.len(),
            });
        }
        if !(1..=MAX_LEVELS).contains(&levels) {
            return Err(Error::Levels {
                levels,
                limit: MAX_LEVELS,
            });
        }
        let mirrored = low_pass.iter().rev().enumerate();
        let high_pass = mirrored.map(|(i, &tap)| if i % 2 == 0 { -tap } else { tap });
        let analysis: Vec<Taps> = low_pass
            .iter()
            .zip(high_pass)
            .map(|(&low, high)| Taps { low, high })
            .collect();
        Ok(Self {
            synthesis: analysis.iter().rev().copied().collect(),
            analysis,
            levels,
        })
    }

    /// Samples below which a level would see little but the mirrored ends.
    pub(super) fn shortest(&self) -> usize {
        (self.analysis.len() - 1).saturating_mul(1 << self.levels)
    }

    /// Shrink a group of leads in place.
    pub(super) fn apply(&self, samples: &mut [Block]) {
        let mut details = Vec::with_capacity(self.levels);
        let mut approximations: Vec<Vec<Block>> = Vec::with_capacity(self.levels);
        for _ in 0..self.levels {
            let finer = approximations.last().map_or(&*samples, |coarse| coarse);
            let (coarse, detail) = self.decompose(finer);
            approximations.push(coarse);
            details.push(detail);
        }
        let threshold = details.last().map_or([0.0; LANES], |detail| noise(detail));
        while let (Some(coarse), Some(mut detail)) = (approximations.pop(), details.pop()) {
            for block in &mut detail {
                *block = std::array::from_fn(|lane| shrunk(block[lane], threshold[lane]));
            }
            let finer = approximations
                .last_mut()
                .map_or(&mut *samples, |finer| finer);
            self.reconstruct(&coarse, &detail, finer);
        }
    }

    /// Every second value of the convolutions with both filters, the signal mirrored at its ends.
    fn decompose(&self, samples: &[Block]) -> (Vec<Block>, Vec<Block>) {
        let (length, taps) = (samples.len(), self.analysis.len());
        let num_outputs = usize::midpoint(length, taps - 1);
        let mut coarse = Vec::with_capacity(num_outputs);
        let mut detail = Vec::with_capacity(num_outputs);
        for newest in (1_usize..).step_by(2).take(num_outputs) {
            let (low, high) = match samples.get((newest + 1).wrapping_sub(taps)..=newest) {
                Some(window) => weighted(self.analysis.iter().zip(window.iter().rev())),
                None => self.weighted_at_end(samples, newest),
            };
            coarse.push(low);
            detail.push(high);
        }
        (coarse, detail)
    }

    /// The sums where the filters reach beyond the first or the last sample.
    #[inline(never)]
    fn weighted_at_end(&self, samples: &[Block], newest: usize) -> (Block, Block) {
        if newest < samples.len() {
            let beyond = 0..self.analysis.len() - newest - 1;
            let indices = (0..=newest).rev().chain(beyond);
            return weighted(self.analysis.iter().zip(indices.map(|i| &samples[i])));
        }
        // Those beyond come first and from the end of the signal on, as in PyWavelets.
        let (outside, inside) = self.analysis.split_at(newest + 1 - samples.len());
        let mirrored = outside.iter().rev().zip(samples.iter().rev());
        weighted(mirrored.chain(inside.iter().zip(samples.iter().rev())))
    }

    /// Write the signal of which `decompose` would give these. (Of an odd length they give one sample more.)
    fn reconstruct(&self, coarse: &[Block], detail: &[Block], samples: &mut [Block]) {
        let (pairs, _) = self.synthesis.as_chunks::<2>();
        let windows = coarse.windows(pairs.len()).zip(detail.windows(pairs.len()));
        for (pair, (coarse, detail)) in samples.chunks_mut(2).zip(windows) {
            let zero = [0.0; LANES];
            let (mut even, mut odd) = ((zero, zero), (zero, zero));
            for ([for_even, for_odd], (coarse, detail)) in
                pairs.iter().zip(coarse.iter().zip(detail).rev())
            {
                even = (
                    plus(even.0, for_even.low, coarse),
                    plus(even.1, for_even.high, detail),
                );
                odd = (
                    plus(odd.0, for_odd.low, coarse),
                    plus(odd.1, for_odd.high, detail),
                );
            }
            for (sample, (low, high)) in pair.iter_mut().zip([even, odd]) {
                *sample = std::array::from_fn(|lane| low[lane] + high[lane]);
            }
        }
    }
}

/// The sums of the samples by the low and by the high taps, added in this order.
#[inline(always)]
fn weighted<'a>(terms: impl Iterator<Item = (&'a Taps, &'a Block)>) -> (Block, Block) {
    let (mut low, mut high) = ([0.0; LANES], [0.0; LANES]);
    for (taps, block) in terms {
        low = plus(low, taps.low, block);
        high = plus(high, taps.high, block);
    }
    (low, high)
}

#[inline(always)]
fn plus(sum: Block, tap: f64, block: &Block) -> Block {
    std::array::from_fn(|lane| sum[lane] + tap * block[lane])
}

/// The standard deviation of noise that has these details; NaN where one of them is.
fn noise(detail: &[Block]) -> Block {
    let mut sizes = Vec::with_capacity(detail.len());
    std::array::from_fn(|lane| {
        sizes.clear();
        sizes.extend(detail.iter().map(|block| block[lane].abs()));
        median(&mut sizes) / NORMAL_MEDIAN
    })
}

fn median(sizes: &mut [f64]) -> f64 {
    if sizes.is_empty() || sizes.iter().any(|size| size.is_nan()) {
        return f64::NAN;
    }
    let (middle, is_even) = (sizes.len() / 2, sizes.len().is_multiple_of(2));
    let (below, &mut upper, _) = sizes.select_nth_unstable_by(middle, f64::total_cmp);
    match below.iter().copied().max_by(f64::total_cmp) {
        Some(lower) if is_even => (lower + upper) / 2.0,
        _ => upper,
    }
}

fn shrunk(value: f64, threshold: f64) -> f64 {
    let size = value.abs();
    let rest = size - threshold;
    if size <= NOTHING {
        0.0
    } else if rest < 0.0 {
        // Not `max`: a NaN stays one.
        0.0_f64.copysign(value)
    } else {
        rest.copysign(value)
    }
}
