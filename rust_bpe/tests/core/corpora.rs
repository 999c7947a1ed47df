//! Corpora that are easy to get wrong.

use proptest::prelude::*;

pub fn fibonacci_word(length: usize) -> Vec<u8> {
    let (mut shorter, mut word) = (vec![0], vec![0, 1]);
    while word.len() < length {
        let longer = [&word[..], &shorter].concat();
        shorter = std::mem::replace(&mut word, longer);
    }
    word.truncate(length);
    word
}

/// Records over `num_symbols` symbols: noise, runs (flat lines), short periods, and empty ones.
pub fn records(num_symbols: u8) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let noise = prop::collection::vec(0..num_symbols, 0..60);
    let runs = prop::collection::vec((0..num_symbols, 1_usize..20), 0..8).prop_map(|runs| {
        let run = |(symbol, length)| std::iter::repeat_n(symbol, length);
        runs.into_iter().flat_map(run).collect()
    });
    let periodic = (prop::collection::vec(0..num_symbols, 1..5), 0_usize..60)
        .prop_map(|(period, length)| period.into_iter().cycle().take(length).collect());
    prop::collection::vec(prop_oneof![noise, runs, periodic], 0..6)
}
