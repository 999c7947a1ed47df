//! Any list of merges is a vocabulary or refused; what it encodes equals the plain twins and decodes back.
#![no_main]

mod input;
#[allow(dead_code)]
#[path = "../../tests/core/twin.rs"]
mod twin;

use std::collections::HashSet;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rust_bpe::{Algorithm, Bpe, Error};

/// What the core allows. Vocabularies between the two limits take seconds.
const CORE_LIMIT: u128 = 1 << 26;
const LIMIT: u128 = 1 << 13;

const MAX_SYMBOLS: usize = 6000;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    alphabet: input::Alphabet,
    merges: Vec<input::Merge>,
    /// Symbols outside the alphabet stay.
    raw: bool,
    num_threads: u8,
    sequences: Vec<Vec<input::Part<'a>>>,
    ids: Vec<u16>,
}

fuzz_target!(|input: Input| {
    let num_symbols = input.alphabet.num_symbols();
    let merges = input::merges(&input.merges, num_symbols);
    let symbols_of_all = input::vocabulary_symbols(&merges, num_symbols);
    if symbols_of_all.is_some_and(|symbols| (LIMIT..=CORE_LIMIT).contains(&symbols)) {
        return;
    }
    let bpe = match (Bpe::new(merges.clone(), num_symbols), symbols_of_all) {
        (Err(Error::UndefinedToken { rank, .. }), None) => {
            let defined = num_symbols + rank;
            let (left, right) = merges[rank];
            assert!(left.max(right) as usize >= defined);
            assert!(input::vocabulary_symbols(&merges[..rank], num_symbols).is_some());
            return;
        }
        // The merges before the undefined token may be too many already.
        (Err(Error::VocabularyTooLarge { rank, .. }), _) => {
            let symbols = input::vocabulary_symbols(&merges[..=rank], num_symbols);
            assert!(symbols.is_some_and(|symbols| symbols > CORE_LIMIT));
            return;
        }
        (Err(Error::DuplicateToken { rank, first }), Some(_)) => {
            let tokens = twin::tokens(&merges, num_symbols);
            assert_eq!(tokens[num_symbols + rank], tokens[first as usize]);
            return;
        }
        (Ok(bpe), Some(_)) => bpe,
        (result, symbols) => panic!("{:?}, {symbols:?} symbols", result.err()),
    };

    let tokens = twin::tokens(&merges, num_symbols);
    assert_eq!(bpe.vocab_size(), tokens.len());
    assert_eq!(tokens.iter().collect::<HashSet<_>>().len(), tokens.len());
    for (token, id) in tokens.iter().zip(0..) {
        assert_eq!(bpe.token(id).unwrap(), token);
        assert_eq!(bpe.encode_greedy(token).unwrap(), [id]);
    }

    let mut room = MAX_SYMBOLS;
    let mut sequences = Vec::new();
    for parts in input.sequences.iter().take(20) {
        let mut symbols = input::sequence(parts, room);
        if !input.raw {
            input::fold(&mut symbols, num_symbols);
        }
        room -= symbols.len();
        sequences.push(symbols);
    }
    for algorithm in [Algorithm::Greedy, Algorithm::Bpe] {
        let single: Vec<_> = sequences
            .iter()
            .map(|symbols| bpe.encode(symbols, algorithm))
            .collect();
        for (symbols, ids) in sequences.iter().zip(&single) {
            let outside = symbols.iter().position(|&s| usize::from(s) >= num_symbols);
            match (ids, outside) {
                (Err(Error::Symbol { position, .. }), Some(outside)) => {
                    assert_eq!(*position, outside);
                }
                (Ok(ids), None) => check(&bpe, symbols, ids, algorithm),
                (ids, outside) => panic!("{ids:?}, symbol {outside:?} is outside"),
            }
        }
        for num_threads in [Some(1), Some(usize::from(input.num_threads % 3) + 2)] {
            let batch = bpe.encode_batch(&sequences, algorithm, num_threads);
            match single.iter().position(Result::is_err) {
                None => {
                    let single: Vec<_> = single.iter().flatten().cloned().collect();
                    assert_eq!(batch.unwrap(), single);
                }
                Some(first) => {
                    assert!(matches!(batch, Err(Error::Item { index, .. }) if index == first));
                }
            }
        }
    }

    let ids: Vec<u32> = input.ids.iter().map(|&id| id.into()).collect();
    let expected = ids
        .iter()
        .map(|&id| tokens.get(id as usize).cloned())
        .collect::<Option<Vec<_>>>();
    assert_eq!(bpe.decode(&ids).ok(), expected.map(|parts| parts.concat()));
});

fn check(bpe: &Bpe, symbols: &[u8], ids: &[u32], algorithm: Algorithm) {
    let expected = match algorithm {
        Algorithm::Greedy => twin::encode_greedy(bpe.merges(), bpe.num_symbols(), symbols),
        Algorithm::Bpe => twin::encode_bpe(bpe.merges(), bpe.num_symbols(), symbols),
    };
    assert_eq!(ids, expected);
    assert_eq!(bpe.decode(ids).unwrap(), symbols);
    // The spans cover the symbols without a gap.
    let mut end = 0;
    for ((start, stop), &id) in bpe.spans(ids).unwrap().into_iter().zip(ids) {
        assert_eq!(start, end);
        let span = &symbols[start as usize..stop as usize];
        assert_eq!(span, bpe.token(id).unwrap());
        end = stop;
    }
    assert_eq!(end, symbols.len() as u64);
}
