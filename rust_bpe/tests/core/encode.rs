//! Both encodings equal their plain twins, and both decode to what was encoded.

use proptest::prelude::*;
use rust_bpe::{
    Algorithm, Bpe, Corpus, Error, LeadBoundary, Pair, SignalEncoding, TrainOptions, train,
};

use crate::{corpora, twin};

fn learnt(records: &[Vec<u8>], num_merges: usize, num_symbols: usize) -> Vec<Pair> {
    let mut corpus = Corpus::new(num_symbols).unwrap();
    for record in records {
        corpus.push_record(record).unwrap();
    }
    let options = TrainOptions {
        num_threads: Some(1),
        ..TrainOptions::new(num_merges)
    };
    train(corpus, &options, |_| Ok::<(), Error>(())).unwrap()
}

/// `abc`, where greedy and rank order part: a = 0, b = 1, c = 2; ab = 3, bc = 4, cb = 5, bcb = 6.
fn small() -> Bpe {
    Bpe::new(vec![(0, 1), (1, 2), (2, 1), (1, 5)], 3).unwrap()
}

#[test]
fn greedy_takes_the_longest_and_bpe_the_earliest() {
    let bpe = small();
    let symbols = [1, 2, 1, 0, 1, 2];
    assert_eq!(bpe.encode_greedy(&symbols).unwrap(), [6, 3, 2]);
    assert_eq!(bpe.encode_bpe(&symbols).unwrap(), [4, 1, 3, 2]);
}

#[test]
fn tokens_lengths_and_spans() {
    let bpe = small();
    assert_eq!(bpe.vocab_size(), 7);
    assert_eq!(bpe.token_lengths(), [1, 1, 1, 2, 2, 2, 3]);
    assert_eq!(bpe.token(6).unwrap(), [1, 2, 1]);
    assert_eq!(bpe.decode(&[6, 0, 3]).unwrap(), [1, 2, 1, 0, 0, 1]);
    assert_eq!(bpe.spans(&[6, 0, 3]).unwrap(), [(0, 3), (3, 4), (4, 6)]);
    assert_eq!(bpe.spans(&[]).unwrap(), []);
}

#[test]
fn all_256_symbols() {
    let bpe = Bpe::new(vec![(255, 255)], 256).unwrap();
    assert_eq!(
        bpe.encode_greedy(&[255, 255, 255, 0]).unwrap(),
        [256, 255, 0]
    );
    assert_eq!(bpe.encode_bpe(&[255, 255, 255, 0]).unwrap(), [256, 255, 0]);
}

#[test]
fn damaged_merges_are_refused() {
    let refused = |merges: &[Pair]| Bpe::new(merges.to_vec(), 3).err().unwrap();
    let undefined = |rank, id, defined| Error::UndefinedToken { rank, id, defined };
    assert_eq!(refused(&[(0, 3)]), undefined(0, 3, 3));
    assert_eq!(refused(&[(0, 1), (5, 0)]), undefined(1, 5, 4));
    // (ab)c and a(bc) are both abc.
    assert_eq!(
        refused(&[(0, 1), (1, 2), (3, 2), (0, 4)]),
        Error::DuplicateToken { rank: 3, first: 5 }
    );
    // Forty merges that describe 2^40 symbols.
    let doubling: Vec<Pair> = std::iter::once((0, 0))
        .chain((3..42).map(|id| (id, id)))
        .collect();
    assert!(matches!(
        refused(&doubling),
        Error::VocabularyTooLarge { .. }
    ));
}

#[test]
fn refusals_name_the_position() {
    let bpe = small();
    let message = bpe.encode_greedy(&[0, 1, 3]).unwrap_err().to_string();
    assert!(message.starts_with("symbol 3 at position 2 is outside the alphabet: expected 0 to 2"));
    assert_eq!(bpe.encode_bpe(&[0, 1, 3]).unwrap_err().to_string(), message);
    assert_eq!(
        bpe.decode(&[0, 7]).unwrap_err().to_string(),
        "position 1: there is no token 7: expected 0 to 6"
    );
    let batch = bpe.encode_batch(&[vec![0], vec![9], vec![8]], Algorithm::Bpe, Some(2));
    assert!(
        batch
            .unwrap_err()
            .to_string()
            .starts_with("sequence 1: symbol 9")
    );
}

