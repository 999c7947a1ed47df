//! Millivolts to symbols.

use crate::{Error, Result, check_num_symbols};

/// Added to the range's width, as in the ECG-Byte paper: a flat range divides by this, not by zero.
const WIDTH_OFFSET: f64 = 1e-6;

/// Divides `[low, high]` into `num_symbols` equal bins; values outside go to the outermost bins.
#[derive(Clone, Copy, Debug)]
pub struct Quantizer {
    low: f64,
    width: f64,
    num_symbols: usize,
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
        })
    }

    #[must_use]
    pub fn num_symbols(&self) -> usize {
        self.num_symbols
    }

    /// The symbols of `values`, computed in float64 whatever their type.
    ///
    /// # Errors
    /// [`Error::NotFinite`] with the position of the first NaN or infinity.
    pub fn quantize<T: Copy + Into<f64>>(&self, values: &[T]) -> Result<Vec<u8>> {
        let bins = self.num_symbols as f64;
        let last = bins - 1.0;
        let mut all_finite = true;
        let symbols = values
            .iter()
            .map(|&value| {
                let value: f64 = value.into();
                // Checked for all values at once: an early return would keep the loop scalar.
                all_finite &= value.is_finite();
                let unit = ((value - self.low) / self.width).clamp(0.0, 1.0);
                // The cast is the floor, as nothing is negative here.
                (bins * unit).min(last) as u8
            })
            .collect();
        if all_finite {
            return Ok(symbols);
        }
        match values
            .iter()
            .position(|&value| !Into::<f64>::into(value).is_finite())
        {
            Some(position) => Err(Error::NotFinite {
                position: vec![position],
                value: values[position].into(),
            }),
            None => Ok(symbols),
        }
    }
}
