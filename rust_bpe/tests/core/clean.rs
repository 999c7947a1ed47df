//! Filters, shrinkage and spline against their definitions, one lead after the other.

use proptest::prelude::*;
use rust_bpe::{Cleaning, Error, Filter, Leads, Section, Shrinkage};

use crate::twin;

fn clean(leads: &[Vec<f64>], cleaning: &Cleaning) -> Result<Vec<Vec<f64>>, Error> {
    let samples = leads.first().map_or(0, Vec::len);
    let flat = cleaning.apply(Leads::new(&leads.concat(), samples)?)?;
    let samples = cleaning.num_samples.unwrap_or(samples);
    Ok(flat.chunks(samples.max(1)).map(<[f64]>::to_vec).collect())
}

fn filters(filters: &[twin::Filter]) -> Cleaning {
    let filter = |filter: &twin::Filter| {
        let section = |(b, a, zi): &twin::Section| Section::new(b, a, zi).unwrap();
        Filter::new(
            filter.sections.iter().map(section).collect(),
            filter.padding,
        )
    };
    Cleaning {
        filters: filters.iter().map(filter).collect(),
        ..Cleaning::default()
    }
}

fn shrinkage(low_pass: &[f64], levels: usize) -> Cleaning {
    Cleaning {
        shrinkage: Some(Shrinkage::new(low_pass, levels).unwrap()),
        ..Cleaning::default()
    }
}

fn spline(num_samples: usize) -> Cleaning {
    Cleaning {
        num_samples: Some(num_samples),
        ..Cleaning::default()
    }
}

/// The filter of Daubechies' wavelet with two vanishing moments, in closed form.
fn db2() -> Vec<f64> {
    let root = 3_f64.sqrt();
    [1.0 - root, 3.0 - root, 3.0 + root, 1.0 + root]
        .map(|tap| tap / (4.0 * 2_f64.sqrt()))
        .to_vec()
}

fn bits(leads: &[Vec<f64>]) -> Vec<Vec<u64>> {
    let bits = |lead: &Vec<f64>| lead.iter().map(|value| value.to_bits()).collect();
    leads.iter().map(bits).collect()
}

fn assert_near(got: &[Vec<f64>], expected: &[Vec<f64>], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() <= tolerance, "{got} {expected}");
        }
    }
}

fn lead(length: usize) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(-5.0..5.0, length)
}