#[test]
fn a_token_spans_two_leads_only_if_it_may() {
    // Bins of 1 mV; the first lead ends in a, the second starts with b.
    let bpe = small();
    let encode = |lead_boundary| {
        let encoding = SignalEncoding {
            algorithm: Algorithm::Greedy,
            lead_boundary,
        };
        bpe.encode_signal(&[2.5, 0.5, 1.5, 9.0], 2, (0.0, 3.0), encoding)
            .unwrap()
    };
    assert_eq!(encode(LeadBoundary::Cross), [2, 3, 2]);
    assert_eq!(encode(LeadBoundary::Split), [2, 0, 4]);
}

#[test]
fn a_signal_is_refused_by_lead_and_sample() {
    let encoding = SignalEncoding {
        algorithm: Algorithm::Greedy,
        lead_boundary: LeadBoundary::Cross,
    };
    let error = small()
        .encode_signal(&[0.0, 1.0, 2.0, f32::NAN], 2, (0.0, 3.0), encoding)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("signal[1, 1] is NaN: expected finite values")
    );
}

#[test]
fn names_are_known_or_listed() {
    assert_eq!("bpe".parse(), Ok(Algorithm::Bpe));
    assert_eq!("split".parse(), Ok(LeadBoundary::Split));
    assert_eq!(
        "fast".parse::<Algorithm>().unwrap_err().to_string(),
        r#"algorithm is "fast": expected one of ["greedy", "bpe"]"#
    );
}

/// The token `a^count b` as `(a, a^(count-1) b)`, with all the shorter ones; a = 0, b = 1.
fn right_chain(count: u32) -> Vec<Pair> {
    std::iter::once((0, 1))
        .chain((2..count + 1).map(|id| (0, id)))
        .collect()
}

/// All of `aa, aaa, ...` up to `count` symbols.
fn left_chain(count: u32) -> Vec<Pair> {
    std::iter::once((0, 0))
        .chain((1..count - 1).map(|id| (id, 0)))
        .collect()
}

#[test]
fn what_almost_matches_is_not_read_again() {
    // Every position starts like the longest token. Read again from each, this would take minutes.
    let count = 3000;
    let bpe = Bpe::new(right_chain(count), 2).unwrap();
    let mut symbols = vec![0; 400_000];
    assert_eq!(bpe.encode_greedy(&symbols).unwrap(), vec![0; 400_000]);
    symbols.push(1);
    let mut expected = vec![0; 400_000 - count as usize];
    expected.push(count + 1);
    assert_eq!(bpe.encode_greedy(&symbols).unwrap(), expected);
    assert_eq!(bpe.encode_bpe(&symbols).unwrap(), expected);
}

#[test]
fn tokens_longer_than_a_segment() {
    let bpe = Bpe::new(left_chain(5000), 1).unwrap();
    for length in [0, 1, 4999, 5000, 5001, 9999, 10_000, 23_456] {
        let mut expected = vec![4999; length / 5000];
        expected.extend((length % 5000).checked_sub(1).map(|id| id as u32));
        assert_eq!(bpe.encode_greedy(&vec![0; length]).unwrap(), expected);
    }
}

#[test]
fn segments_that_never_agree() {
    // With odd segments every second one starts in the middle of a token, for ever.
    let bpe = Bpe::new(vec![(0, 0)], 2).unwrap();
    for length in 1500..1600 {
        let mut expected = vec![2; length / 2];
        expected.extend(vec![0; length % 2]);
        assert_eq!(bpe.encode_greedy(&vec![0; length]).unwrap(), expected);
    }
}

#[test]
fn runs_periods_and_fibonacci_words() {
    let learn = [
        vec![0; 700],
        [0, 1].repeat(300),
        [1, 1, 0, 1].repeat(100),
        corpora::fibonacci_word(900),
    ];
    let merges = learnt(&learn, 60, 2);
    let bpe = Bpe::new(merges.clone(), 2).unwrap();
    for length in [1535, 1536, 1537, 1542, 3071, 4096] {
        for symbols in [
            vec![0; length],
            vec![1; length],
            [0, 1].repeat(length / 2),
            [1, 1, 0].repeat(length / 3),
            corpora::fibonacci_word(length),
        ] {
            assert_eq!(
                bpe.encode_greedy(&symbols).unwrap(),
                twin::encode_greedy(&merges, 2, &symbols)
            );
            assert_eq!(
                bpe.encode_bpe(&symbols).unwrap(),
                twin::encode_bpe(&merges, 2, &symbols)
            );
        }
    }
}

