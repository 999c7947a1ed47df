//! Learning the merges.
//!
//! Each merge is the most frequent adjacent pair of the whole corpus, counted in overlapping windows
//! (`aaa` holds the pair `(a, a)` twice) and replaced from left to right; ties go to the smallest left
//! id, then the smallest right id. Records are boundaries.
//!
//! A pair can only gain positions in the step that creates the younger of its two tokens, because
//! every new adjacency contains the new token. So counts only fall afterwards, which makes a lazily
//! corrected heap exact, and each pair's list of positions is written once and may go stale.
//!
//! For several threads the corpus is divided between records into shards, each with its own cells and
//! lists; a step adds up their changes of counts. Sums do not depend on the division.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::hash_map::Entry;

use rayon::ThreadPool;
use rayon::iter::{IntoParallelIterator, IntoParallelRefMutIterator, ParallelIterator};
use rustc_hash::FxHashMap;

use crate::slots::{MAX_CELLS, MAX_IDS, Slots};
use crate::{Error, Pair, Result, check_num_symbols, check_symbols, threads};

/// Steps with fewer occurrences run on the calling thread: they take tens of microseconds, of the order
/// of waking the pool. Not tuned.
const MIN_PARALLEL_OCCURRENCES: i64 = 4096;

/// Records to learn from, one after the other in memory.
#[derive(Clone, Debug)]
pub struct Corpus {
    num_symbols: usize,
    symbols: Vec<u8>,
    ends: Vec<usize>,
}

impl Corpus {
    /// # Errors
    /// [`Error::NumSymbols`] unless there are 1 to 256 symbols.
    pub fn new(num_symbols: usize) -> Result<Self> {
        check_num_symbols(num_symbols)?;
        Ok(Self {
            num_symbols,
            symbols: Vec::new(),
            ends: Vec::new(),
        })
    }

    /// # Errors
    /// [`Error::Item`] with the record's index if a symbol is outside the alphabet or the record has
    /// more than 2^32 - 3 symbols. The corpus is then unchanged.
    pub fn push_record(&mut self, symbols: &[u8]) -> Result<()> {
        let limit = MAX_CELLS - Slots::cells_for(1, 0);
        let checked = if symbols.len() > limit {
            Err(Error::RecordTooLong {
                length: symbols.len(),
                limit,
            })
        } else {
            check_symbols(symbols, self.num_symbols)
        };
        checked.map_err(|error| error.in_item("record", self.ends.len()))?;
        self.symbols.extend_from_slice(symbols);
        self.ends.push(self.symbols.len());
        Ok(())
    }

    #[must_use]
    pub fn num_records(&self) -> usize {
        self.ends.len()
    }

    /// Symbols of all records together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    fn record(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.symbols[start..self.ends[index]]
    }

    /// Ranges of records of about equal numbers of symbols, at least one range if there is a record.
    fn divide(&self, num_shards: usize) -> Vec<std::ops::Range<usize>> {
        let share = self.len().div_ceil(num_shards.max(1)).max(1);
        let mut ranges = Vec::new();
        let mut range = 0..0;
        let mut cells = Slots::cells_for(0, 0);
        let mut symbols = 0;
        for index in 0..self.num_records() {
            let length = self.record(index).len();
            if symbols >= share || cells + length + 1 > MAX_CELLS {
                ranges.push(range);
                range = index..index;
                cells = Slots::cells_for(0, 0);
                symbols = 0;
            }
            range.end = index + 1;
            cells += length + 1;
            symbols += length;
        }
        ranges.push(range);
        ranges
    }
}

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
/// `progress` gets the number of merges done, before the first merge and after each one, always on the
/// calling thread. An error from it ends the training.
///
/// # Errors
/// [`Error`] for options out of range, or whatever `progress` returns.
pub fn train<E: From<Error>>(
    corpus: Corpus,
    options: &TrainOptions,
    mut progress: impl FnMut(usize) -> std::result::Result<(), E>,
) -> std::result::Result<Vec<Pair>, E> {
    options.check(corpus.num_symbols)?;
    let pool = threads::pool(options.num_threads)?;
    progress(0)?;

    let mut trainer = Trainer::new(corpus, pool, options.max_token_length);
    let mut merges = Vec::new();
    while merges.len() < options.num_merges {
        let Some(pair) = trainer.most_frequent() else {
            break;
        };
        trainer.merge(pair);
        merges.push(pair);
        progress(merges.len())?;
    }
    Ok(merges)
}

