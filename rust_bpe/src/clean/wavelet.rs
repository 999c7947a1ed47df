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

    pub(super) fn apply(&self, samples: Vec<Block>) -> Vec<Block> {
        let length = samples.len();
        let mut approximation = samples;
        let mut details = Vec::with_capacity(self.levels);
        for _ in 0..self.levels {
            let (coarse, detail) = self.decompose(&approximation);
            approximation = coarse;
            details.push(detail);
        }
        let threshold = details.last().map_or([0.0; LANES], |detail| noise(detail));
        for detail in details.iter_mut().rev() {
            for block in detail.iter_mut() {
                *block = std::array::from_fn(|lane| shrunk(block[lane], threshold[lane]));
            }
            approximation = self.reconstruct(&approximation, detail);
        }
        // An odd length comes back with one sample more.
        approximation.truncate(length);
        approximation
    }

    /// Every second value of the convolutions with both filters, the signal mirrored at its ends.
    fn decompose(&self, samples: &[Block]) -> (Vec<Block>, Vec<Block>) {
        let (length, taps) = (samples.len(), self.analysis.len());
        let num_outputs = usize::midpoint(length, taps - 1);
        let mut coarse = Vec::with_capacity(num_outputs);
        let mut detail = Vec::with_capacity(num_outputs);
        for newest in (1..).step_by(2).take(num_outputs) {
            let (low, high) = if newest + 1 < taps {
                let indices = (0..=newest).rev().chain(0..taps - newest - 1);
                weighted(self.analysis.iter().zip(indices.map(|i| &samples[i])))
            } else if newest < length {
                let window = samples[newest + 1 - taps..=newest].iter().rev();
                weighted(self.analysis.iter().zip(window))
            } else {
                // The mirrored samples are added first and from the end of the signal on, as PyWavelets does.
                let beyond = newest + 1 - length;
                let (outside, inside) = self.analysis.split_at(beyond);
                let mirrored = outside.iter().rev().zip(samples.iter().rev());
                weighted(mirrored.chain(inside.iter().zip(samples.iter().rev())))
            };
            coarse.push(low);
            detail.push(high);
        }
        (coarse, detail)
    }

    /// The signal of which `decompose` would give these.
    fn reconstruct(&self, coarse: &[Block], detail: &[Block]) -> Vec<Block> {
        let (pairs, _) = self.synthesis.as_chunks::<2>();
        let mut samples = Vec::with_capacity(2 * detail.len());
        let windows = coarse.windows(pairs.len()).zip(detail.windows(pairs.len()));
        for (coarse, detail) in windows {
            let [mut from_coarse, mut from_detail] = [[[0.0; LANES]; 2]; 2];
            let values = coarse.iter().zip(detail).rev();
            for (taps, (coarse, detail)) in pairs.iter().zip(values) {
                for (parity, tap) in taps.iter().enumerate() {
                    for lane in 0..LANES {
                        from_coarse[parity][lane] += tap.low * coarse[lane];
                        from_detail[parity][lane] += tap.high * detail[lane];
                    }
                }
            }
            samples.extend([0, 1].map(|parity| -> Block {
                std::array::from_fn(|lane| from_coarse[parity][lane] + from_detail[parity][lane])
            }));
        }
        samples
    }
}

/// The sums of the samples by the low and by the high taps, added in this order.
#[inline(always)]
fn weighted<'a>(terms: impl Iterator<Item = (&'a Taps, &'a Block)>) -> (Block, Block) {
    let (mut low, mut high) = ([0.0; LANES], [0.0; LANES]);
    for (taps, block) in terms {
        for lane in 0..LANES {
            low[lane] += taps.low * block[lane];
            high[lane] += taps.high * block[lane];
        }
    }
    (low, high)
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
