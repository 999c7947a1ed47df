//! Training equals the plain recount-and-rewrite twin.

use proptest::prelude::*;
use rust_bpe::{Corpus, Error, Pair, TrainOptions, train};

use crate::{corpora, twin};

fn corpus(records: &[Vec<u8>], num_symbols: usize) -> Corpus {
    let mut corpus = Corpus::new(num_symbols).unwrap();
    for record in records {
        corpus.push_record(record).unwrap();
    }
    corpus
}

fn trained(records: &[Vec<u8>], num_symbols: usize, options: &TrainOptions) -> Vec<Pair> {
    train(corpus(records, num_symbols), options, |_| {
        Ok::<(), Error>(())
    })
    .unwrap()
}

fn on_threads(num_merges: usize, num_threads: usize) -> TrainOptions {
    TrainOptions {
        num_threads: Some(num_threads),
        ..TrainOptions::new(num_merges)
    }
}

/// All merges that there are, on one and on three threads, against the twin.
fn assert_equals_twin(records: &[Vec<u8>], num_symbols: usize) {
    let expected = twin::train(records, usize::MAX, num_symbols, usize::MAX);
    for num_threads in [1, 3] {
        let options = on_threads(1 << 20, num_threads);
        assert_eq!(trained(records, num_symbols, &options), expected);
    }
}

#[test]
fn counts_overlapping_windows() {
    // (0, 0) stands three times in 0000 and (1, 2) twice; without overlaps it would be a tie.
    let records = [vec![0, 0, 0, 0], vec![1, 2], vec![1, 2]];
    assert_eq!(trained(&records, 3, &on_threads(1, 1)), [(0, 0)]);
    // In 11111 they count four: more than the three of (0, 2), which two without overlaps are not.
    let records = [vec![1; 5], vec![0, 2], vec![0, 2], vec![0, 2]];
    assert_eq!(trained(&records, 3, &on_threads(1, 1)), [(1, 1)]);
}

#[test]
fn ties_go_to_the_smallest_left_then_right_id() {
    let records = [vec![2, 0], vec![1, 2], vec![1, 1]];
    let merges = trained(&records, 3, &on_threads(9, 1));
    assert_eq!(merges, [(1, 1), (1, 2), (2, 0)]);
}

#[test]
fn records_are_boundaries() {
    assert_eq!(trained(&[vec![0], vec![1]], 2, &on_threads(9, 1)), []);
}

#[test]
fn runs_of_every_length() {
    for length in 0..70 {
        assert_equals_twin(&[vec![0; length]], 1);
        assert_equals_twin(&[vec![1; length], vec![1; length / 2], vec![0, 1, 1]], 2);
    }
}

#[test]
fn period_two_and_fibonacci_words() {
    for length in 0..90 {
        let period: Vec<u8> = [0, 1].into_iter().cycle().take(length).collect();
        let word = corpora::fibonacci_word(length);
        assert_equals_twin(std::slice::from_ref(&period), 2);
        assert_equals_twin(std::slice::from_ref(&word), 2);
        assert_equals_twin(&[period, vec![], word, vec![0]], 2);
    }
}

#[test]
fn nothing_to_learn_from() {
    assert_equals_twin(&[], 26);
    assert_equals_twin(&[vec![]], 26);
    assert_equals_twin(&[vec![3], vec![], vec![25]], 26);
}

#[test]
fn large_steps_on_several_threads() {
    // More occurrences than the threshold under which a step stays on the calling thread.
    let mut state = 1_u32;
    let records: Vec<Vec<u8>> = (0..40)
        .map(|_| {
            let mut noise = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 30) as u8
            };
            (0..2000).map(|_| noise()).collect()
        })
        .collect();
    let expected = twin::train(&records, 60, 4, usize::MAX);
    for num_threads in [1, 2, 5, 64] {
        assert_eq!(trained(&records, 4, &on_threads(60, num_threads)), expected);
    }
}

#[test]
fn progress_counts_every_merge() {
    let mut seen = Vec::new();
    let merges = train(corpus(&[vec![0; 9]], 1), &on_threads(99, 1), |done| {
        seen.push(done);
        Ok::<(), Error>(())
    })
    .unwrap();
    // Long passes call it with the same number again.
    seen.dedup();
    assert_eq!(seen, (0..=merges.len()).collect::<Vec<_>>());
}

#[test]
fn an_error_from_progress_ends_training() {
    let stop = Error::NumThreads { num_threads: 0 };
    let result = train(corpus(&[vec![0; 99]], 1), &on_threads(99, 1), |done| {
        if done == 2 { Err(stop.clone()) } else { Ok(()) }
    });
    assert_eq!(result, Err(stop));
}

#[test]
fn refusals_say_what_and_where() {
    let mut corpus = Corpus::new(3).unwrap();
    corpus.push_record(&[0, 1]).unwrap();
    let message = corpus.push_record(&[2, 3]).unwrap_err().to_string();
    assert!(
        message.starts_with(
            "record 1: symbol 3 at position 1 is outside the alphabet: expected 0 to 2"
        )
    );
    assert_eq!((corpus.num_records(), corpus.len()), (1, 2));

    assert_eq!(
        Corpus::new(0).unwrap_err(),
        Error::NumSymbols { num_symbols: 0 }
    );
    assert_eq!(
        Corpus::new(257).unwrap_err(),
        Error::NumSymbols { num_symbols: 257 }
    );
    let refused = |options: TrainOptions| {
        train(corpus.clone(), &options, |_| Ok::<(), Error>(())).unwrap_err()
    };
    for num_threads in [0, 1025, usize::MAX] {
        assert_eq!(
            refused(on_threads(1, num_threads)),
            Error::NumThreads { num_threads }
        );
    }
    assert_eq!(
        refused(TrainOptions {
            max_token_length: Some(1),
            ..TrainOptions::new(1)
        }),
        Error::MaxTokenLength {
            max_token_length: 1
        }
    );
    assert!(matches!(
        refused(TrainOptions::new(usize::MAX)),
        Error::NumMerges { .. }
    ));
}

proptest! {
    #[test]
    fn equals_the_twin(
        (num_symbols, records) in (1_u8..5).prop_flat_map(|n| (Just(n), corpora::records(n))),
        num_merges in 0_usize..40,
        max_token_length in prop_oneof![Just(None), (2_usize..12).prop_map(Some)],
        num_threads in 1_usize..4,
    ) {
        let num_symbols = usize::from(num_symbols);
        let options = TrainOptions { num_merges, max_token_length, num_threads: Some(num_threads) };
        let longest = max_token_length.unwrap_or(usize::MAX);
        prop_assert_eq!(
            trained(&records, num_symbols, &options),
            twin::train(&records, num_merges, num_symbols, longest)
        );
    }

    #[test]
    fn no_two_tokens_have_the_same_symbols(records in corpora::records(3)) {
        let tokens = twin::tokens(&trained(&records, 3, &on_threads(1 << 20, 1)), 3);
        let distinct: std::collections::HashSet<_> = tokens.iter().collect();
        prop_assert_eq!(distinct.len(), tokens.len());
    }
}