/// An alphabet and merges of any ids defined so far, without repeated symbols: few ids, so that tokens
/// grow long, or any.
fn vocabularies() -> impl Strategy<Value = (usize, Vec<Pair>)> {
    let ids = prop_oneof![any::<u32>(), 0_u32..4];
    let choices = prop::collection::vec((ids.clone(), ids, any::<bool>()), 0..40);
    let num_symbols = prop_oneof![Just(1_usize), Just(2), Just(3), Just(26), Just(256)];
    (num_symbols, choices).prop_map(|(num_symbols, choices)| {
        let mut merges: Vec<Pair> = Vec::new();
        let mut tokens = twin::tokens(&[], num_symbols);
        for (left, right, from_last) in choices {
            let defined = tokens.len() as u32;
            let id = |choice: u32| match from_last {
                true => defined - 1 - choice % defined,
                false => choice % defined,
            };
            let pair = (id(left), id(right));
            let token = [&tokens[pair.0 as usize][..], &tokens[pair.1 as usize]].concat();
            if token.len() <= 1000 && !tokens.contains(&token) {
                tokens.push(token);
                merges.push(pair);
            }
        }
        (num_symbols, merges)
    })
}

proptest! {
    #[test]
    fn equals_the_twins_and_decodes_back(
        (num_symbols, learn, encode) in (1_u8..5)
            .prop_flat_map(|n| (Just(n), corpora::records(n), corpora::records(n))),
        num_merges in 0_usize..60,
    ) {
        let num_symbols = usize::from(num_symbols);
        let merges = learnt(&learn, num_merges, num_symbols);
        let bpe = Bpe::new(merges.clone(), num_symbols).unwrap();
        for algorithm in [Algorithm::Greedy, Algorithm::Bpe] {
            let batch = bpe.encode_batch(&encode, algorithm, Some(2)).unwrap();
            for (symbols, ids) in encode.iter().zip(batch) {
                let expected = match algorithm {
                    Algorithm::Greedy => twin::encode_greedy(&merges, num_symbols, symbols),
                    Algorithm::Bpe => twin::encode_bpe(&merges, num_symbols, symbols),
                };
                prop_assert_eq!(&ids, &expected);
                prop_assert_eq!(&bpe.decode(&ids).unwrap(), symbols);
            }
        }
    }

    #[test]
    fn every_learnt_token_encodes_to_itself(records in corpora::records(3)) {
        let bpe = Bpe::new(learnt(&records, 1 << 20, 3), 3).unwrap();
        for id in 0..bpe.vocab_size() as u32 {
            let symbols = bpe.token(id).unwrap();
            prop_assert_eq!(bpe.encode_greedy(symbols).unwrap(), [id]);
            prop_assert_eq!(bpe.encode_bpe(symbols).unwrap(), [id]);
        }
    }

    /// Merges that no training gave, and sequences long enough to be cut.
    #[test]
    fn arbitrary_merges_encode_like_the_twins(
        (num_symbols, merges, symbols) in vocabularies().prop_flat_map(|(num_symbols, merges)| {
            let tokens = twin::tokens(&merges, num_symbols);
            (Just(num_symbols), Just(merges), corpora::long_sequence(num_symbols, tokens))
        }),
    ) {
        let bpe = Bpe::new(merges.clone(), num_symbols).unwrap();
        prop_assert_eq!(
            bpe.encode_greedy(&symbols).unwrap(),
            twin::encode_greedy(&merges, num_symbols, &symbols)
        );
        prop_assert_eq!(
            bpe.encode_bpe(&symbols).unwrap(),
            twin::encode_bpe(&merges, num_symbols, &symbols)
        );
    }

    #[test]
    fn split_leads_are_encoded_each_by_itself(
        (num_symbols, merges, symbols) in vocabularies().prop_flat_map(|(num_symbols, merges)| {
            let tokens = twin::tokens(&merges, num_symbols);
            (Just(num_symbols), Just(merges), corpora::long_sequence(num_symbols, tokens))
        }),
        leads in 1_usize..15,
    ) {
        let bpe = Bpe::new(merges, num_symbols).unwrap();
        let samples = symbols.len() / leads;
        let symbols = &symbols[..leads * samples];
        let signal: Vec<f32> = symbols.iter().map(|&symbol| f32::from(symbol) + 0.5).collect();
        for algorithm in [Algorithm::Greedy, Algorithm::Bpe] {
            let encode = |lead_boundary| {
                let encoding = SignalEncoding { algorithm, lead_boundary };
                bpe.encode_signal(&signal, samples, (0.0, num_symbols as f64), encoding).unwrap()
            };
            prop_assert_eq!(encode(LeadBoundary::Cross), bpe.encode(symbols, algorithm).unwrap());
            let leads = symbols.chunks(samples.max(1));
            let each: Vec<Vec<u32>> =
                leads.map(|lead| bpe.encode(lead, algorithm).unwrap()).collect();
            prop_assert_eq!(encode(LeadBoundary::Split), each.concat());
        }
    }
}
