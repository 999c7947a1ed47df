//! The merges that scans leave: each is found by the list of its positions.
//!
//! A pair can only gain positions in the step that creates the younger of its two tokens, because every
//! new adjacency contains the new token. So its list is written once and may go stale, and counts only
//! fall afterwards: a lazily corrected heap is exact, and a pair that begins below the
//! [floor](Tracked::floor) stays there. Most positions belong to such pairs, which get neither a list
//! nor a count. When no pair above the floor is left, the corpus is closed up, the floor lowered and
//! the lists are written anew.
//!
//! Records are divided into shards, each with its own cells and lists; a step adds up their changes of
//! counts.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use super::corpus::{BOUNDARY, Chunk, Corpus};
use super::slots::{Cell, MAX_CELLS, Slots};
use super::{Learnt, Tuning};
use crate::threads::Workers;
use crate::{MAX_SYMBOLS, Pair};

/// Learns merges until there are enough or no pair is left.
pub(super) fn learn<E>(
    corpus: Corpus,
    learnt: &mut Learnt,
    tuning: &Tuning,
    workers: &Workers,
    progress: &mut impl FnMut(usize) -> Result<(), E>,
) -> Result<(), E> {
    if learnt.is_complete() {
        return Ok(());
    }
    if learnt.vocab_size() <= u16::MAX_IDS {
        Trainer::<u16>::new(corpus, learnt, tuning, workers, progress)?.learn(learnt, progress)
    } else {
        Trainer::<u32>::new(corpus, learnt, tuning, workers, progress)?.learn(learnt, progress)
    }
}

/// Positions looked at together.
const BLOCK: usize = 32;

/// No list: the pair begins below the floor.
const NONE: u32 = u32::MAX;

struct Trainer<'a, C> {
    tuning: &'a Tuning,
    workers: &'a Workers,
    shards: Vec<Shard<C>>,
    /// Cells of each token.
    spans: Vec<u32>,
    tracked: Tracked,
    /// What stood before and after the last step's pair, in all shards.
    left: Neighbours,
    right: Neighbours,
}

