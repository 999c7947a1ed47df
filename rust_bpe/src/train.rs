//! Learning the merges.
//!
//! Each merge is the most frequent adjacent pair of the whole corpus, counted in overlapping windows
//! (`aaa` holds the pair `(a, a)` twice) and replaced from left to right; ties go to the smallest left
//! id, then the smallest right id. Records are boundaries.
//!
//! The first merges are passes over the corpus as bytes ([`scan`]); the many rare ones that follow are
//! found by lists of positions ([`lists`]). Counts are exact at every step in both, and sums do not
//! depend on how the corpus is divided, so the merges are the same on any number of threads.

mod corpus;
mod lists;
mod replace;
mod scan;
mod slots;

pub use corpus::Corpus;

use slots::MAX_IDS;

use crate::threads::Workers;
use crate::{Error, Pair, Result};

/// What to learn, and on how many threads (the result does not depend on them).
#[derive(Clone, Copy, Debug)]
pub struct TrainOptions {
    pub num_merges: usize,
    /// Pairs that would make a longer token are never merged.
    pub max_token_length: Option<usize>,
    /// `None`: `RAYON_NUM_THREADS`, or all cores.
    pub num_threads: Option<usize>,
}

impl TrainOptions {
    #[must_use]
    pub fn new(num_merges: usize) -> Self {
        Self {
            num_merges,
            max_token_length: None,
            num_threads: None,
        }
    }

    fn check(&self, num_symbols: usize) -> Result<()> {
        let limit = MAX_IDS - num_symbols;
        if self.num_merges > limit {
            return Err(Error::NumMerges {
                num_merges: self.num_merges,
                limit,
            });
        }
        match self.max_token_length {
            Some(max_token_length) if max_token_length < 2 => {
                Err(Error::MaxTokenLength { max_token_length })
            }
            _ => Ok(()),
        }
    }
}

/// The merges in the order in which they were learnt; fewer than asked for only when no pair is left.
///
/// `progress` gets the number of merges done, always on the calling thread: before the first merge,
/// after each one, and now and then during long passes over the corpus, with the same number. An error
/// from it ends the training.
///
/// # Errors
/// [`Error`] for options out of range, or whatever `progress` returns.
pub fn train<E: From<Error>>(
    corpus: Corpus,
    options: &TrainOptions,
    progress: impl FnMut(usize) -> std::result::Result<(), E>,
) -> std::result::Result<Vec<Pair>, E> {
    let tuning = Tuning::of(&corpus);
    train_tuned(corpus, options, &tuning, progress)
}

fn train_tuned<E: From<Error>>(
    mut corpus: Corpus,
    options: &TrainOptions,
    tuning: &Tuning,
    mut progress: impl FnMut(usize) -> std::result::Result<(), E>,
) -> std::result::Result<Vec<Pair>, E> {
    options.check(corpus.num_symbols)?;
    let workers = Workers::new(options.num_threads)?;
    progress(0)?;
    let mut learnt = Learnt::new(corpus.num_symbols, options);
    scan::learn(&mut corpus, &mut learnt, tuning, &workers, &mut progress)?;
    lists::learn(corpus, &mut learnt, tuning, &workers, &mut progress)?;
    Ok(learnt.merges)
}

/// Symbols of a corpus for which memory is worth more than a few percent of time.
const LARGE_CORPUS: usize = 1 << 28;

/// Where one way of working gives over to another. None of it changes a result.
#[derive(Clone, Copy, Debug)]
struct Tuning {
    /// Scans end at this many ids, if bytes have not run out before.
    max_scan_ids: usize,
    /// Scans end when the best pair stands at fewer than one in so many tokens.
    sparse: usize,
    /// Lists are made for pairs down to this part of the best pair's count.
    depth: u32,
    /// Cells of a shard, unless a chunk has more.
    shard_cells: usize,
    /// Merges with fewer positions run on the calling thread.
    min_parallel: usize,
}

impl Tuning {
    /// Measured on 16 and 600 million symbols of ECGs. The small corpus: half or twice of either value
    /// costs up to 10 % more time. The large one takes as long with the second values as with the
    /// first, and a quarter less memory.
    fn of(corpus: &Corpus) -> Self {
        let is_large = corpus.len() > LARGE_CORPUS;
        Self {
            max_scan_ids: usize::MAX,
            sparse: if is_large { 1000 } else { 600 },
            depth: if is_large { 16 } else { 128 },
            shard_cells: 1 << 26,
            min_parallel: 1 << 14,
        }
    }
}

/// The merges so far, and which pairs may follow.
struct Learnt {
    merges: Vec<Pair>,
    num_merges: usize,
    /// Symbols in each token.
    lengths: Vec<u32>,
    max_token_length: usize,
}

impl Learnt {
    fn new(num_symbols: usize, options: &TrainOptions) -> Self {
        Self {
            merges: Vec::new(),
            num_merges: options.num_merges,
            lengths: vec![1; num_symbols],
            max_token_length: options.max_token_length.unwrap_or(usize::MAX),
        }
    }

