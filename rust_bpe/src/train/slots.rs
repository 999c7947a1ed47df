//! Token sequences in which a merge touches a constant number of cells.
//!
//! A sequence begins with one cell per token. A token that merges make takes the cells of its parts:
//! the first holds its id, the last its id with [`Cell::END`] set (if it is one cell, only the id), and
//! nothing reads the ones between. So the next token starts at `start + span` and the previous one ends
//! at `start - 1`, without the two links of a linked list. Every sequence stands between
//! [`Cell::BOUNDARY`] cells, which no merge crosses.
//!
//! A cell holds a bare id only while a token starts there. Occurrence lists may therefore go stale and
//! be checked by comparing cells, see [`Slots::pair_at`].

use crate::Pair;

/// Ids are below this, to leave room for the flag and the special cells.
pub(super) const MAX_IDS: usize = <u32 as Cell>::MAX_IDS;

/// Positions fit 32 bits while there are at most this many cells.
pub(super) const MAX_CELLS: usize = u32::MAX as usize;

pub(super) trait Cell: Copy + Eq + Send + Sync {
    const END: Self;
    const BOUNDARY: Self;
    /// Where a token started that is part of another now.
    const DEAD: Self;
    const MAX_IDS: usize;

    fn new(id: u32) -> Self;

    /// The id that is followed by the end of its token.
    fn end(id: u32) -> Self;

    /// The id, with or without the flag.
    fn id(self) -> u32;
}

macro_rules! impl_cell {
    ($cell:ty) => {
        impl Cell for $cell {
            const END: Self = 1 << (Self::BITS - 1);
            const BOUNDARY: Self = Self::MAX;
            const DEAD: Self = Self::MAX - 1;
            const MAX_IDS: usize = (Self::DEAD ^ Self::END) as usize;

            fn new(id: u32) -> Self {
                id as Self
            }

            fn end(id: u32) -> Self {
                id as Self | Self::END
            }

            fn id(self) -> u32 {
                u32::from(self & !Self::END)
            }
        }
    };
}

impl_cell!(u16);
impl_cell!(u32);

/// What stands beside a pair that was merged.
#[derive(Clone, Copy)]
pub(super) struct Merged {
    /// The token before and where it starts.
    pub left: Option<(u32, usize)>,
    /// The token after.
    pub right: Option<u32>,
}

pub(super) struct Slots<C> {
    cells: Vec<C>,
}

impl<C: Cell> Slots<C> {
    pub fn with_capacity(cells: usize) -> Self {
        let mut cells = Vec::with_capacity(cells);
        cells.push(C::BOUNDARY);
        Self { cells }
    }

    pub fn push_sequence(&mut self, tokens: &[u8]) {
        let cells = tokens.iter().map(|&token| C::new(u32::from(token)));
        self.cells.extend(cells);
        self.cells.push(C::BOUNDARY);
    }

    /// Several sequences with `boundary` between them.
    pub fn push_sequences(&mut self, tokens: &[u8], boundary: u8) {
        let cells = tokens.iter().map(|&token| {
            if token == boundary {
                C::BOUNDARY
            } else {
                C::new(u32::from(token))
            }
        });
        self.cells.extend(cells);
        self.cells.push(C::BOUNDARY);
    }

    pub fn num_cells(&self) -> usize {
        self.cells.len()
    }

    /// All adjacent pairs with their positions, from left to right. Only while every token is one cell.
    pub fn pairs(&self) -> impl Iterator<Item = (Pair, usize)> {
        self.cells
            .windows(2)
            .enumerate()
            .filter(|(_, pair)| pair[0] != C::BOUNDARY && pair[1] != C::BOUNDARY)
            .map(|(position, pair)| ((pair[0].id(), pair[1].id()), position))
    }

    /// The pair at a position that `pairs` gave.
    pub fn pair(&self, position: usize) -> Pair {
        (self.cells[position].id(), self.cells[position + 1].id())
    }

    /// Makes every token one cell again.
    pub fn close_up(&mut self, spans: &[u32]) {
        let mut read = 0;
        let mut written = 0;
        while let Some(&cell) = self.cells.get(read) {
            self.cells[written] = cell;
            written += 1;
            read += if cell == C::BOUNDARY {
                1
            } else {
                spans[cell.id() as usize] as usize
            };
        }
        self.cells.truncate(written);
        self.cells.shrink_to_fit();
    }

    /// Whether `pair` stands at `position`, which may have become the middle of a token.
    pub fn pair_at(&self, position: usize, pair: Pair, spans: &[u32]) -> bool {
        // Both are read in any case: a branch here would cost more than the second cell.
        (self.cells[position] == C::new(pair.0))
            & (self.cells[position + spans[pair.0 as usize] as usize] == C::new(pair.1))
    }

    /// Writes `id` over `pair`, which must stand at `position`.
    pub fn merge(&mut self, position: usize, pair: Pair, id: u32, spans: &[u32]) -> Merged {
        let middle = position + spans[pair.0 as usize] as usize;
        let end = middle + spans[pair.1 as usize] as usize;
        self.cells[middle] = C::DEAD;
        self.cells[end - 1] = C::end(id);
        self.cells[position] = C::new(id);

        let before = self.cells[position - 1];
        let left = (before != C::BOUNDARY).then(|| {
            let token = before.id();
            (token, position - spans[token as usize] as usize)
        });
        let after = self.cells[end];
        Merged {
            left,
            right: (after != C::BOUNDARY).then(|| after.id()),
        }
    }
}
