//! Recursive filters, forwards and backwards.

use super::leads::Block;
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

    /// The state that a constant input of `first` leads to.
    fn state(&self, first: Block) -> Vec<Block> {
        let of_constant = |steady: &f64| first.map(|value| steady * value);
        self.steady.iter().map(of_constant).collect()
    }

    /// Filter in place, from a state to the next.
    fn run<'a>(&self, samples: impl Iterator<Item = &'a mut Block>, state: &mut [Block]) {
        // With a known order the state stays in registers.
        match self.taps.len() {
            2 => recurse_fixed::<2>(samples, self.b0, &self.taps, state),
            4 => recurse_fixed::<4>(samples, self.b0, &self.taps, state),
            8 => recurse_fixed::<8>(samples, self.b0, &self.taps, state),
            _ => recurse(samples, self.b0, &self.taps, state),
        }
    }
}

fn recurse_fixed<'a, const ORDER: usize>(
    samples: impl Iterator<Item = &'a mut Block>,
    b0: f64,
    taps: &[Tap],
    state: &mut [Block],
) {
    if let (Some(&taps), Some(state)) = (
        taps.first_chunk::<ORDER>(),
        state.first_chunk_mut::<ORDER>(),
    ) {
        let mut local = *state;
        recurse(samples, b0, &taps, &mut local);
        *state = local;
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

    /// Filter a group of leads in place; it is longer than the padding.
    pub(super) fn apply(&self, samples: &mut [Block]) {
        let (Some(&first), Some(&last)) = (samples.first(), samples.last()) else {
            return;
        };
        let mirrored = |centre: Block| {
            move |inner: &Block| std::array::from_fn(|lane| 2.0 * centre[lane] - inner[lane])
        };
        let inner = samples.iter().skip(1).take(self.padding);
        let mut before: Vec<Block> = inner.map(mirrored(first)).collect();
        before.reverse();
        let inner = samples.iter().rev().skip(1).take(self.padding);
        let mut after: Vec<Block> = inner.map(mirrored(last)).collect();

        let start = before.first().copied().unwrap_or(first);
        for section in &self.sections {
            let mut state = section.state(start);
            section.run(before.iter_mut(), &mut state);
            section.run(samples.iter_mut(), &mut state);
            section.run(after.iter_mut(), &mut state);
        }
        let end = after.last().or(samples.last()).copied().unwrap_or(last);
        for section in &self.sections {
            let mut state = section.state(end);
            section.run(after.iter_mut().rev(), &mut state);
            section.run(samples.iter_mut().rev(), &mut state);
            section.run(before.iter_mut().rev(), &mut state);
        }
    }
}
