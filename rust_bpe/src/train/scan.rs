//! The first merges: while they are frequent and ids fit a byte, each is one pass over the corpus.
//!
//! Most of the shrinking happens here (to a quarter in the first hundred merges of an ECG corpus), and
//! a pass over bytes costs a fraction of a nanosecond per token, whereas following a list of positions
//! costs tens. So the lists start on a small corpus.

use super::corpus::{BOUNDARY, Chunk, Corpus};
use super::{Learnt, Tuning};
use crate::Pair;
use crate::threads::Workers;

use super::replace::{Neighbours, Replacement, replace};

const NUM_IDS: usize = BOUNDARY as usize + 1;

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
    for group in chunks.chunks(tuning.group(workers)) {
        for chunk_counts in workers.map(group, Counts::of) {
            counts.add(&chunk_counts);
        }
        progress(learnt.merges.len())?;
    }

    let mut tokens: usize = chunks.iter().map(|chunk| chunk.len).sum();
    while !learnt.is_complete() && learnt.num_ids() < usize::from(BOUNDARY).min(tuning.max_scan_ids)
    {
        let Some((pair, count)) = counts.most_frequent(learnt) else {
            break;
        };
        if (count as usize).saturating_mul(tuning.sparse) < tokens {
            break;
        }
        let replacement = Replacement {
            left: pair.0 as u8,
            right: pair.1 as u8,
            id: learnt.num_ids() as u8,
        };
        let mut neighbours = Neighbours::new();
        for of_chunk in workers.map_mut(chunks, |chunk| replace_in(chunk, replacement)) {
            neighbours.add(&of_chunk);
        }
        counts.update(pair, learnt.num_ids(), &neighbours);
        learnt.push(pair);
        tokens = chunks.iter().map(|chunk| chunk.len).sum();
        progress(learnt.merges.len())?;
    }
    Ok(())
}

fn replace_in(chunk: &mut Chunk, replacement: Replacement) -> Neighbours {
    let mut neighbours = Neighbours::new();
    chunk.len = replace(&mut chunk.bytes, chunk.len, replacement, &mut neighbours);
    // Gives memory back from time to time: the lists to come need some.
    if chunk.bytes.len() < chunk.bytes.capacity() / 2 {
        chunk.bytes.shrink_to_fit();
    }
    neighbours
}

/// How often each pair of bytes stands side by side; exact for pairs of tokens.
struct Counts(Vec<i64>);

impl Counts {
    fn new() -> Self {
        Self(vec![0; NUM_IDS * NUM_IDS])
    }

    fn of(chunk: &Chunk) -> Self {
        // Four tables, because a flat line would wait for its own last increment each time.
        let mut tables = vec![[0_u32; NUM_IDS * NUM_IDS]; 4];
        for window in chunk.bytes[..chunk.len + 4].windows(5).step_by(4) {
            for (table, pair) in tables.iter_mut().zip(window.windows(2)) {
                table[usize::from(pair[0]) * NUM_IDS + usize::from(pair[1])] += 1;
            }
        }
        let mut counts = Self::new();
        for table in tables {
            for (count, own) in counts.0.iter_mut().zip(table) {
                *count += i64::from(own);
            }
        }
        counts
    }

    fn add(&mut self, other: &Self) {
        for (count, own) in self.0.iter_mut().zip(&other.0) {
            *count += own;
        }
    }

    fn of_pair(&mut self, left: usize, right: usize) -> &mut i64 {
        &mut self.0[left * NUM_IDS + right]
    }

    fn most_frequent(&self, learnt: &Learnt) -> Option<(Pair, i64)> {
        let num_ids = learnt.num_ids();
        let mut best = None;
        let mut most = 0;
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