    fn is_complete(&self) -> bool {
        self.merges.len() == self.num_merges
    }

    /// Symbols and merges: the next merge's id.
    fn num_ids(&self) -> usize {
        self.lengths.len()
    }

    /// Ids when all merges are learnt.
    fn vocab_size(&self) -> usize {
        self.num_ids() - self.merges.len() + self.num_merges
    }

    fn length(&self, pair: Pair) -> usize {
        self.lengths[pair.0 as usize] as usize + self.lengths[pair.1 as usize] as usize
    }

    fn is_mergeable(&self, pair: Pair) -> bool {
        self.length(pair) <= self.max_token_length
    }

    fn all_mergeable(&self) -> bool {
        let longest = self.lengths.iter().copied().max().unwrap_or(0) as usize;
        2 * longest <= self.max_token_length
    }

    fn push(&mut self, pair: Pair) {
        self.lengths.push(self.length(pair) as u32);
        self.merges.push(pair);
    }
}

#[cfg(test)]
mod tests {
    //! Every way of working gives the same merges; `tests/core/train.rs` compares the default one with
    //! the plain definition.
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// Scans to the end where bytes suffice, with one chunk and no second thread.
    const SCANS_ONLY: Tuning = Tuning {
        max_scan_ids: usize::MAX,
        sparse: usize::MAX,
        depth: 16,
        shard_cells: 1 << 26,
        min_parallel: usize::MAX,
    };

    fn learn(
        records: &[Vec<u8>],
        num_symbols: usize,
        chunk_symbols: usize,
        options: TrainOptions,
        tuning: Tuning,
    ) -> Vec<Pair> {
        let mut corpus = Corpus::with_chunks_of(chunk_symbols, num_symbols).unwrap();
        for record in records {
            corpus.push_record(record).unwrap();
        }
        train_tuned(corpus, &options, &tuning, |_| Ok::<(), Error>(())).unwrap()
    }

    /// Noise, runs and periods, of several blocks' length.
    fn records(num_symbols: u8) -> impl Strategy<Value = Vec<Vec<u8>>> {
        let noise = prop::collection::vec(0..num_symbols, 0..300);
        let runs = prop::collection::vec((0..num_symbols, 1_usize..150), 0..8).prop_map(|runs| {
            let run = |(symbol, length)| std::iter::repeat_n(symbol, length);
            runs.into_iter().flat_map(run).collect()
        });
        let periodic = (prop::collection::vec(0..num_symbols, 1..5), 0_usize..300)
            .prop_map(|(period, length)| period.into_iter().cycle().take(length).collect());
        prop::collection::vec(prop_oneof![noise, runs, periodic], 0..6)
    }

    proptest! {
        #[test]
        fn every_tuning_learns_the_same(
            (num_symbols, records) in prop_oneof![1_u8..5, Just(26), Just(255)]
                .prop_flat_map(|n| (Just(n), records(n))),
            max_scan_ids in 0_usize..60,
            sparse in prop_oneof![1_usize..60, Just(usize::MAX)],
            depth in 1_u32..20,
            chunk_symbols in 1_usize..900,
            shard_cells in 1_usize..900,
            num_threads in 1_usize..4,
            max_token_length in prop_oneof![Just(None), (2_usize..40).prop_map(Some)],
        ) {
            let num_symbols = usize::from(num_symbols);
            let options = TrainOptions { num_merges: 300, max_token_length, num_threads: Some(1) };
            let expected = learn(&records, num_symbols, 1 << 20, options, SCANS_ONLY);
            let tuning = Tuning { max_scan_ids, sparse, depth, shard_cells, min_parallel: 20 };
            let options = TrainOptions { num_threads: Some(num_threads), ..options };
            prop_assert_eq!(
                &learn(&records, num_symbols, chunk_symbols, options, tuning),
                &expected
            );
            // Ids that do not fit 16 bits.
            let options = TrainOptions { num_merges: 1 << 20, ..options };
            let merges = learn(&records, num_symbols, chunk_symbols, options, tuning);
            prop_assert!(merges.starts_with(&expected));
        }
    }

    /// A vocabulary whose pairs do not fit the sketch, so that its cells are shared.
    #[test]
    fn shared_cells_of_the_sketch() {
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let records: Vec<Vec<u8>> = (0..9)
            .map(|_| (0..700).map(|_| noise() % 200).collect())
            .collect();
        let options = TrainOptions {
            num_threads: Some(2),
            ..TrainOptions::new(3000)
        };
        let deep = Tuning {
            max_scan_ids: 0,
            depth: u32::MAX,
            ..SCANS_ONLY
        };
        let flat = Tuning {
            depth: 1,
            shard_cells: 1000,
            ..deep
        };
        let expected = learn(&records, 200, 1 << 20, options, deep);
        assert!(expected.len() > 2000);
        assert_eq!(learn(&records, 200, 900, options, flat), expected);
    }
}
