//! Recursive filters, forwards and backwards.

use super::leads::{Block, LANES, vec_of};
use crate::{Error, Result};

/// The recursion `y[t] = b[0] x[t] + b[1] x[t-1] + ... - a[1] y[t-1] - ...` in transposed direct form II.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    b0: f64,
    taps: Vec<Tap>,
    steady: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Tap {
    b: f64,
    a: f64,
}

impl Section {
    /// `steady`: the state in which a constant input of 1 leaves the filter (`scipy.signal.lfilter_zi`).
    ///
    /// # Errors
    /// [`Error::FilterShape`], [`Error::LeadingCoefficient`].
    pub fn new(b: &[f64], a: &[f64], steady: &[f64]) -> Result<Self> {
        let order = b.len().max(a.len()).saturating_sub(1);
        let (&[b0, ..], &[a0, ..], 1..) = (b, a, order) else {
            return Err(Error::filter_shape(b, a, steady));
        };
        if steady.len() != order {
            return Err(Error::filter_shape(b, a, steady));
        }
        if a0 == 0.0 || !a0.is_finite() {
            return Err(Error::LeadingCoefficient { value: a0 });
        }
        let normalised = |values: &[f64], i| values.get(i).map_or(0.0, |value| value / a0);
        let taps = (1..=order).map(|i| Tap {
            b: normalised(b, i),
            a: normalised(a, i),
        });
        Ok(Self {
            b0: b0 / a0,
            taps: taps.collect(),
            steady: steady.to_vec(),
        })
    }

    /// Filter in place, from the state that a constant input of `first` has led to.
    fn run<'a>(&self, samples: impl Iterator<Item = &'a mut Block>, first: Block) {
        let mut state: Vec<Block> = self
            .steady
            .iter()
            .map(|steady| first.map(|value| steady * value))
            .collect();
        // With a known order the state stays in registers.
        match self.taps.len() {
            2 => recurse_fixed::<2>(samples, self.b0, &self.taps, &state),
            4 => recurse_fixed::<4>(samples, self.b0, &self.taps, &state),
            8 => recurse_fixed::<8>(samples, self.b0, &self.taps, &state),
            _ => recurse(samples, self.b0, &self.taps, &mut state),
        }
    }
}

fn recurse_fixed<'a, const ORDER: usize>(
    samples: impl Iterator<Item = &'a mut Block>,
    b0: f64,
    taps: &[Tap],
    state: &[Block],
) {
    if let (Some(&taps), Some(&(mut state))) =
        (taps.first_chunk::<ORDER>(), state.first_chunk::<ORDER>())
    {
        recurse(samples, b0, &taps, &mut state);
    }
}

/// The order of the operations is that of `scipy.signal.lfilter`.
#[inline(always)]
fn recurse<'a>(
    samples: impl Iterator<Item = &'a mut Block>,
    b0: f64,
    taps: &[Tap],
    state: &mut [Block],
) {
    let last = taps.len() - 1;
    for sample in samples {
        let x = *sample;
        let y: Block = std::array::from_fn(|lane| state[0][lane] + b0 * x[lane]);
        for i in 0..last {
            let (Tap { b, a }, next) = (taps[i], state[i + 1]);
            state[i] = std::array::from_fn(|lane| next[lane] + x[lane] * b - y[lane] * a);
        }
        let Tap { b, a } = taps[last];
        state[last] = std::array::from_fn(|lane| x[lane] * b - y[lane] * a);
        *sample = y;
    }
}

/// Sections one after the other, forwards through all and then backwards through all, so that no wave is
/// delayed.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    sections: Vec<Section>,
    padding: usize,
}

impl Filter {
    /// `padding`: by how many samples the signal is continued at both ends, point-symmetrically to its
    /// first and last one.
    #[must_use]
    pub fn new(sections: Vec<Section>, padding: usize) -> Self {
        Self { sections, padding }
    }

    #[must_use]
    pub fn padding(&self) -> usize {
        self.padding
    }

    fn run(&self, samples: &mut [Block]) {
        let Some(&first) = samples.first() else {
            return;
        };
        for section in &self.sections {
            section.run(samples.iter_mut(), first);
        }
        let last = samples[samples.len() - 1];
        for section in &self.sections {
            section.run(samples.iter_mut().rev(), last);
        }
    }
}

/// All filters over one group of leads, which is longer than the padding of each.
pub(super) fn apply(filters: &[Filter], samples: &[Block]) -> Result<Vec<Block>> {
    let margin = filters.iter().map(Filter::padding).max().unwrap_or(0);
    let end = margin + samples.len();
    let mut buffer = vec_of(end + margin)?;
    buffer.resize(margin, [0.0; LANES]);
    buffer.extend_from_slice(samples);
    buffer.resize(end + margin, [0.0; LANES]);
    for filter in filters {
        let extended = &mut buffer[margin - filter.padding..end + filter.padding];
        extend(extended, filter.padding);
        filter.run(extended);
    }
    buffer.truncate(end);
    buffer.drain(..margin);
    Ok(buffer)
}

/// Write the continuation into the outermost `padding` samples of both ends.
fn extend(samples: &mut [Block], padding: usize) {
    let last = samples.len() - 1;
    for distance in 1..=padding {
        let mirrored = |centre: Block, inner: Block| -> Block {
            std::array::from_fn(|lane| 2.0 * centre[lane] - inner[lane])
        };
        samples[padding - distance] = mirrored(samples[padding], samples[padding + distance]);
        let end = last - padding;
        samples[end + distance] = mirrored(samples[end], samples[end - distance]);
    }
}