impl<'a, C: Cell> Trainer<'a, C> {
    fn new<E>(
        corpus: Corpus,
        learnt: &Learnt,
        tuning: &'a Tuning,
        workers: &'a Workers,
        progress: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Self, E> {
        let any_byte = corpus.num_symbols == MAX_SYMBOLS;
        let mut shards = Vec::new();
        for group in divide(corpus, tuning, workers).chunks_mut(workers.num_threads()) {
            shards.extend(
                workers.map_mut(group, |chunks| Shard::new(std::mem::take(chunks), any_byte)),
            );
            progress(learnt.merges.len())?;
        }
        Ok(Self {
            tuning,
            workers,
            shards,
            spans: vec![1; learnt.num_ids()],
            tracked: Tracked::new(u32::MAX),
            left: Neighbours::default(),
            right: Neighbours::default(),
        })
    }

    fn learn<E>(
        mut self,
        learnt: &mut Learnt,
        progress: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<(), E> {
        while !learnt.is_complete() {
            match self.tracked.most_frequent() {
                Some((pair, list)) => {
                    self.merge(pair, list, learnt);
                    progress(learnt.merges.len())?;
                }
                None if self.tracked.floor > 1 => self.lower_floor(learnt, progress)?,
                None => break,
            }
        }
        Ok(())
    }

    /// Closes up the corpus and writes the lists of all pairs above a lower floor.
    fn lower_floor<E>(
        &mut self,
        learnt: &Learnt,
        progress: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let workers = self.workers;
        let num_cells = self
            .shards
            .iter()
            .map(|shard| shard.slots.num_cells())
            .sum();
        let mut sketch = Sketch::new(learnt.num_ids(), num_cells);
        let any_merged = self.spans.iter().any(|&span| span > 1);
        for group in self.shards.chunks_mut(workers.num_threads()) {
            let sketches = workers.map_mut(group, |shard| {
                if any_merged {
                    shard.slots.close_up(&self.spans);
                }
                sketch.of(&shard.slots, learnt)
            });
            for own in sketches {
                sketch.add(&own);
            }
            progress(learnt.merges.len())?;
        }
        self.spans.fill(1);

        let floor = sketch
            .floor(self.tuning.depth, learnt.num_merges - learnt.merges.len())
            // At least halved, whatever collisions in the sketch pretend.
            .clamp(1, self.tracked.floor / 2);
        let num_shards = self.shards.len();
        let mut found = Vec::with_capacity(num_shards);
        let buckets = sketch.into_buckets(floor);
        for group in self.shards.chunks(workers.num_threads()) {
            found.extend(workers.map(group, |shard| buckets.positions(&shard.slots, num_shards)));
            progress(learnt.merges.len())?;
        }

        let mut counts = FxHashMap::default();
        for (pair, positions) in found.iter().flatten() {
            *counts.entry(*pair).or_insert(0_i64) += positions.len() as i64;
        }
        self.tracked = Tracked::new(floor);
        for (pair, count) in counts {
            self.tracked.insert(pair, count, learnt);
        }
        for (shard, found) in self.shards.iter_mut().zip(found) {
            shard.lists.clear();
            shard.lists.resize_with(self.tracked.num_lists, Vec::new);
            for (pair, positions) in found {
                if let Some(pair) = self.tracked.pairs.get(&pair) {
                    shard.lists[pair.list as usize] = positions;
                }
            }
        }
        Ok(())
    }

    fn merge(&mut self, pair: Pair, list: u32, learnt: &mut Learnt) {
        let id = learnt.num_ids() as u32;
        learnt.push(pair);
        let span = self.spans[pair.0 as usize] + self.spans[pair.1 as usize];
        self.spans.push(span);

        let lists = self
            .shards
            .iter()
            .map(|shard| shard.lists[list as usize].len());
        let in_parallel = lists.sum::<usize>() >= self.tuning.min_parallel;
        let spans = &self.spans[..];
        self.workers
            .for_each_mut(&mut self.shards, in_parallel, |shard| {
                shard.merge(pair, list, id, spans);
            });

        self.left.reset(spans.len());
        self.right.reset(spans.len());
        for shard in &self.shards {
            self.left.add(&shard.left);
            self.right.add(&shard.right);
        }
        self.count_pairs(pair, id, learnt);

        let (left, right) = (&self.left, &self.right);
        let num_lists = self.tracked.num_lists;
        self.workers
            .for_each_mut(&mut self.shards, in_parallel, |shard| {
                shard.write_lists(left, right, num_lists);
            });
    }

    /// What the last step took from the counts of old pairs, and the new pairs it made.
    fn count_pairs(&mut self, (a, b): Pair, id: u32, learnt: &Learnt) {
        let Self {
            tracked,
            left,
            right,
            ..
        } = self;
        for &token in &right.touched {
            let neighbour = &mut right.of[token as usize];
            tracked.take_away((b, token), neighbour.count);
            neighbour.list = tracked.insert((id, token), neighbour.count, learnt);
        }
        // After the pairs on the right: in `abab` the first replacement makes (new, a), which the second
        // turns into (new, new).
        for &token in &left.touched {
            let neighbour = &mut left.of[token as usize];
            tracked.take_away((token, a), neighbour.count);
            neighbour.list = tracked.insert((token, id), neighbour.count, learnt);
        }
    }
}

/// Chunks in groups of about equal size, one for each thread or more.
fn divide(corpus: Corpus, tuning: &Tuning, workers: &Workers) -> Vec<Vec<Chunk>> {
    let cells: usize = corpus.chunks.iter().map(|chunk| chunk.len).sum();
    let share = cells
        .div_ceil(workers.num_threads())
        .min(tuning.shard_cells);
    let mut groups: Vec<Vec<Chunk>> = Vec::new();
    let mut filled = usize::MAX;
    for chunk in corpus.chunks {
        if filled >= share || filled + chunk.len > MAX_CELLS {
            groups.push(Vec::new());
            filled = 0;
        }
        filled += chunk.len;
        if let Some(group) = groups.last_mut() {
            group.push(chunk);
        }
    }
    groups
}

/// The pairs above the floor.
struct Tracked {
    /// Pairs that were ever less frequent, since the lists were written, are not here.
    floor: u32,
    pairs: FxHashMap<Pair, TrackedPair>,
    /// At least one entry for each pair, with its count or an older, higher one.
    heap: BinaryHeap<Candidate>,
    /// Lists in use or free.
    num_lists: usize,
    free_lists: Vec<u32>,
}

struct TrackedPair {
    /// Adjacent positions, exact.
    count: i64,
    list: u32,
}

/// Greatest first: the highest count, then the smallest left id, then the smallest right id.
type Candidate = (i64, Reverse<u32>, Reverse<u32>);

fn candidate(pair: Pair, count: i64) -> Candidate {
    (count, Reverse(pair.0), Reverse(pair.1))
}

impl Tracked {
    fn new(floor: u32) -> Self {
        Self {
            floor,
            pairs: FxHashMap::default(),
            heap: BinaryHeap::new(),
            num_lists: 0,
            free_lists: Vec::new(),
        }
    }

    /// The new pair's list, or [`NONE`].
    fn insert(&mut self, pair: Pair, count: i64, learnt: &Learnt) -> u32 {
        if count < i64::from(self.floor) || !learnt.is_mergeable(pair) {
            return NONE;
        }
        let list = self.free_lists.pop().unwrap_or_else(|| {
            self.num_lists += 1;
            self.num_lists as u32 - 1
        });
        self.pairs.insert(pair, TrackedPair { count, list });
        self.heap.push(candidate(pair, count));
        list
    }

    fn take_away(&mut self, pair: Pair, count: i64) {
        if let Some(pair) = self.pairs.get_mut(&pair) {
            pair.count -= count;
        }
    }

    /// The best pair and its list; neither is here any more.
    fn most_frequent(&mut self) -> Option<(Pair, u32)> {
        while let Some((count, Reverse(left), Reverse(right))) = self.heap.pop() {
            let pair = (left, right);
            let Some(&TrackedPair {
                count: current,
                list,
            }) = self.pairs.get(&pair)
            else {
                continue;
            };
            if current == count {
                self.remove(pair, list);
                return Some((pair, list));
            }
            if current >= i64::from(self.floor) {
                self.heap.push(candidate(pair, current));
            } else {
                self.remove(pair, list);
            }
        }
        None
    }

    fn remove(&mut self, pair: Pair, list: u32) {
        self.pairs.remove(&pair);
        self.free_lists.push(list);
    }
}

/// A part of the corpus, made of whole records.
struct Shard<C> {
    slots: Slots<C>,
    /// Where each tracked pair was when its list was written, in increasing order.
    lists: Vec<Vec<u32>>,
    /// The last step's replacements, and what stood beside them.
    replaced: Vec<Replaced>,
    left: Neighbours,
    right: Neighbours,
}

struct Replaced {
    position: u32,
    /// The token before and where it starts.
    left: Option<(u32, u32)>,
    right: Option<u32>,
}

impl<C: Cell> Shard<C> {
    fn new(chunks: Vec<Chunk>, any_byte: bool) -> Self {
        let num_cells: usize = chunks.iter().map(|chunk| chunk.len).sum();
        let mut slots = Slots::with_capacity(num_cells + 1);
        for chunk in chunks {
            let interior = chunk.interior();
            if any_byte {
                slots.push_sequence(interior);
            } else {
                slots.push_sequences(interior, BOUNDARY);
            }
        }
        Self {
            slots,
            lists: Vec::new(),
            replaced: Vec::new(),
            left: Neighbours::default(),
            right: Neighbours::default(),
        }
    }

    fn merge(&mut self, pair: Pair, list: u32, id: u32, spans: &[u32]) {
        self.replaced.clear();
        self.left.reset(spans.len());
        self.right.reset(spans.len());
        // Looked at a block at a time and without a branch, so that the cells of many positions, which
        // lie far apart, are on their way from memory together.
        let mut standing = [0_u32; BLOCK];
        for block in std::mem::take(&mut self.lists[list as usize]).chunks(BLOCK) {
            let mut num_standing = 0;
            for &position in block {
                standing[num_standing] = position;
                let stands = self.slots.pair_at(position as usize, pair, spans);
                num_standing += usize::from(stands);
            }
            for &position in &standing[..num_standing] {
                // In a run of the same token the last replacement may have taken this one's.
                if pair.0 != pair.1 || self.slots.pair_at(position as usize, pair, spans) {
                    self.merge_at(position, pair, id, spans);
                }
            }
        }
    }

    fn merge_at(&mut self, position: u32, pair: Pair, id: u32, spans: &[u32]) {
        let merged = self.slots.merge(position as usize, pair, id, spans);
        if let Some((token, _)) = merged.left {
            self.left.count(token, 1);
        }
        if let Some(token) = merged.right {
            self.right.count(token, 1);
        }
        self.replaced.push(Replaced {
            position,
            left: merged.left.map(|(token, start)| (token, start as u32)),
            right: merged.right,
        });
    }

    /// Writes the lists of the new pairs that are tracked: those of `left` and `right` that have one.
    fn write_lists(&mut self, left: &Neighbours, right: &Neighbours, num_lists: usize) {
        self.lists.resize_with(num_lists, Vec::new);
        let mut any = false;
        for (all, own) in [(left, &self.left), (right, &self.right)] {
            for &token in &all.touched {
                let token = token as usize;
                if all.of[token].list != NONE {
                    any = true;
                    self.lists[all.of[token].list as usize] =
                        Vec::with_capacity(own.of[token].count as usize);
                }
            }
        }
        if !any {
            return;
        }
        for replaced in &self.replaced {
            if let Some((token, start)) = replaced.left {
                let list = left.of[token as usize].list;
                if list != NONE {
                    self.lists[list as usize].push(start);
                }
            }
            if let Some(token) = replaced.right {
                let list = right.of[token as usize].list;
                if list != NONE {
                    self.lists[list as usize].push(replaced.position);
                }
            }
        }
    }
}

/// The tokens on one side of a step's pair.
#[derive(Default)]
struct Neighbours {
    /// By token.
    of: Vec<Neighbour>,
    /// Tokens with a count.
    touched: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Neighbour {
    count: i64,
    /// Of the new pair with this token.
    list: u32,
}

impl Neighbours {
    const NOTHING: Neighbour = Neighbour {
        count: 0,
        list: NONE,
    };

    fn reset(&mut self, num_ids: usize) {
        for token in self.touched.drain(..) {
            self.of[token as usize] = Self::NOTHING;
        }
        self.of.resize(num_ids, Self::NOTHING);
    }

    fn count(&mut self, token: u32, count: i64) {
        let neighbour = &mut self.of[token as usize];
        if neighbour.count == 0 {
            self.touched.push(token);
        }
        neighbour.count += count;
    }

    fn add(&mut self, other: &Self) {
        for &token in &other.touched {
            self.count(token, other.of[token as usize].count);
        }
    }
}

/// Upper bounds of the pairs' counts in a table of bounded size: the counts themselves while there is a
/// cell for each pair, sums over pairs of equal hash otherwise.
struct Sketch {
    counts: Vec<u32>,
    num_ids: usize,
    is_exact: bool,
}

impl Sketch {
    /// Cells at most: 64 MiB, enough for each pair of 4,096 ids.
    const MAX_CELLS: usize = 1 << 24;

    fn new(num_ids: usize, num_positions: usize) -> Self {
        let num_pairs = num_ids.saturating_mul(num_ids);
        // A table that is much larger than the corpus would take longer to clear than to fill.
        let is_exact = num_pairs <= Self::MAX_CELLS.min(8 * num_positions.max(1 << 12));
        let cells = if is_exact {
            num_pairs
        } else {
            num_positions.next_power_of_two().min(Self::MAX_CELLS)
        };
        Self {
            counts: vec![0; cells],
            num_ids,
            is_exact,
        }
    }

    fn cell(&self, (left, right): Pair) -> usize {
        let index = left as usize * self.num_ids + right as usize;
        if self.is_exact {
            return index;
        }
        // Fibonacci hashing: the upper half of a product with the golden ratio's bits.
        let hash = (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (hash >> 32) as usize & (self.counts.len() - 1)
    }

    /// A sketch of the same shape that counts the pairs of `slots`.
    fn of<C: Cell>(&self, slots: &Slots<C>, learnt: &Learnt) -> Self {
        let mut sketch = Self {
            counts: vec![0; self.counts.len()],
            ..*self
        };
        let all_mergeable = learnt.all_mergeable();
        for (pair, _) in slots.pairs() {
            if all_mergeable || learnt.is_mergeable(pair) {
                let cell = sketch.cell(pair);
                // A shard has fewer positions than a u32 can count.
                sketch.counts[cell] += 1;
            }
        }
        sketch
    }

    fn add(&mut self, other: &Self) {
        for (sum, own) in self.counts.iter_mut().zip(&other.counts) {
            *sum = sum.saturating_add(*own);
        }
    }

    /// Above it is what stands for at least 1 / `depth` of the most frequent pair's positions, but not
    /// many more pairs than there are merges to learn: a list costs time even if it is short.
    fn floor(&self, depth: u32, num_merges: usize) -> u32 {
        let largest = self.counts.iter().copied().max().unwrap_or(0);
        // How many cells have a count of so many bits.
        let mut cells_by_bits = [0_usize; 33];
        for count in &self.counts {
            cells_by_bits[(u32::BITS - count.leading_zeros()) as usize] += 1;
        }
        let wanted = num_merges.saturating_mul(8).saturating_add(1000);
        let mut cells = 0;
        let bits = (1..=u32::BITS).rev().find(|&bits| {
            cells += cells_by_bits[bits as usize];
            cells >= wanted
        });
        let floor = bits.map_or(1, |bits| 1 << (bits - 1));
        floor.max(largest / depth)
    }

    fn into_buckets(self, floor: u32) -> Buckets {
        let mut sizes = Vec::new();
        let mut numbers = self.counts;
        for number in &mut numbers {
            if *number >= floor {
                sizes.push(*number);
                *number = sizes.len() as u32 - 1;
            } else {
                *number = NONE;
            }
        }
        Buckets {
            numbers: Self {
                counts: numbers,
                ..self
            },
            sizes,
        }
    }
}

/// A number for each cell of a sketch whose pairs may reach the floor.
struct Buckets {
    numbers: Sketch,
    /// Positions that fall into each.
    sizes: Vec<u32>,
}

impl Buckets {
    /// The positions of all pairs that may reach the floor, in increasing order.
    fn positions<C: Cell>(&self, slots: &Slots<C>, num_shards: usize) -> Vec<(Pair, Vec<u32>)> {
        if !self.numbers.is_exact {
            let mut positions: FxHashMap<Pair, Vec<u32>> = FxHashMap::default();
            for (pair, position) in slots.pairs() {
                if self.numbers.counts[self.numbers.cell(pair)] != NONE {
                    positions.entry(pair).or_default().push(position as u32);
                }
            }
            return positions.into_iter().collect();
        }
        // Shards are much alike: with a little room to spare few lists have to be moved.
        let share = |&size: &u32| {
            let share = size as usize / num_shards;
            Vec::with_capacity(if num_shards == 1 {
                share
            } else {
                share + share / 8 + 16
            })
        };
        let mut buckets: Vec<Vec<u32>> = self.sizes.iter().map(share).collect();
        for (pair, position) in slots.pairs() {
            let number = self.numbers.counts[self.numbers.cell(pair)];
            if number != NONE {
                buckets[number as usize].push(position as u32);
            }
        }
        let named = |bucket: Vec<u32>| Some((slots.pair(*bucket.first()? as usize), bucket));
        buckets.into_iter().filter_map(named).collect()
    }
}