/// Greatest first: the highest count, then the smallest left id, then the smallest right id.
type Candidate = (i64, Reverse<u32>, Reverse<u32>);

fn candidate(pair: Pair, count: i64) -> Candidate {
    (count, Reverse(pair.0), Reverse(pair.1))
}

struct Trainer {
    pool: Option<ThreadPool>,
    shards: Vec<Shard>,
    /// Symbols in each token.
    lengths: Vec<u32>,
    max_token_length: usize,
    /// Adjacent positions of each mergeable pair, exact.
    counts: FxHashMap<Pair, i64>,
    /// At least one entry for each pair in `counts`, with its count or an older, higher one.
    heap: BinaryHeap<Candidate>,
}

impl Trainer {
    fn new(corpus: Corpus, pool: Option<ThreadPool>, max_token_length: Option<usize>) -> Self {
        let num_threads = pool.as_ref().map_or(1, ThreadPool::current_num_threads);
        let ranges = corpus.divide(num_threads);
        let build = |range| Shard::new(&corpus, range);
        let mut shards: Vec<Shard> = match &pool {
            Some(pool) => pool.install(|| ranges.into_par_iter().map(build).collect()),
            None => ranges.into_iter().map(build).collect(),
        };

        let mut counts = FxHashMap::default();
        for shard in &mut shards {
            for (&pair, positions) in &shard.positions {
                *counts.entry(pair).or_insert(0) += positions.len() as i64;
            }
        }
        Self {
            lengths: vec![1; corpus.num_symbols],
            max_token_length: max_token_length.unwrap_or(usize::MAX),
            heap: counts
                .iter()
                .map(|(&pair, &count)| candidate(pair, count))
                .collect(),
            counts,
            shards,
            pool,
        }
    }

    fn most_frequent(&mut self) -> Option<Pair> {
        while let Some((count, Reverse(left), Reverse(right))) = self.heap.pop() {
            let pair = (left, right);
            match self.counts.get(&pair) {
                Some(&current) if current == count => return Some(pair),
                Some(&current) => self.heap.push(candidate(pair, current)),
                None => {}
            }
        }
        None
    }

    fn merge(&mut self, pair: Pair) {
        let id = self.lengths.len() as u32;
        let length = self.lengths[pair.0 as usize] + self.lengths[pair.1 as usize];
        self.lengths.push(length);
        let count = self.counts.remove(&pair).unwrap_or(0);

        let step = Step {
            pair,
            id,
            lengths: &self.lengths,
            max_token_length: self.max_token_length,
        };
        match &self.pool {
            Some(pool) if count >= MIN_PARALLEL_OCCURRENCES => {
                pool.install(|| {
                    self.shards
                        .par_iter_mut()
                        .for_each(|shard| shard.merge(&step))
                });
            }
            _ => self.shards.iter_mut().for_each(|shard| shard.merge(&step)),
        }
        self.add_up_changes(id);
    }

    fn add_up_changes(&mut self, id: u32) {
        let changes: Vec<(Pair, i64)> = self
            .shards
            .iter_mut()
            .flat_map(|shard| shard.changes.drain(..))
            .collect();

        let mut created = Vec::new();
        for &(pair, change) in &changes {
            match self.counts.entry(pair) {
                Entry::Occupied(mut entry) => *entry.get_mut() += change,
                Entry::Vacant(entry) if pair.0 == id || pair.1 == id => {
                    entry.insert(change);
                    created.push(pair);
                }
                // The pair that was just merged: in a run `aaa` it loses its own neighbour.
                Entry::Vacant(_) => {}
            }
        }
        for (pair, _) in changes {
            if self.counts.get(&pair) == Some(&0) {
                self.counts.remove(&pair);
                for shard in &mut self.shards {
                    shard.positions.remove(&pair);
                }
            }
        }
        for pair in created {
            if let Some(&count) = self.counts.get(&pair) {
                self.heap.push(candidate(pair, count));
            }
        }
    }
}

