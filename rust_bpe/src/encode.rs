//! Symbols to tokens and back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::str::FromStr;

use rustc_hash::FxHashMap;

use crate::greedy::{Greedy, Trie};
use crate::slots::{MAX_CELLS, Slots};
use crate::{Error, Pair, Quantizer, Result, check_num_symbols, check_symbols, threads};

/// Symbols of all tokens together: ten times what 6,000 merges of at most 1,024 symbols need. Forty
/// merges can describe a token of 2^40 symbols, so a damaged file must not decide how much is allocated.
const MAX_TOKEN_SYMBOLS: usize = 1 << 26;

/// How symbols become tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// The longest token that matches, from left to right: the ECG-Byte paper's encoding.
    Greedy,
    /// The merges in the order in which they were learnt, each from left to right.
    Bpe,
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "greedy" => Ok(Self::Greedy),
            "bpe" => Ok(Self::Bpe),
            _ => Err(Error::UnknownName {
                option: "algorithm",
                got: name.to_owned(),
                expected: &["greedy", "bpe"],
            }),
        }
    }
}

/// Whether a token may hold the end of one lead and the start of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeadBoundary {
    /// It may: the leads are one sequence, as in the ECG-Byte paper.
    Cross,
    /// It may not: each lead is encoded by itself.
    Split,
}

impl FromStr for LeadBoundary {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "cross" => Ok(Self::Cross),
            "split" => Ok(Self::Split),
            _ => Err(Error::UnknownName {
                option: "lead_boundary",
                got: name.to_owned(),
                expected: &["cross", "split"],
            }),
        }
    }
}

/// How the leads of a signal become one sequence of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalEncoding {
    pub algorithm: Algorithm,
    pub lead_boundary: LeadBoundary,
}

/// A vocabulary: the symbols, then one token per merge.
pub struct Bpe {
    num_symbols: usize,
    merges: Vec<Pair>,
    ranks: FxHashMap<Pair, u32>,
    lengths: Vec<u32>,
    /// The symbols of token `id` are `symbols[starts[id]..starts[id + 1]]`.
    symbols: Vec<u8>,
    starts: Vec<usize>,
    greedy: Greedy,
}

impl Bpe {
    /// # Errors
    /// [`Error::UndefinedToken`] for a merge of tokens that are not defined before it,
    /// [`Error::DuplicateToken`] for two tokens with the same symbols (without them, every token
    /// greedily encodes to itself), [`Error::VocabularyTooLarge`] for tokens that cannot be held.
    pub fn new(merges: Vec<Pair>, num_symbols: usize) -> Result<Self> {
        check_num_symbols(num_symbols)?;
        let lengths = token_lengths(&merges, num_symbols)?;
        let mut symbols: Vec<u8> = (0..=u8::MAX).take(num_symbols).collect();
        let mut starts: Vec<usize> = (0..=num_symbols).collect();
        let mut trie = Trie::new(num_symbols);
        for (rank, &(left, right)) in merges.iter().enumerate() {
            let start = symbols.len();
            for part in [left as usize, right as usize] {
                symbols.extend_from_within(starts[part]..starts[part + 1]);
            }
            starts.push(symbols.len());
            trie.insert(
                left,
                &symbols[start + lengths[left as usize] as usize..],
                rank,
            )?;
        }
        Ok(Self {
            num_symbols,
            ranks: merges.iter().copied().zip(0..).collect(),
            merges,
            lengths,
            symbols,
            starts,
            greedy: trie.close(),
        })
    }

    #[must_use]
    pub fn num_symbols(&self) -> usize {
        self.num_symbols
    }

