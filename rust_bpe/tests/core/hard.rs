//! Corpora that reach the corners of training: long tokens, full alphabets, several chunks, wide ids.

use proptest::prelude::*;
use rust_bpe::{Bpe, Corpus, Error, Pair, TrainOptions, train};

use crate::{corpora, twin};

fn corpus(records: &[Vec<u8>], num_symbols: usize) -> Corpus {
    let mut corpus = Corpus::new(num_symbols).unwrap();
    for record in records {
        corpus.push_record(record).unwrap();
    }
    corpus
}

fn learnt(
    records: &[Vec<u8>],
    num_symbols: usize,
    num_merges: usize,
    num_threads: usize,
) -> Vec<Pair> {
    let options = TrainOptions {
        num_threads: Some(num_threads),
        ..TrainOptions::new(num_merges)
    };
    train(corpus(records, num_symbols), &options, |_| {
        Ok::<(), Error>(())
    })
    .unwrap()
}

fn noise(length: usize, num_symbols: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 16) as usize % num_symbols) as u8
        })
        .collect()
}

#[test]
fn tokens_of_thousands_of_symbols() {
    let long = 100_000;
    for (records, num_symbols) in [
        (vec![vec![0; long]], 1),
        (vec![vec![7; long], vec![7; long / 3], vec![7; 1]], 26),
        (
            vec![[0, 1].repeat(long / 2), corpora::fibonacci_word(long)],
            2,
        ),
        (
            vec![
                [
                    &vec![0; 30_000][..],
                    &[1],
                    &[0; 30_000],
                    &[2; 9_999],
                    &[0; 77],
                ]
                .concat(),
            ],
            3,
        ),
    ] {
        // More merges than that have few pairs each, for which the twin takes too long.
        let merges = learnt(&records, num_symbols, 40, 2);
        assert_eq!(merges, twin::train(&records, 40, num_symbols, usize::MAX));
        let bpe = Bpe::new(merges, num_symbols).unwrap();
        let longest = bpe.token_lengths().iter().max();
        assert!(longest > Some(&8000), "{longest:?}");
        for record in records {
            for ids in [bpe.encode_greedy(&record), bpe.encode_bpe(&record)] {
                assert_eq!(bpe.decode(&ids.unwrap()).unwrap(), record);
            }
            let expected = twin::encode_bpe(bpe.merges(), num_symbols, &record);
            assert_eq!(bpe.encode_bpe(&record).unwrap(), expected);
        }
    }
}

#[test]
fn records_of_several_chunks() {
    // A chunk takes 2^18 symbols, unless a single record is longer.
    let flat = vec![3; 300_000];
    let records = [
        noise(700_000, 4, 1),
        [&flat[..], &noise(999, 4, 2), &flat].concat(),
        vec![],
        noise((1 << 18) - 2, 4, 3),
        noise(1, 4, 4),
        noise(300, 4, 5),
    ];
    let expected = twin::train(&records, 9, 4, usize::MAX);
    for num_threads in [1, 3] {
        assert_eq!(learnt(&records, 4, 9, num_threads), expected);
    }
}

#[test]
fn rare_pairs_of_several_chunks() {
    // Too rare for scans from the start.
    let records = [noise(400_000, 200, 1), noise(300_000, 200, 2)];
    let expected = twin::train(&records, 4, 200, usize::MAX);
    for num_threads in [1, 3] {
        assert_eq!(learnt(&records, 200, 4, num_threads), expected);
    }
}

#[test]
fn thousands_of_empty_and_of_short_records() {
    let mut records = vec![Vec::new(); 20_000];
    for (index, record) in records.iter_mut().enumerate().skip(5000) {
        *record = noise(index % 4, 3, index as u32);
    }
    records.extend(vec![Vec::new(); 5000]);
    let expected = twin::train(&records, usize::MAX, 3, usize::MAX);
    assert!(!expected.is_empty());
    for num_threads in [1, 3] {
        assert_eq!(learnt(&records, 3, 1 << 20, num_threads), expected);
    }
    assert_eq!(learnt(&vec![Vec::new(); 30_000], 256, 9, 3), []);
}

#[test]
fn ids_of_16_and_of_32_bits() {
    // Ids of 16 bits end at 32,766.
    let records = [noise(40_000, 256, 1)];
    let last = 32_766 - 256;
    let wide = learnt(&records, 256, 1 << 20, 2);
    assert!(wide.len() > last + 1000, "{}", wide.len());
    for num_merges in [last - 1, last, last + 1, last + 3, last + 1000] {
        assert_eq!(learnt(&records, 256, num_merges, 1), wide[..num_merges]);
    }
    // With few merges to learn, so that the twin can tell.
    let records = [noise(500, 256, 2)];
    let expected = twin::train(&records, usize::MAX, 256, usize::MAX);
    for num_merges in [last, last + 1] {
        assert_eq!(learnt(&records, 256, num_merges, 1), expected);
    }
}

#[test]
fn an_error_from_any_call_of_progress_ends_training() {
    let runs = [vec![1; 200], [0, 1].repeat(60)].concat();
    for (num_symbols, num_threads) in [(26, 1), (250, 2), (256, 1), (256, 2)] {
        let records = [noise(400, num_symbols, 1), runs.clone(), noise(50, 2, 2)];
        let options = TrainOptions {
            num_threads: Some(num_threads),
            ..TrainOptions::new(30)
        };
        let stopped_at = |call: usize| {
            let mut calls = 0;
            let result = train(corpus(&records, num_symbols), &options, |_| {
                calls += 1;
                match calls > call {
                    true => Err(Error::NumSymbols { num_symbols: calls }),
                    false => Ok(()),
                }
            });
            (result, calls)
        };
        let (complete, calls) = stopped_at(usize::MAX);
        assert_eq!(complete.unwrap().len(), 30);
        assert!(calls > 30);
        for call in 0..calls {
            let error = Error::NumSymbols {
                num_symbols: call + 1,
            };
            assert_eq!(stopped_at(call), (Err(error), call + 1));
        }
    }
}

/// Records of the last symbols of an alphabet: 255 of 256 is the byte that stands for boundaries
/// elsewhere.
fn last_symbols(num_symbols: usize) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let last = (num_symbols - 1) as u8;
    corpora::records(5).prop_map(move |records| {
        let from_last = |record: Vec<u8>| record.iter().map(|symbol| last - symbol).collect();
        records.into_iter().map(from_last).collect()
    })
}

proptest! {
    #[test]
    fn the_largest_alphabets(
        (num_symbols, records, others) in (250_usize..=256)
            .prop_flat_map(|n| (Just(n), last_symbols(n), corpora::records(n.min(255) as u8))),
        num_merges in 0_usize..40,
        num_threads in 1_usize..4,
    ) {
        let records = [records, others].concat();
        let merges = learnt(&records, num_symbols, num_merges, num_threads);
        prop_assert_eq!(&merges, &twin::train(&records, num_merges, num_symbols, usize::MAX));
        let bpe = Bpe::new(merges, num_symbols).unwrap();
        for record in &records {
            let greedy = bpe.encode_greedy(record).unwrap();
            prop_assert_eq!(&greedy, &twin::encode_greedy(bpe.merges(), num_symbols, record));
            let ranked = bpe.encode_bpe(record).unwrap();
            prop_assert_eq!(&ranked, &twin::encode_bpe(bpe.merges(), num_symbols, record));
            prop_assert_eq!(&bpe.decode(&greedy).unwrap(), record);
        }
    }
}
