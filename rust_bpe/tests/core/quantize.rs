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

/// The definition.
fn formula(value: f64, (low, high): (f64, f64), num_symbols: usize) -> u8 {
    let unit = f64::clamp((value - low) / (high - low + 1e-6), 0.0, 1.0);
    ((num_symbols as f64 * unit).floor() as usize).min(num_symbols - 1) as u8
}

/// One value that is hard to place has its whole block computed exactly: each gets blocks of its own.
fn assert_equals_formula<T: Copy + Into<f64>>(value: T, range: (f64, f64), num_symbols: usize) {
    let quantizer = Quantizer::new(range.0, range.1, num_symbols).unwrap();
    let symbols = quantizer.quantize(&[value; 130]).unwrap();
    let value: f64 = value.into();
    let expected = formula(value, range, num_symbols);
    assert_eq!(symbols, [expected; 130], "{value:e} in {range:?}");
}

#[test]
fn the_edges_of_all_bins() {
    let ranges = [
        (-1.077_129_709_720_611_6, 1.109_848_654_270_169_7),
        (0.0, 26.0),
        (-0.0, 0.0),
        (2.0, 2.0),
        (-1e-30, 1e-30),
        (1e-3, 1.5e-3),
        (1e4, 1e4 + 1.0),
        (-3e15, -3e15 + 4.0),
        (-1e30, 1e30),
        (1e37, 3e38),
        (-5e307, 5e307),
    ];
    for (low, high) in ranges {
        for num_symbols in [1, 2, 26, 256] {
            for edge in 0..=num_symbols {
                let edge = low + (high - low + 1e-6) * (edge as f64 / num_symbols as f64);
                let step = edge.abs().max(high - low);
                for near in [0.0, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4] {
                    for value in [edge - near * step, edge + near * step] {
                        for value in [value.next_down(), value, value.next_up()] {
                            assert_equals_formula(value, (low, high), num_symbols);
                        }
                        let value = value as f32;
                        for value in [value.next_down(), value, value.next_up()] {
                            if value.is_finite() {
                                assert_equals_formula(value, (low, high), num_symbols);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn values_beyond_float32_are_finite() {
    let quantizer = Quantizer::new(-1.0, 1.0, 26).unwrap();
    assert_eq!(quantizer.quantize(&[1e300; 200]).unwrap(), [25; 200]);
    assert_eq!(quantizer.quantize(&[-f64::MAX; 200]).unwrap(), [0; 200]);
    assert_eq!(quantizer.quantize(&[1e-320; 200]).unwrap(), [12; 200]);
}

#[test]
fn values_that_are_not_finite_are_found_anywhere() {
    let quantizer = Quantizer::new(0.0, 1.0, 26).unwrap();
    for position in 0..300 {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = [0.7_f32; 300];
            values[299] = f32::NAN;
            values[position] = value;
            let error = quantizer.quantize(&values).unwrap_err().to_string();
            assert!(error.starts_with(&format!("signal[{position}] is ")));
            let values = values.map(f64::from);
            assert_eq!(quantizer.quantize(&values).unwrap_err().to_string(), error);
        }
    }
}

proptest! {
    #[test]
    fn equals_the_formula(
        values in prop::collection::vec(
            prop_oneof![4 => -10.0..10.0, 1 => -1e-3..1e-3, 1 => prop::num::f64::NORMAL],
            0..600,
        ),
        low in -5.0..0.0_f64,
        width in 0.0..9.0_f64,
        num_symbols in 1_usize..=256,
    ) {
        let range = (low, low + width);
        let quantizer = Quantizer::new(range.0, range.1, num_symbols).unwrap();
        let expected: Vec<u8> =
            values.iter().map(|&value| formula(value, range, num_symbols)).collect();
        prop_assert_eq!(quantizer.quantize(&values).unwrap(), expected);

        let values: Vec<f32> = values
            .into_iter()
            .map(|value| value as f32)
            .filter(|value| value.is_finite())
            .collect();
        let expected: Vec<u8> =
            values.iter().map(|&value| formula(value.into(), range, num_symbols)).collect();
        prop_assert_eq!(quantizer.quantize(&values).unwrap(), expected);
    }

    #[test]
    fn any_value_in_any_range(
        value in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO,
        bounds in prop::array::uniform2(prop::num::f64::NORMAL | prop::num::f64::ZERO),
        num_symbols in 1_usize..=256,
    ) {
        let range = (bounds[0].min(bounds[1]), bounds[0].max(bounds[1]));
        if (range.1 - range.0).is_finite() {
            assert_equals_formula(value, range, num_symbols);
            let single = value as f32;
            if single.is_finite() {
                assert_equals_formula(single, range, num_symbols);
            }
        }
    }
}
