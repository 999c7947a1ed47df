//! Millivolts to symbols.

use crate::{Error, Result, check_num_symbols};

/// Added to the range's width, as in the ECG-Byte paper: a flat range divides by this, not by zero.
const WIDTH_OFFSET: f64 = 1e-6;

/// Values of which one near an edge between two bins has all computed exactly.
const BLOCK: usize = 128;

/// Above half the largest symbol's rounding, adding it to a float32 leaves the nearest integer in the
/// lowest bits.
const ROUNDER: f32 = 8_388_608.0;

/// Divides `[low, high]` into `num_symbols` equal bins; values outside go to the outermost bins.
#[derive(Clone, Copy, Debug)]
pub struct Quantizer {
    low: f64,
    width: f64,
    num_symbols: usize,
    estimate: Estimate,
}

impl Quantizer {
    /// # Errors
    /// [`Error::Range`] unless `low <= high`, both finite and a finite distance apart.
    pub fn new(low: f64, high: f64, num_symbols: usize) -> Result<Self> {
        check_num_symbols(num_symbols)?;
        let width = high - low + WIDTH_OFFSET;
        if !(low.is_finite() && high.is_finite() && low <= high && width.is_finite()) {
            return Err(Error::Range { low, high });
        }
        Ok(Self {
            low,
            width,
            num_symbols,
            estimate: Estimate::new(low, width, num_symbols as f64),
        })
    }

    #[must_use]
    pub fn num_symbols(&self) -> usize {
        self.num_symbols
    }

    /// The symbols of `values`, as if computed in float64 whatever their type.
    ///
    /// # Errors
    /// [`Error::NotFinite`] with the position of the first NaN or infinity.
    pub fn quantize<T: Copy + Into<f64>>(&self, values: &[T]) -> Result<Vec<u8>> {
        let mut symbols = vec![0; values.len()];
        let (blocks, rest) = values.as_chunks::<BLOCK>();
        let (symbol_blocks, rest_symbols) = symbols.as_chunks_mut::<BLOCK>();
        for (index, (block, symbols)) in blocks.iter().zip(symbol_blocks).enumerate() {
            if !self.estimate.fill(block, symbols) {
                self.fill(block, symbols, index * BLOCK)?;
            }
        }
        self.fill(rest, rest_symbols, values.len() - rest.len())?;
        Ok(symbols)
    }

    /// The definition, for values that start at `position`.
    fn fill<T: Copy + Into<f64>>(
        &self,
        values: &[T],
        symbols: &mut [u8],
        position: usize,
    ) -> Result<()> {
        let bins = self.num_symbols as f64;
        let mut all_finite = true;
        for (&value, symbol) in values.iter().zip(symbols) {
            let value: f64 = value.into();
            // Checked for all values at once: an early return would keep the loop scalar.
            all_finite &= value.is_finite();
            let unit = ((value - self.low) / self.width).clamp(0.0, 1.0);
            // The cast is the floor, as nothing is negative here.
            *symbol = (bins * unit).min(bins - 1.0) as u8;
        }
        if all_finite {
            return Ok(());
        }
        let values = values.iter().map(|&value| value.into());
        match values.zip(position..).find(|(value, _)| !value.is_finite()) {
            Some((value, position)) => Err(Error::NotFinite {
                position: vec![position],
                value,
            }),
            None => Ok(()),
        }
    }
}

/// The bins in float32, without a division: right except near an edge between two bins, and it knows
/// where that is.
#[derive(Clone, Copy, Debug)]
struct Estimate {
    scale: f32,
    offset: f32,
    last: f32,
    /// How far from the middle of a bin the estimate is right.
    reach: f32,
}

impl Estimate {
    /// The estimate is `value * scale + offset`, 0 in the middle of the lowest bin. With u = 2^-24, the
    /// rounding of the value, the scale and the product move it by up to 3u (bins + |offset|), that of
    /// the offset by u |offset|, that of the sum by u bins.
    fn new(low: f64, width: f64, bins: f64) -> Self {
        let scale = (bins / width) as f32;
        let offset = (-low / width * bins - 0.5) as f32;
        let error = 2.5 * f32::EPSILON * (bins as f32 + offset.abs());
        let is_fit = scale.is_normal() && error < 1.0 / 64.0;
        Self {
            scale,
            offset,
            last: (bins - 1.0) as f32,
            reach: if is_fit { 0.5 - error } else { 0.0 },
        }
    }

    /// Whether all values are finite and their symbols certain.
    fn fill<T: Copy + Into<f64>>(&self, values: &[T; BLOCK], symbols: &mut [u8; BLOCK]) -> bool {
        // Two loops, because one over values of different widths is not vectorised as well.
        let mut bins = [0.0; BLOCK];
        for (bin, &value) in bins.iter_mut().zip(values) {
            *bin = Into::<f64>::into(value) as f32;
        }
        let mut is_certain = true;
        for (&value, symbol) in bins.iter().zip(symbols) {
            let bin = value * self.scale + self.offset;
            is_certain &= bin.abs() <= f32::MAX;
            let bin = if bin < 0.0 { 0.0 } else { bin };
            let bin = if bin > self.last { self.last } else { bin };
            let rounded = bin + ROUNDER;
            let from_middle = (bin - (rounded - ROUNDER)).abs();
            is_certain &= from_middle < self.reach;
            *symbol = rounded.to_bits() as u8;
        }
        is_certain
    }
}
