//! Token sequences in which a merge touches a constant number of cells.
//!
//! One cell per symbol. A token of length L fills L cells: the first holds its id, the last its id
//! with [`END`] set (for L = 1 they are the same cell, without the flag), and nothing reads the ones
//! between. So the next token starts at `start + length` and the previous one ends at `start - 1`,
//! without the two links per symbol of a linked list. Every sequence stands between [`BOUNDARY`]
//! cells, which no merge crosses.
//!
//! A cell holds a bare id only while a token starts there. Occurrence lists may therefore go stale
//! and be checked by comparing cells, see [`Slots::pair_at`].

use crate::Pair;

const END: u32 = 1 << 31;
const BOUNDARY: u32 = u32::MAX;
const DEAD: u32 = u32::MAX - 1;

/// Ids are below this, to leave room for the flag.
pub(crate) const MAX_IDS: usize = END as usize;

/// Positions fit 32 bits while there are at most this many cells.
pub(crate) const MAX_CELLS: usize = u32::MAX as usize;

/// What stands beside a pair that was merged.
#[derive(Clone, Copy)]
pub(crate) struct Merged {
    /// The token before and where it starts.
    pub left: Option<(u32, usize)>,
    /// The token after.
    pub right: Option<u32>,
}

pub(crate) struct Slots {
    cells: Vec<u32>,
}

impl Slots {
    /// Cells that sequences with these lengths take.
    pub fn cells_for(num_sequences: usize, num_symbols: usize) -> usize {
        num_sequences + num_symbols + 1
    }

    pub fn with_capacity(cells: usize) -> Self {
        let mut cells = Vec::with_capacity(cells);
        cells.push(BOUNDARY);
        Self { cells }
    }

    pub fn push_sequence(&mut self, symbols: &[u8]) {
        self.cells
            .extend(symbols.iter().map(|&symbol| u32::from(symbol)));
        self.cells.push(BOUNDARY);
    }

    /// All adjacent pairs with their positions, from left to right. Only before the first merge.
    pub fn symbol_pairs(&self) -> impl Iterator<Item = (Pair, usize)> {
        self.cells
            .windows(2)
            .enumerate()
            .filter(|(_, pair)| pair[0] != BOUNDARY && pair[1] != BOUNDARY)
            .map(|(position, pair)| ((pair[0], pair[1]), position))
    }

    /// Whether `pair` stands at `position`, which may have become the middle of a token.
    pub fn pair_at(&self, position: usize, pair: Pair, lengths: &[u32]) -> bool {
        self.cells[position] == pair.0
            && self.cells[position + lengths[pair.0 as usize] as usize] == pair.1
    }

    /// Writes `id` over `pair`, which must stand at `position`.
    pub fn merge(&mut self, position: usize, pair: Pair, id: u32, lengths: &[u32]) -> Merged {
        let middle = position + lengths[pair.0 as usize] as usize;
        let end = middle + lengths[pair.1 as usize] as usize;
        self.cells[middle] = DEAD;
        self.cells[end - 1] = id | END;
        self.cells[position] = id;

        let before = self.cells[position - 1];
        let left = (before != BOUNDARY).then(|| {
            let token = before & !END;
            (token, position - lengths[token as usize] as usize)
        });
        let after = self.cells[end];
        Merged {
            left,
            right: (after != BOUNDARY).then_some(after),
        }
    }
}
