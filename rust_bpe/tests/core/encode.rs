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

    /// Merges that no training gave: any ids defined so far, without repeated symbols.
    #[test]
    fn arbitrary_merges_encode_like_the_twins(
        choices in prop::collection::vec((any::<u32>(), any::<u32>()), 0..12),
        symbols in prop::collection::vec(0_u8..2, 0..80),
    ) {
        let mut merges: Vec<Pair> = Vec::new();
        for (left, right) in choices {
            let defined = 2 + merges.len() as u32;
            merges.push((left % defined, right % defined));
            if twin::tokens(&merges, 2).iter().any(|token| token.len() > 64)
                || Bpe::new(merges.clone(), 2).is_err()
            {
                merges.pop();
            }
        }
        let bpe = Bpe::new(merges.clone(), 2).unwrap();
        prop_assert_eq!(bpe.encode_greedy(&symbols).unwrap(), twin::encode_greedy(&merges, 2, &symbols));
        prop_assert_eq!(bpe.encode_bpe(&symbols).unwrap(), twin::encode_bpe(&merges, 2, &symbols));
    }
}
