//! Training equals the plain recount-and-rewrite twin, whatever the records, options and threads.
#![no_main]

mod input;
#[allow(dead_code)]
#[path = "../../tests/core/twin.rs"]
mod twin;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rust_bpe::{Bpe, Corpus, Error, TrainOptions, train};

/// Symbols of all records: the twin recounts them for each merge.
const MAX_SYMBOLS: usize = 1500;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    alphabet: input::Alphabet,
    /// Symbols outside the alphabet stay.
    raw: bool,
    num_merges: u8,
    /// More merges than 16-bit ids could name.
    wide_ids: bool,
    max_token_length: Option<u8>,
    num_threads: u8,
    /// The call of `progress` that fails.
    failing_call: Option<u8>,
    records: Vec<Vec<input::Part<'a>>>,
}

fuzz_target!(|input: Input| {
    let num_symbols = input.alphabet.num_symbols();
    let mut room = if input.wide_ids { 300 } else { MAX_SYMBOLS };
    let mut corpus = Corpus::new(num_symbols).unwrap();
    let mut records = Vec::new();
    for parts in &input.records {
        let mut record = input::sequence(parts, room);
        if !input.raw {
            input::fold(&mut record, num_symbols);
        }
        let is_inside = record
            .iter()
            .all(|&symbol| usize::from(symbol) < num_symbols);
        let pushed = corpus.push_record(&record);
        assert_eq!(pushed.is_ok(), is_inside, "{pushed:?}");
        // A record that was refused leaves no trace.
        if is_inside {
            room -= record.len();
            records.push(record);
        }
    }
    assert_eq!(corpus.num_records(), records.len());

    let options = TrainOptions {
        num_merges: if input.wide_ids {
            40_000
        } else {
            input.num_merges.into()
        },
        max_token_length: input.max_token_length.map(usize::from),
        num_threads: Some(usize::from(input.num_threads % 5)),
    };
    let mut calls = 0;
    let mut done_before = 0;
    let result = train(corpus, &options, |done| {
        assert!(done == done_before || done == done_before + 1);
        done_before = done;
        calls += 1;
        match input.failing_call {
            Some(call) if calls > usize::from(call) => Err(Error::UndefinedToken {
                rank: calls,
                id: -1,
                defined: done,
            }),
            _ => Ok(()),
        }
    });
    if options.num_threads == Some(0) {
        // Options are looked at in order.
        assert!(matches!(
            result,
            Err(Error::NumThreads { .. } | Error::MaxTokenLength { .. })
        ));
        return;
    }
    if let Some(max_token_length @ 0..2) = options.max_token_length {
        assert_eq!(result, Err(Error::MaxTokenLength { max_token_length }));
        return;
    }
    if let Some(call) = input.failing_call
        && calls > usize::from(call)
    {
        // The error of the call that failed, and no call after it.
        let calls = usize::from(call) + 1;
        assert!(matches!(result, Err(Error::UndefinedToken { rank, .. }) if rank == calls));
        return;
    }
    let merges = result.unwrap();
    assert_eq!(done_before, merges.len());
    let longest = options.max_token_length.unwrap_or(usize::MAX);
    let expected = twin::train(&records, options.num_merges, num_symbols, longest);
    assert_eq!(merges, expected);
    // What was learnt is a vocabulary.
    assert!(Bpe::new(merges, num_symbols).is_ok());
});