/// One merge, as every shard needs to know it.
struct Step<'a> {
    pair: Pair,
    id: u32,
    lengths: &'a [u32],
    max_token_length: usize,
}

impl Step<'_> {
    fn is_mergeable(&self, pair: Pair) -> bool {
        let length = |id: u32| self.lengths[id as usize] as usize;
        length(pair.0) + length(pair.1) <= self.max_token_length
    }
}

/// A part of the corpus, made of whole records.
struct Shard {
    slots: Slots,
    /// Where each mergeable pair was when its list was written, in increasing order.
    positions: FxHashMap<Pair, Vec<u32>>,
    /// What the last step did to the counts; a pair may appear more than once.
    changes: Vec<(Pair, i64)>,
    /// Scratch of a step: for each token beside the merged pair, the positions of the new pairs.
    left: Neighbours,
    right: Neighbours,
}

impl Shard {
    fn new(corpus: &Corpus, records: std::ops::Range<usize>) -> Self {
        let num_cells = records
            .clone()
            .map(|index| corpus.record(index).len() + 1)
            .sum();
        let mut slots = Slots::with_capacity(Slots::cells_for(0, num_cells));
        for index in records {
            slots.push_sequence(corpus.record(index));
        }

        // Counted first, so that each list is allocated once, at its size.
        let num_symbols = corpus.num_symbols;
        let index = |pair: Pair| pair.0 as usize * num_symbols + pair.1 as usize;
        let mut counts = vec![0_usize; num_symbols * num_symbols];
        for (pair, _) in slots.symbol_pairs() {
            counts[index(pair)] += 1;
        }
        let mut lists: Vec<Vec<u32>> = counts.into_iter().map(Vec::with_capacity).collect();
        for (pair, position) in slots.symbol_pairs() {
            lists[index(pair)].push(position as u32);
        }
        let positions = lists
            .into_iter()
            .enumerate()
            .filter(|(_, list)| !list.is_empty())
            .map(|(index, list)| {
                let pair = (index / num_symbols, index % num_symbols);
                ((pair.0 as u32, pair.1 as u32), list)
            })
            .collect();
        Self {
            slots,
            positions,
            changes: Vec::new(),
            left: Neighbours::default(),
            right: Neighbours::default(),
        }
    }

    fn merge(&mut self, step: &Step) {
        let Some(positions) = self.positions.remove(&step.pair) else {
            return;
        };
        for position in positions {
            let position = position as usize;
            if !self.slots.pair_at(position, step.pair, step.lengths) {
                continue;
            }
            let merged = self.slots.merge(position, step.pair, step.id, step.lengths);
            if let Some((token, start)) = merged.left {
                self.left.push(token, start);
            }
            if let Some(token) = merged.right {
                self.right.push(token, position);
            }
        }

        let (a, b) = step.pair;
        let Self {
            left,
            right,
            positions,
            changes,
            ..
        } = self;
        // A pair that a later replacement of the same step takes away again appears here with both
        // signs: in `abab` the second `ab` turns (new, a) into (new, new).
        let mut replace = |old: Pair, new: Pair, list: Vec<u32>| {
            let count = list.len() as i64;
            if step.is_mergeable(old) {
                changes.push((old, -count));
            }
            if step.is_mergeable(new) {
                changes.push((new, count));
                positions.insert(new, list);
            }
        };
        left.drain(|token, list| replace((token, a), (token, step.id), list));
        right.drain(|token, list| replace((b, token), (step.id, token), list));
    }
}

/// Lists of positions by token, without hashing.
#[derive(Default)]
struct Neighbours {
    positions: Vec<Vec<u32>>,
    touched: Vec<u32>,
}

impl Neighbours {
    fn push(&mut self, token: u32, position: usize) {
        let index = token as usize;
        if index >= self.positions.len() {
            self.positions.resize_with(index + 1, Vec::new);
        }
        let list = &mut self.positions[index];
        if list.is_empty() {
            self.touched.push(token);
        }
        list.push(position as u32);
    }

    fn drain(&mut self, mut take: impl FnMut(u32, Vec<u32>)) {
        for token in self.touched.drain(..) {
            let mut list = std::mem::take(&mut self.positions[token as usize]);
            list.shrink_to_fit();
            take(token, list);
        }
    }
}
