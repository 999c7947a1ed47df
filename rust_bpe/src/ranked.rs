//! The merges in the order in which they were learnt.
//!
//! A merge makes pairs of later merges only, because a later merge is the first that can name its
//! token. So each merge is done in one go, at all its places from left to right, and the list of its
//! places is complete, and in order, when its turn comes. The pairs that it makes hold its token, so
//! which merges they belong to is looked up in tables by their other token, filled for this one turn.
//!
//! One cell per symbol. A token of length L fills L cells: the first holds its id, the last its id with
//! [`END`] set (for L = 1 they are the same cell, without the flag), the first of its right part
//! [`DEAD`], and nothing reads the others. A cell holds a bare id only while a token starts there, so
//! places that have gone stale are found by comparing cells.

use crate::Pair;

const END: u32 = 1 << 31;
const DEAD: u32 = u32::MAX;
const NO_MERGE: u32 = u32::MAX;

/// A symbol takes one place in a list, and every merge makes two more at most; places are counted in
/// 32 bits.
pub(crate) const MAX_SYMBOLS: usize = 1 << 30;

/// What the merges have to know of each other.
pub(crate) struct Ranked {
    num_symbols: usize,
    /// The merge of each pair of symbols, by left, then right symbol.
    of_symbols: Vec<u32>,
    /// The merges that have each token on the right, and on the left.
    of_right: Partners,
    of_left: Partners,
}

impl Ranked {
    pub fn new(merges: &[Pair], num_symbols: usize) -> Self {
        let mut of_symbols = vec![NO_MERGE; num_symbols * num_symbols];
        for (&(left, right), merge) in merges.iter().zip(0..) {
            let (left, right) = (left as usize, right as usize);
            if left.max(right) < num_symbols {
                of_symbols[left * num_symbols + right] = merge;
            }
        }
        let vocab_size = num_symbols + merges.len();
        let reversed = merges.iter().map(|&(left, right)| (right, left));
        Self {
            num_symbols,
            of_symbols,
            of_right: Partners::new(reversed, vocab_size),
            of_left: Partners::new(merges.iter().copied(), vocab_size),
        }
    }

    /// The ids of rows of `length` symbols, at most [`MAX_SYMBOLS`] in all, each row by itself, one
    /// after the other. `lengths`: of all tokens.
    pub fn encode_rows(
        &self,
        symbols: &[u8],
        length: usize,
        merges: &[Pair],
        lengths: &[u32],
    ) -> Vec<u32> {
        let length = length.max(1);
        // No token has this id, so it is never merged.
        let boundary = lengths.len() as u32;
        let mut cells = Vec::with_capacity(symbols.len() + symbols.len().div_ceil(length) + 1);
        cells.push(boundary);
        for row in symbols.chunks(length) {
            cells.extend(row.iter().map(|&symbol| u32::from(symbol)));
            cells.push(boundary);
        }
        let mut places = self.symbol_places(&cells, merges.len(), boundary);

        // By the token that stands left of the one that is made, or right of it, the merge of both.
        let mut left_merges = vec![NO_MERGE; lengths.len() + 1];
        let mut right_merges = left_merges.clone();
        for (&(left, right), rank) in merges.iter().zip(0..) {
            let Some(mut walk) = places.walk(rank) else {
                continue;
            };
            let id = (self.num_symbols + rank) as u32;
            for &(partner, merge) in self.of_right.of(id) {
                left_merges[partner as usize] = merge;
            }
            for &(partner, merge) in self.of_left.of(id) {
                right_merges[partner as usize] = merge;
            }
            let left_length = lengths[left as usize] as usize;
            let length = lengths[id as usize] as usize;
            while let Some(position) = places.next(&mut walk) {
                let start = position as usize;
                let (middle, stop) = (start + left_length, start + length);
                if cells[start] != left || cells[middle] != right {
                    continue;
                }
                cells[middle] = DEAD;
                cells[stop - 1] = id | END;
                cells[start] = id;
                let before = (cells[start - 1] & !END) as usize;
                if left_merges[before] != NO_MERGE {
                    places.push(left_merges[before], position - lengths[before]);
                }
                let after = cells[stop] as usize;
                if right_merges[after] != NO_MERGE {
                    places.push(right_merges[after], position);
                }
            }
            for &(partner, _) in self.of_right.of(id) {
                left_merges[partner as usize] = NO_MERGE;
            }
            for &(partner, _) in self.of_left.of(id) {
                right_merges[partner as usize] = NO_MERGE;
            }
        }
        tokens(&cells, lengths)
    }

