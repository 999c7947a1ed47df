//! The first merges: while they are frequent and ids fit a byte, each is one pass over the corpus.
//!
//! Most of the shrinking happens here (to a quarter in the first hundred merges of an ECG corpus), and
//! a pass over bytes costs a fraction of a nanosecond per token, whereas following a list of positions
//! costs tens. So the lists start on a small corpus.

use super::corpus::{BOUNDARY, Chunk, Corpus};
use super::{Learnt, Tuning};
use crate::Pair;
use crate::threads::Workers;

use super::replace::{Neighbours, Replacement};

const NUM_IDS: usize = BOUNDARY as usize + 1;

/// Chunks that a thread looks at between two calls of the progress callback: tens of milliseconds.
const GROUP_CHUNKS: usize = 256;

/// Learns merges until they are too rare for scans, or bytes run out.
pub(super) fn learn<E>(
    corpus: &mut Corpus,
    learnt: &mut Learnt,
    tuning: &Tuning,
    workers: &Workers,
    progress: &mut impl FnMut(usize) -> Result<(), E>,
) -> Result<(), E> {
    if corpus.num_symbols > usize::from(BOUNDARY) {
        return Ok(());
    }
    let chunks = &mut corpus.chunks[..];
    let mut counts = Counts::new();
    for group in chunks.chunks_mut(GROUP_CHUNKS * workers.num_threads()) {
        let count = |tables: &mut Tables, chunk: &mut Chunk| tables.count(chunk);
        counts.add(&workers.fold_mut(group, Tables::new, count, Tables::add));
        progress(learnt.merges.len())?;
    }

    loop {
        let tokens: usize = chunks.iter().map(|chunk| chunk.len).sum();
        let first = learnt.num_ids();
        let limit = usize::from(BOUNDARY)
            .min(tuning.max_scan_ids)
            .min(learnt.vocab_size());
        let next = counts.next_merges(learnt, limit.saturating_sub(first), tokens / tuning.sparse);
        if next.is_empty() {
            return Ok(());
        }
        let replacements: Vec<Replacement> = next
            .iter()
            .zip(first..)
            .map(|(pair, id)| Replacement {
                left: pair.0 as u8,
                right: pair.1 as u8,
                id: id as u8,
            })
            .collect();
        let none = || vec![Neighbours::new(); replacements.len()];
        let add = |sums: &mut Vec<Neighbours>, others: &Vec<Neighbours>| {
            sums.iter_mut()
                .zip(others)
                .for_each(|(sum, other)| sum.add(other));
        };
        let mut neighbours = none();
        for group in chunks.chunks_mut(GROUP_CHUNKS * workers.num_threads()) {
            let replace = |neighbours: &mut Vec<Neighbours>, chunk: &mut Chunk| {
                chunk.replace(&replacements, neighbours);
            };
            add(
                &mut neighbours,
                &workers.fold_mut(group, none, replace, add),
            );
            progress(learnt.merges.len())?;
        }
        for (&pair, neighbours) in next.iter().zip(&neighbours) {
            counts.update(pair, learnt.num_ids(), neighbours);
            learnt.push(pair);
            progress(learnt.merges.len())?;
        }
    }
}

/// How often each pair of bytes stands side by side; exact for pairs of tokens.
struct Counts(Vec<i64>);

impl Counts {
    fn new() -> Self {
        Self(vec![0; NUM_IDS * NUM_IDS])
    }

    fn add(&mut self, tables: &Tables) {
        for table in tables.0.chunks(NUM_IDS * NUM_IDS) {
            for (count, own) in self.0.iter_mut().zip(table) {
                *count += own;
            }
        }
    }

    fn of_pair(&mut self, left: usize, right: usize) -> &mut i64 {
        &mut self.0[left * NUM_IDS + right]
    }

    /// The next merges, at most `limit`, as far as they are certain before the first of them is made.
    /// None of them is counted any more.
    ///
    /// A merge of (a, b) takes from the counts of pairs (t, a) and (b, t) only, and the pairs it makes
    /// are at most as frequent as those were. So whatever is more frequent than all of them stays as
    /// frequent, and stays ahead.
    fn next_merges(&mut self, learnt: &Learnt, limit: usize, sparse: usize) -> Vec<Pair> {
        let mut merges = Vec::new();
        let mut bound = sparse as i64;
        while merges.len() < limit {
            let Some((pair, count)) = self.more_frequent_than(bound, learnt) else {
                break;
            };
            let (a, b) = (pair.0 as usize, pair.1 as usize);
            *self.of_pair(a, b) = 0;
            if a == b {
                // A run of n holds n - 1 pairs, and at most half as many of the pairs made from it.
                bound = bound.max(count / 2);
            }
            for token in 0..learnt.num_ids() {
                bound = bound
                    .max(*self.of_pair(token, a))
                    .max(*self.of_pair(b, token));
            }
            merges.push(pair);
        }
        merges
    }

    fn more_frequent_than(&self, bound: i64, learnt: &Learnt) -> Option<(Pair, i64)> {
        let num_ids = learnt.num_ids();
        let mut best = None;
        let mut most = bound;
        for (left, row) in self.0.chunks(NUM_IDS).take(num_ids).enumerate() {
            for (right, &count) in row[..num_ids].iter().enumerate() {
                if count > most {
                    let pair = (left as u32, right as u32);
                    if learnt.is_mergeable(pair) {
                        best = Some(pair);
                        most = count;
                    }
                }
            }
        }
        Some((best?, most))
    }

    /// A pair that a later replacement of the same pass takes away again is counted with both signs: in
    /// `abab` the second `ab` turns (new, a) into (new, new).
    fn update(&mut self, (a, b): Pair, id: usize, neighbours: &Neighbours) {
        let (a, b) = (a as usize, b as usize);
        for token in 0..=id {
            let left = neighbours.left[token] as i64;
            *self.of_pair(token, a) -= left;
            *self.of_pair(token, id) += left;
            let right = neighbours.right[token] as i64;
            *self.of_pair(b, token) -= right;
            *self.of_pair(id, token) += right;
        }
        *self.of_pair(a, b) = 0;
    }
}

/// Counts in several tables, one behind the other, because a flat line would wait for its own last
/// increment in a single one.
struct Tables(Vec<i64>);

impl Tables {
    const NUM: usize = 4;

    fn new() -> Self {
        Self(vec![0; Self::NUM * NUM_IDS * NUM_IDS])
    }

    fn count(&mut self, chunk: &Chunk) {
        let (tables, _) = self.0.as_chunks_mut::<{ NUM_IDS * NUM_IDS }>();
        let bytes = &chunk.bytes[..chunk.len + Self::NUM];
        for window in bytes.windows(Self::NUM + 1).step_by(Self::NUM) {
            for (table, pair) in tables.iter_mut().zip(window.windows(2)) {
                table[usize::from(pair[0]) * NUM_IDS + usize::from(pair[1])] += 1;
            }
        }
    }

    fn add(&mut self, other: &Self) {
        for (count, own) in self.0.iter_mut().zip(&other.0) {
            *count += own;
        }
    }
}
