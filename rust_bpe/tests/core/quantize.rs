//! The bins and their edges.

use proptest::prelude::*;
use rust_bpe::{Error, Quantizer};

#[test]
fn equal_bins_and_clipping() {
    let quantizer = Quantizer::new(0.0, 4.0, 4).unwrap();
    let values = [-9.0, -0.0, 0.5, 1.5, 2.5, 3.5, 4.0, 99.0];
    assert_eq!(
        quantizer.quantize(&values).unwrap(),
        [0, 0, 0, 1, 2, 3, 3, 3]
    );
    // The width is 4.000001, so an edge belongs to the bin below it.
    assert_eq!(quantizer.quantize(&[1.0_f32, 2.0, 3.0]).unwrap(), [0, 1, 2]);
}

#[test]
fn a_flat_range_has_the_offset_as_its_width() {
    let quantizer = Quantizer::new(2.0, 2.0, 10).unwrap();
    assert_eq!(
        quantizer.quantize(&[1.9, 2.0, 2.000_000_55, 2.1]).unwrap(),
        [0, 0, 5, 9]
    );
}

#[test]
fn all_256_symbols() {
    let quantizer = Quantizer::new(-1.0, 1.0, 256).unwrap();
    assert_eq!(
        quantizer.quantize(&[-1.0, 0.0, 1.0, 2.0]).unwrap(),
        [0, 127, 255, 255]
    );
}

#[test]
fn float32_is_computed_in_float64() {
    // In float32 arithmetic 26 * x' is 13 here.
    let quantizer = Quantizer::new(-1.13, 1.27, 26).unwrap();
    assert_eq!(quantizer.quantize(&[0.070_000_5_f32]).unwrap(), [12]);
}

#[test]
fn the_first_value_that_is_not_finite_is_named() {
    let quantizer = Quantizer::new(0.0, 1.0, 26).unwrap();
    let error = quantizer
        .quantize(&[0.0, f64::NEG_INFINITY, f64::NAN])
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("signal[1] is -inf: expected finite values")
    );
}

#[test]
fn ranges_that_are_none() {
    for (low, high) in [
        (1.0, 0.0),
        (f64::NAN, 1.0),
        (0.0, f64::NAN),
        (0.0, f64::INFINITY),
        (-f64::MAX, f64::MAX),
    ] {
        assert!(matches!(
            Quantizer::new(low, high, 26),
            Err(Error::Range { .. })
        ));
    }
    assert_eq!(
        Quantizer::new(0.0, 1.0, 0).unwrap_err(),
        Error::NumSymbols { num_symbols: 0 }
    );
}

proptest! {
    #[test]
    fn equals_the_formula(
        values in prop::collection::vec(prop_oneof![-10.0..10.0, prop::num::f64::NORMAL], 0..50),
        low in -5.0..0.0_f64,
        width in 0.0..9.0_f64,
        num_symbols in 1_usize..=256,
    ) {
        let high = low + width;
        let formula = |value: f64| {
            let unit = f64::clamp((value - low) / (high - low + 1e-6), 0.0, 1.0);
            ((num_symbols as f64 * unit).floor() as usize).min(num_symbols - 1) as u8
        };
        let expected: Vec<u8> = values.iter().copied().map(formula).collect();
        prop_assert_eq!(Quantizer::new(low, high, num_symbols).unwrap().quantize(&values).unwrap(), expected);
    }
}