    fn symbol_places(&self, cells: &[u32], num_merges: usize, boundary: u32) -> Places {
        let mut places = Places::new(num_merges, cells.len());
        for (pair, position) in cells.windows(2).zip(0..) {
            if pair[0] != boundary && pair[1] != boundary {
                let index = pair[0] as usize * self.num_symbols + pair[1] as usize;
                if self.of_symbols[index] != NO_MERGE {
                    places.push(self.of_symbols[index], position);
                }
            }
        }
        places
    }
}

fn tokens(cells: &[u32], lengths: &[u32]) -> Vec<u32> {
    let mut ids = Vec::with_capacity(cells.len() / 4);
    let mut position = 0;
    while let Some(&id) = cells.get(position) {
        match lengths.get(id as usize) {
            Some(&length) => {
                ids.push(id);
                position += length as usize;
            }
            None => position += 1, // A boundary.
        }
    }
    ids
}

/// For each token, with which other tokens it is merged, by which merges.
struct Partners {
    starts: Vec<u32>,
    partners: Vec<(u32, u32)>,
}

impl Partners {
    /// From the token and its partner in each merge.
    fn new(pairs: impl Iterator<Item = Pair> + Clone, vocab_size: usize) -> Self {
        let mut starts = vec![0; vocab_size + 2];
        for (token, _) in pairs.clone() {
            starts[token as usize + 2] += 1;
        }
        for token in 2..starts.len() {
            starts[token] += starts[token - 1];
        }
        let mut partners = vec![(0, 0); starts[vocab_size + 1] as usize];
        for ((token, partner), merge) in pairs.zip(0..) {
            let start = &mut starts[token as usize + 1];
            partners[*start as usize] = (partner, merge);
            *start += 1;
        }
        Self { starts, partners }
    }

    fn of(&self, token: u32) -> &[(u32, u32)] {
        let token = token as usize;
        &self.partners[self.starts[token] as usize..self.starts[token + 1] as usize]
    }
}

/// A list of places for each merge, linked in one vector, which starts with the lists' heads. (Lists of
/// chunks, or sorted lists of the symbols' places, are not faster.)
struct Places {
    places: Vec<Place>,
    lasts: Vec<u32>,
}

struct Place {
    position: u32,
    next: u32,
}

/// Where a walk along a list is, and where it ends.
struct Walk {
    at: u32,
    last: u32,
}

impl Places {
    fn new(num_lists: usize, num_symbols: usize) -> Self {
        let mut places = Vec::with_capacity(num_lists + 2 * num_symbols);
        places.extend((0..num_lists).map(|_| Place {
            position: 0,
            next: 0,
        }));
        Self {
            places,
            lasts: (0..num_lists as u32).collect(),
        }
    }

    fn push(&mut self, list: u32, position: u32) {
        let place = self.places.len() as u32;
        self.places.push(Place { position, next: 0 });
        let last = std::mem::replace(&mut self.lasts[list as usize], place);
        self.places[last as usize].next = place;
    }

    /// Along a list that is not empty.
    fn walk(&self, list: usize) -> Option<Walk> {
        let (at, last) = (list as u32, self.lasts[list]);
        (at != last).then_some(Walk { at, last })
    }

    fn next(&self, walk: &mut Walk) -> Option<u32> {
        if walk.at == walk.last {
            return None;
        }
        walk.at = self.places[walk.at as usize].next;
        Some(self.places[walk.at as usize].position)
    }
}