    #[must_use]
    pub fn merges(&self) -> &[Pair] {
        &self.merges
    }

    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.lengths.len()
    }

    /// Symbols in each token, by id.
    #[must_use]
    pub fn token_lengths(&self) -> &[u32] {
        &self.lengths
    }

    /// The symbols of token `id`.
    ///
    /// # Errors
    /// [`Error::TokenId`] if there is no such token.
    pub fn token(&self, id: u32) -> Result<&[u8]> {
        let vocab_size = self.vocab_size();
        if id as usize >= vocab_size {
            let id = id.into();
            return Err(Error::TokenId { id, vocab_size });
        }
        Ok(self.symbols_of(id))
    }

    fn symbols_of(&self, id: u32) -> &[u8] {
        let id = id as usize;
        &self.symbols[self.starts[id]..self.starts[id + 1]]
    }

    /// # Errors
    /// [`Error::Symbol`] for a symbol outside the alphabet.
    pub fn encode(&self, symbols: &[u8], algorithm: Algorithm) -> Result<Vec<u32>> {
        match algorithm {
            Algorithm::Greedy => self.encode_greedy(symbols),
            Algorithm::Bpe => self.encode_bpe(symbols),
        }
    }

    /// The longest token that matches, from left to right.
    ///
    /// # Errors
    /// [`Error::Symbol`] for a symbol outside the alphabet.
    pub fn encode_greedy(&self, symbols: &[u8]) -> Result<Vec<u32>> {
        check_symbols(symbols, self.num_symbols)?;
        Ok(self.greedy.encode(symbols))
    }

    /// The merges in the order in which they were learnt, each from left to right.
    ///
    /// # Errors
    /// [`Error::Symbol`] for a symbol outside the alphabet, [`Error::RecordTooLong`] above 2^32 - 3
    /// symbols.
    pub fn encode_bpe(&self, symbols: &[u8]) -> Result<Vec<u32>> {
        check_symbols(symbols, self.num_symbols)?;
        let num_cells = Slots::cells_for(1, symbols.len());
        if num_cells > MAX_CELLS {
            return Err(Error::RecordTooLong {
                length: symbols.len(),
                limit: MAX_CELLS - Slots::cells_for(1, 0),
            });
        }
        let mut slots = Slots::with_capacity(num_cells);
        slots.push_sequence(symbols);

        // The lowest rank first, then the leftmost. A merge makes pairs of higher ranks only, because
        // a later merge is the first that can name its token; so each rank is finished in one go.
        let mut queue: BinaryHeap<Reverse<(u32, u32)>> = slots
            .symbol_pairs()
            .filter_map(|(pair, position)| {
                let rank = *self.ranks.get(&pair)?;
                Some(Reverse((rank, position as u32)))
            })
            .collect();
        while let Some(Reverse((rank, position))) = queue.pop() {
            let position = position as usize;
            let pair = self.merges[rank as usize];
            if !slots.pair_at(position, pair, &self.lengths) {
                continue;
            }
            let id = self.num_symbols as u32 + rank;
            let merged = slots.merge(position, pair, id, &self.lengths);
            let left = merged.left.map(|(token, start)| ((token, id), start));
            let right = merged.right.map(|token| ((id, token), position));
            for (pair, start) in left.into_iter().chain(right) {
                if let Some(&rank) = self.ranks.get(&pair) {
                    queue.push(Reverse((rank, start as u32)));
                }
            }
        }
        Ok(slots.tokens(&self.lengths).collect())
    }

    /// Each sequence by itself, in the order given.
    ///
    /// # Errors
    /// [`Error::Item`] with the index of the first sequence that is refused, [`Error::NumThreads`] for
    /// no threads.
    pub fn encode_batch<S: AsRef<[u8]> + Sync>(
        &self,
        sequences: &[S],
        algorithm: Algorithm,
        num_threads: Option<usize>,
    ) -> Result<Vec<Vec<u32>>> {
        threads::map(sequences, num_threads, |index, sequence| {
            self.encode(sequence.as_ref(), algorithm)
                .map_err(|error| error.in_item("sequence", index))
        })
    }

    /// A lead-major signal, quantised to this vocabulary's symbols between `low` and `high`.
    ///
    /// # Errors
    /// [`Error::Range`], and [`Error::NotFinite`] with the lead and the sample of the first NaN or
    /// infinity.
    pub fn encode_signal<T: Copy + Into<f64>>(
        &self,
        signal: &[T],
        samples_per_lead: usize,
        (low, high): (f64, f64),
        encoding: SignalEncoding,
    ) -> Result<Vec<u32>> {
        let symbols = Quantizer::new(low, high, self.num_symbols)?
            .quantize(signal)
            .map_err(|error| error.in_rows_of(samples_per_lead))?;
        match encoding.lead_boundary {
            LeadBoundary::Cross => self.encode(&symbols, encoding.algorithm),
            LeadBoundary::Split if encoding.algorithm == Algorithm::Greedy => {
                Ok(self.greedy.encode_rows(&symbols, samples_per_lead))
            }
            LeadBoundary::Split => {
                let mut ids = Vec::new();
                for lead in symbols.chunks(samples_per_lead.max(1)) {
                    ids.extend(self.encode(lead, encoding.algorithm)?);
                }
                Ok(ids)
            }
        }
    }

    /// The symbols of `ids`, one token after the other.
    ///
    /// # Errors
    /// [`Error::Item`] with the position of an id outside the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<Vec<u8>> {
        self.check_ids(ids)?;
        let length = ids.iter().map(|&id| self.lengths[id as usize] as usize);
        let mut symbols = Vec::with_capacity(length.sum());
        for &id in ids {
            symbols.extend_from_slice(self.symbols_of(id));
        }
        Ok(symbols)
    }

    /// Where each token starts and stops in the symbols that `ids` decode to.
    ///
    /// # Errors
    /// [`Error::Item`] with the position of an id outside the vocabulary.
    pub fn spans(&self, ids: &[u32]) -> Result<Vec<(u64, u64)>> {
        self.check_ids(ids)?;
        let mut start = 0;
        Ok(ids
            .iter()
            .map(|&id| {
                let stop = start + u64::from(self.lengths[id as usize]);
                (std::mem::replace(&mut start, stop), stop)
            })
            .collect())
    }

    fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let vocab_size = self.vocab_size();
        match ids.iter().position(|&id| id as usize >= vocab_size) {
            Some(position) => {
                let id = ids[position].into();
                Err(Error::TokenId { id, vocab_size }.in_item("position", position))
            }
            None => Ok(()),
        }
    }
}

/// Checks that merges join earlier tokens only, and that all tokens together are of a sane size.
fn token_lengths(merges: &[Pair], num_symbols: usize) -> Result<Vec<u32>> {
    let mut lengths = vec![1; num_symbols];
    let mut total = num_symbols;
    for (rank, &(left, right)) in merges.iter().enumerate() {
        let part = |id: u32| {
            lengths.get(id as usize).ok_or(Error::UndefinedToken {
                rank,
                id: id.into(),
                defined: num_symbols + rank,
            })
        };
        let length: u32 = part(left)? + part(right)?;
        total += length as usize;
        if total > MAX_TOKEN_SYMBOLS {
            return Err(Error::VocabularyTooLarge {
                rank,
                limit: MAX_TOKEN_SYMBOLS,
                unit: "symbols",
            });
        }
        lengths.push(length);
    }
    Ok(lengths)
}
