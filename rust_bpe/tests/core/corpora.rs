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

/// A sequence that is long enough to be cut into segments: of noise, of tokens, of a short period with
/// few defects, of one symbol, or a Fibonacci word.
pub fn long_sequence(num_symbols: usize, tokens: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let last = (num_symbols - 1) as u8;
    let length = 0_usize..4000;
    let noise = prop::collection::vec(0..=last, length.clone());
    let of_tokens =
        (prop::collection::vec(any::<prop::sample::Index>(), 0..400)).prop_map(move |chosen| {
            let tokens = chosen.iter().flat_map(|index| index.get(&tokens));
            tokens.copied().take(6000).collect()
        });
    let periodic = (
        prop::collection::vec(0..=last, 1..8),
        length.clone(),
        prop::collection::vec((any::<prop::sample::Index>(), 0..=last), 0..3),
    )
        .prop_map(|(period, length, defects)| {
            let mut symbols: Vec<u8> = period.into_iter().cycle().take(length).collect();
            for (index, symbol) in defects {
                if !symbols.is_empty() {
                    let position = index.index(symbols.len());
                    symbols[position] = symbol;
                }
            }
            symbols
        });
    let constant = (0..=last, length.clone()).prop_map(|(symbol, length)| vec![symbol; length]);
    let word = length.prop_map(move |length| {
        let word = fibonacci_word(length);
        word.into_iter().map(|symbol| symbol.min(last)).collect()
    });
    prop_oneof![noise, of_tokens, periodic, constant, word]
}
