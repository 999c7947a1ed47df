//! Records to learn from, held once.
//!
//! Symbols are bytes in chunks of a few megabytes, with a [`BOUNDARY`] on each side of a record. A full
//! chunk never moves and training rewrites chunks in place, so the corpus is never in memory twice.

use super::replace::{Neighbours, Replacement, replace};
use super::slots::MAX_CELLS;
use crate::{Error, MAX_SYMBOLS, Result, check_num_symbols, check_symbols};

/// Stands around records. It is the last symbol of the largest alphabet too, see [`Corpus::new`].
pub(super) const BOUNDARY: u8 = u8::MAX;

/// Boundaries at the end of a chunk: whoever looks at 64 bytes and the two after them reads no further.
pub(super) const PADDING: usize = 66;

/// Symbols of a chunk, unless a single record is longer: few enough to stay in a core's own cache while
/// several merges are made.
const CHUNK_SYMBOLS: usize = 1 << 18;

/// Records to learn from, each an island: no merge crosses from one to the next.
#[derive(Clone, Debug)]
pub struct Corpus {
    pub(super) num_symbols: usize,
    pub(super) chunks: Vec<Chunk>,
    /// Symbols up to which a chunk takes further records.
    chunk_symbols: usize,
    num_records: usize,
    len: usize,
}

impl Corpus {
    /// # Errors
    /// [`Error::NumSymbols`] unless there are 1 to 256 symbols.
    pub fn new(num_symbols: usize) -> Result<Self> {
        Self::with_chunks_of(CHUNK_SYMBOLS, num_symbols)
    }

    pub(super) fn with_chunks_of(chunk_symbols: usize, num_symbols: usize) -> Result<Self> {
        check_num_symbols(num_symbols)?;
        Ok(Self {
            num_symbols,
            chunks: Vec::new(),
            // With 256 symbols no byte is left to tell records apart, so each is a chunk.
            chunk_symbols: if num_symbols < MAX_SYMBOLS {
                chunk_symbols
            } else {
                0
            },
            num_records: 0,
            len: 0,
        })
    }

    /// # Errors
    /// [`Error::Item`] with the record's index if a symbol is outside the alphabet or the record has
    /// more than 2^32 - 3 symbols. The corpus is then unchanged.
    pub fn push_record(&mut self, symbols: &[u8]) -> Result<()> {
        let limit = MAX_CELLS - 2;
        let checked = if symbols.len() > limit {
            Err(Error::RecordTooLong {
                length: symbols.len(),
                limit,
            })
        } else {
            check_symbols(symbols, self.num_symbols)
        };
        checked.map_err(|error| error.in_item("record", self.num_records))?;

        match self.chunks.last_mut() {
            Some(chunk) if chunk.len + symbols.len() < self.chunk_symbols => chunk.push(symbols),
            _ => {
                let mut chunk = Chunk::default();
                chunk.push(symbols);
                self.chunks.push(chunk);
            }
        }
        self.num_records += 1;
        self.len += symbols.len();
        Ok(())
    }

    #[must_use]
    pub fn num_records(&self) -> usize {
        self.num_records
    }

    /// Symbols of all records together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Whole records, as symbols or, once scans have rewritten them, tokens below [`BOUNDARY`].
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    /// A boundary, then each record and a boundary, then [`PADDING`].
    pub bytes: Vec<u8>,
    /// Bytes before the padding.
    pub len: usize,
}

impl Default for Chunk {
    fn default() -> Self {
        Self {
            bytes: vec![BOUNDARY; 1 + PADDING],
            len: 1,
        }
    }
}

impl Chunk {
    fn push(&mut self, symbols: &[u8]) {
        self.bytes.truncate(self.len);
        self.bytes.extend_from_slice(symbols);
        self.len += symbols.len() + 1;
        self.bytes.resize(self.len + PADDING, BOUNDARY);
    }

    /// Makes the replacements one after the other, each with its neighbours.
    pub fn replace(&mut self, replacements: &[Replacement], neighbours: &mut [Neighbours]) {
        for (&replacement, neighbours) in replacements.iter().zip(neighbours) {
            self.len = replace(&mut self.bytes, self.len, replacement, neighbours);
        }
        self.bytes.truncate(self.len + PADDING);
        // Now and then: the lists to come need the memory.
        if self.bytes.len() < self.bytes.capacity() / 2 {
            self.bytes.shrink_to_fit();
        }
    }

    /// What stands between the first and the last boundary.
    pub fn interior(&self) -> &[u8] {
        &self.bytes[1..(self.len - 1).max(1)]
    }
}
