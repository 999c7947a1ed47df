//! A signal is encoded as its quantised leads are: by the plain formula and the plain twins.
#![no_main]

mod input;
#[allow(dead_code)]
#[path = "../../tests/core/twin.rs"]
mod twin;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rust_bpe::{Algorithm, Bpe, Error, LeadBoundary, Quantizer, SignalEncoding};

const MAX_SAMPLES: usize = 6000;

#[derive(Arbitrary, Debug)]
struct Input {
    alphabet: input::Alphabet,
    merges: Vec<input::Merge>,
    samples_per_lead: u16,
    low: f64,
    high: Bound,
    values: Values,
    /// So often one after the other.
    repeat: u8,
}

#[derive(Arbitrary, Debug)]
enum Bound {
    Any(f64),
    /// So far above the lower one.
    Above(u16),
}

#[derive(Arbitrary, Debug)]
enum Values {
    /// Any bits: NaN, infinity, subnormal and huge numbers.
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    /// Parts of the range, from half of it below to half of it above.
    Parts32(Vec<u8>),
    Parts64(Vec<u16>),
    /// Edges between bins, and so many of the next float64 numbers further.
    Edges(Vec<(u8, i8)>),
}

fuzz_target!(|input: Input| {
    let num_symbols = input.alphabet.num_symbols();
    let low = input.low;
    let high = match input.high {
        Bound::Any(high) => high,
        Bound::Above(steps) => low + f64::from(steps) / 1024.0,
    };
    let width = high - low + 1e-6;
    match &input.values {
        Values::Float32(values) => check(&input, values, high),
        Values::Float64(values) => check(&input, values, high),
        Values::Parts32(parts) => {
            let value = |&part: &u8| (low + (f64::from(part) / 128.0 - 0.5) * width) as f32;
            check(&input, &parts.iter().map(value).collect::<Vec<_>>(), high);
        }
        Values::Parts64(parts) => {
            let value = |&part: &u16| low + (f64::from(part) / 32768.0 - 0.5) * width;
            check(&input, &parts.iter().map(value).collect::<Vec<_>>(), high);
        }
        Values::Edges(edges) => {
            let value = |&(edge, steps): &(u8, i8)| {
                let value = low + f64::from(edge) / num_symbols as f64 * width;
                f64::from_bits(value.to_bits().wrapping_add_signed(steps.into()))
            };
            check(&input, &edges.iter().map(value).collect::<Vec<_>>(), high);
        }
    }
});

fn check<T: Copy + Into<f64>>(input: &Input, values: &[T], high: f64) {
    let num_symbols = input.alphabet.num_symbols();
    let merges = input::merges(&input.merges, num_symbols);
    match input::vocabulary_symbols(&merges, num_symbols) {
        Some(symbols) if symbols < 1 << 12 => {}
        _ => return,
    }
    let Ok(bpe) = Bpe::new(merges, num_symbols) else {
        return;
    };
    let repeat = usize::from(input.repeat) + 1;
    let values = values.repeat(repeat.min(MAX_SAMPLES / values.len().max(1) + 1));
    let samples = usize::from(input.samples_per_lead % 3000) + 1;

    let low = input.low;
    let expected = plain(&values, samples, low, high, num_symbols);
    let quantizer = Quantizer::new(low, high, num_symbols);
    match &expected {
        Err(Error::Range { .. }) => assert!(matches!(quantizer, Err(Error::Range { .. }))),
        Err(_) => assert!(quantizer.unwrap().quantize(&values).is_err()),
        Ok(symbols) => assert_eq!(&quantizer.unwrap().quantize(&values).unwrap(), symbols),
    }
    for algorithm in [Algorithm::Greedy, Algorithm::Bpe] {
        for lead_boundary in [LeadBoundary::Cross, LeadBoundary::Split] {
            let encoding = SignalEncoding {
                algorithm,
                lead_boundary,
            };
            let ids = bpe.encode_signal(&values, samples, (low, high), encoding);
            match &expected {
                // By their text: NaN does not equal itself.
                Err(error) => assert_eq!(ids.unwrap_err().to_string(), error.to_string()),
                Ok(symbols) => assert_eq!(ids.unwrap(), encoded(&bpe, symbols, samples, encoding)),
            }
        }
    }
}

/// The definition: the symbols, or the first value that is none.
fn plain<T: Copy + Into<f64>>(
    values: &[T],
    samples: usize,
    low: f64,
    high: f64,
    num_symbols: usize,
) -> Result<Vec<u8>, Error> {
    let bins = num_symbols as f64;
    let width = high - low + 1e-6;
    if !(low.is_finite() && high.is_finite() && low <= high && width.is_finite()) {
        return Err(Error::Range { low, high });
    }
    let values = values.iter().map(|&value| value.into());
    let symbol = |(position, value): (usize, f64)| {
        if !value.is_finite() {
            let position = vec![position / samples, position % samples];
            return Err(Error::NotFinite { position, value });
        }
        let unit = ((value - low) / width).clamp(0.0, 1.0);
        Ok((bins * unit).floor().min(bins - 1.0) as u8)
    };
    values.enumerate().map(symbol).collect()
}

fn encoded(bpe: &Bpe, symbols: &[u8], samples: usize, encoding: SignalEncoding) -> Vec<u32> {
    let encode = match encoding.algorithm {
        Algorithm::Greedy => twin::encode_greedy,
        Algorithm::Bpe => twin::encode_bpe,
    };
    let length = match encoding.lead_boundary {
        LeadBoundary::Cross => symbols.len().max(1),
        LeadBoundary::Split => samples,
    };
    let leads = symbols.chunks(length);
    leads
        .flat_map(|lead| encode(bpe.merges(), bpe.num_symbols(), lead))
        .collect()
}