fn leads(lengths: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Vec<f64>>> {
    (1..10_usize, lengths)
        .prop_flat_map(|(count, length)| prop::collection::vec(lead(length), count))
}

/// A section of any order; a sum of |a| below 1 keeps it stable.
fn section() -> impl Strategy<Value = twin::Section> {
    (1..12_usize).prop_flat_map(|order| {
        let a = prop::collection::vec(-1.0..1.0, order).prop_map(move |rest| {
            let scale = 0.9 / order as f64;
            [vec![1.0], rest.iter().map(|a| a * scale).collect()].concat()
        });
        let b = prop::collection::vec(-2.0..2.0, order + 1);
        (b, a, prop::collection::vec(-1.0..1.0, order))
    })
}

fn any_filter() -> impl Strategy<Value = twin::Filter> {
    let sections = prop::collection::vec(section(), 1..3);
    (sections, 0..20_usize).prop_map(|(sections, padding)| twin::Filter { sections, padding })
}

proptest! {
    #[test]
    fn filters_equal_the_twin_to_the_last_bit(
        leads in leads(21..60),
        chain in prop::collection::vec(any_filter(), 0..4),
    ) {
        let expected: Vec<Vec<f64>> = leads
            .iter()
            .map(|lead| chain.iter().fold(lead.clone(), |lead, filter| twin::filtfilt(&lead, filter)))
            .collect();
        let cleaned = clean(&leads, &filters(&chain)).unwrap();
        prop_assert_eq!(bits(&cleaned), bits(&expected));
    }

    #[test]
    fn shrinkage_is_the_definition(leads in leads(24..130), levels in 1..4_usize) {
        for low_pass in [vec![0.5_f64.sqrt(); 2], db2()] {
            let expected: Vec<Vec<f64>> =
                leads.iter().map(|lead| twin::shrink(lead, &low_pass, levels)).collect();
            assert_near(&clean(&leads, &shrinkage(&low_pass, levels)).unwrap(), &expected, 1e-12);
        }
    }

    #[test]
    fn the_spline_goes_through_the_samples(leads in leads(4..40), between in 1..5_usize) {
        let length = leads.first().map_or(4, Vec::len);
        let finer = clean(&leads, &spline((length - 1) * between + 1)).unwrap();
        let coarser: Vec<Vec<f64>> =
            finer.iter().map(|lead| lead.iter().step_by(between).copied().collect()).collect();
        assert_near(&coarser, &leads, 1e-14);
    }

    #[test]
    fn the_spline_is_the_plain_one(leads in leads(4..30), num_samples in 0..60_usize) {
        let expected: Vec<Vec<f64>> = leads
            .iter()
            .filter(|_| num_samples > 0)
            .map(|lead| twin::spline(lead, num_samples))
            .collect();
        assert_near(&clean(&leads, &spline(num_samples)).unwrap(), &expected, 1e-11);
    }
}

#[test]
fn a_cubic_is_its_own_spline() {
    let cubic = |t: f64| 2.0 - t + 3.0 * t * t - 0.5 * t * t * t;
    let at = |count: usize| -> Vec<f64> {
        (0..count)
            .map(|k| cubic(4.0 * k as f64 / (count - 1) as f64))
            .collect()
    };
    for length in [4, 5, 6, 7, 50] {
        for num_samples in [2, 3, 9, 100] {
            let cleaned = clean(&[at(length)], &spline(num_samples)).unwrap();
            assert_near(&cleaned, &[at(num_samples)], 1e-12);
        }
    }
    assert_eq!(clean(&[at(7)], &spline(1)).unwrap(), [[2.0]]);
}

#[test]
fn a_line_has_no_details_and_comes_back() {
    let line: Vec<f64> = (0..64).map(|t| f64::from(t) * 0.25).collect();
    let cleaned = clean(std::slice::from_ref(&line), &shrinkage(&db2(), 1)).unwrap();
    // But for the mirrored ends, where the line has a corner.
    assert_near(
        &[cleaned[0][4..60].to_vec()],
        &[line[4..60].to_vec()],
        1e-12,
    );
}

#[test]
fn float32_is_computed_in_float64() {
    let single: Vec<f32> = (0..40_u8).map(|t| f32::from(t).sin()).collect();
    let double: Vec<f64> = single.iter().map(|&value| value.into()).collect();
    let cleaning = shrinkage(&db2(), 2);
    assert_eq!(
        cleaning.apply(Leads::new(&single, 40).unwrap()).unwrap(),
        cleaning.apply(Leads::new(&double, 40).unwrap()).unwrap()
    );
}

#[test]
fn nan_stays_in_its_lead() {
    let mut leads = vec![vec![1.0; 64]; 6];
    leads[4][30] = f64::NAN;
    let filter = twin::Filter {
        sections: vec![(vec![0.5, 0.5], vec![1.0, -0.1], vec![0.2])],
        padding: 6,
    };
    for cleaning in [filters(&[filter]), shrinkage(&db2(), 2), spline(33)] {
        let cleaned = clean(&leads, &cleaning).unwrap();
        for (index, lead) in cleaned.iter().enumerate() {
            assert_eq!(lead.iter().any(|value| value.is_nan()), index == 4);
        }
    }
}

#[test]
fn filters_that_cannot_be() {
    for (b, a, zi) in [
        (&[][..], &[1.0][..], &[][..]),
        (&[1.0], &[], &[]),
        (&[1.0], &[1.0], &[]),
        (&[1.0, 2.0], &[1.0, 2.0], &[]),
        (&[1.0], &[1.0, 2.0], &[0.0, 0.0]),
    ] {
        let shape = Error::FilterShape {
            b: b.len(),
            a: a.len(),
            zi: zi.len(),
        };
        assert_eq!(Section::new(b, a, zi), Err(shape));
    }
    for value in [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY] {
        let error = Section::new(&[1.0, 2.0], &[value, 0.5], &[0.0]);
        assert_eq!(error, Err(Error::LeadingCoefficient { value }));
    }
    assert!(Section::new(&[1.0, 2.0], &[f64::NAN, 0.5], &[0.0]).is_err());
}

#[test]
fn wavelets_that_cannot_be() {
    for taps in [0, 1, 3] {
        assert_eq!(
            Shrinkage::new(&vec![1.0; taps], 1),
            Err(Error::WaveletTaps { taps })
        );
    }
    for levels in [0, 31, usize::MAX] {
        assert_eq!(
            Shrinkage::new(&db2(), levels),
            Err(Error::Levels { levels, limit: 30 })
        );
    }
}

#[test]
fn signals_that_are_too_short() {
    let padded = |padding| twin::Filter {
        sections: vec![(vec![1.0], vec![1.0, 0.1], vec![0.0])],
        padding,
    };
    for (cleaning, shortest) in [
        (filters(&[padded(3), padded(9)]), 10),
        (shrinkage(&db2(), 2), 12),
        (shrinkage(&[1.0, 1.0], 1), 2),
        (spline(7), 4),
    ] {
        assert!(clean(&[vec![1.0; shortest]], &cleaning).is_ok());
        for samples in 0..shortest {
            let error = clean(&vec![vec![1.0; samples]; 3], &cleaning).unwrap_err();
            let told = format!("has {samples} samples: expected at least {shortest} for");
            assert!(error.to_string().contains(&told), "{error}");
        }
    }
    for huge in [
        filters(&[padded(usize::MAX)]),
        shrinkage(&vec![0.1; 10_000], 30),
    ] {
        let error = clean(&[vec![1.0; 50]], &huge).unwrap_err();
        assert!(matches!(error, Error::SignalTooShort { .. }), "{error}");
    }
}

#[test]
fn more_than_memory_is_an_error() {
    for num_samples in [usize::MAX, isize::MAX as usize, 1 << 58] {
        let error = clean(&[vec![1.0; 50]], &spline(num_samples)).unwrap_err();
        assert!(matches!(error, Error::Memory { .. }), "{error}");
    }
}

#[test]
fn nothing_to_do_changes_nothing() {
    let leads = vec![vec![1.0, f64::INFINITY, -0.0]; 5];
    assert_eq!(
        bits(&clean(&leads, &Cleaning::default()).unwrap()),
        bits(&leads)
    );
    assert_eq!(bits(&clean(&leads, &spline(3)).unwrap()), bits(&leads));
    assert!(clean(&[], &Cleaning::default()).unwrap().is_empty());
}
