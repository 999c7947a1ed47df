//! Symbols to tokens and back.

use std::str::FromStr;

use crate::greedy::{Greedy, Trie};
use crate::ranked::{self, Ranked};
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
    lengths: Vec<u32>,
    /// The symbols of token `id` are `symbols[starts[id]..starts[id + 1]]`.
    symbols: Vec<u8>,
    starts: Vec<usize>,
    greedy: Greedy,
    ranked: Ranked,
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
            let [left_symbols, right_symbols] =
                [left as usize, right as usize].map(|id| starts[id]..starts[id + 1]);
            trie.insert(left, &symbols[right_symbols.clone()], rank)?;
            symbols.extend_from_within(left_symbols);
            symbols.extend_from_within(right_symbols);
            starts.push(symbols.len());
        }
        Ok(Self {
            num_symbols,
            ranked: Ranked::new(&merges, num_symbols),
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
    /// As [`Bpe::encode_greedy`] and [`Bpe::encode_bpe`].
    pub fn encode(&self, symbols: &[u8], algorithm: Algorithm) -> Result<Vec<u32>> {
        check_symbols(symbols, self.num_symbols)?;
        self.encode_rows(symbols, symbols.len(), algorithm)
    }

    /// The longest token that matches, from left to right.
    ///
    /// # Errors
    /// [`Error::Symbol`] for a symbol outside the alphabet.
    pub fn encode_greedy(&self, symbols: &[u8]) -> Result<Vec<u32>> {
        self.encode(symbols, Algorithm::Greedy)
    }

    /// The merges in the order in which they were learnt, each from left to right.
    ///
    /// # Errors
    /// [`Error::Symbol`] for a symbol outside the alphabet, [`Error::RecordTooLong`] above 2^30 symbols.
    pub fn encode_bpe(&self, symbols: &[u8]) -> Result<Vec<u32>> {
        self.encode(symbols, Algorithm::Bpe)
    }

    /// Rows of `length` symbols of the alphabet, each by itself.
    fn encode_rows(&self, symbols: &[u8], length: usize, algorithm: Algorithm) -> Result<Vec<u32>> {
        match algorithm {
            Algorithm::Greedy => Ok(self.greedy.encode_rows(symbols, length)),
            Algorithm::Bpe if symbols.len() > ranked::MAX_SYMBOLS => Err(Error::RecordTooLong {
                length: symbols.len(),
                limit: ranked::MAX_SYMBOLS,
            }),
            Algorithm::Bpe => {
                let (merges, lengths) = (&self.merges, &self.lengths);
                Ok(self.ranked.encode_rows(symbols, length, merges, lengths))
            }
        }
    }

    /// Each sequence by itself, in the order given.
    ///
    /// # Errors
    /// [`Error::Item`] with the index of the first sequence that is refused, [`Error::NumThreads`] for
    /// none or more than 1,024 threads.
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
        let symbols = self.quantize_signal(signal, samples_per_lead, (low, high))?;
        self.encode_quantized(&symbols, samples_per_lead, encoding)
    }

    pub(crate) fn quantize_signal<T: Copy + Into<f64>>(
        &self,
        signal: &[T],
        samples_per_lead: usize,
        (low, high): (f64, f64),
    ) -> Result<Vec<u8>> {
        Quantizer::new(low, high, self.num_symbols)?
            .quantize(signal)
            .map_err(|error| error.in_rows_of(samples_per_lead))
    }

    /// Symbols that `quantize_signal` made.
    pub(crate) fn encode_quantized(
        &self,
        symbols: &[u8],
        samples_per_lead: usize,
        encoding: SignalEncoding,
    ) -> Result<Vec<u32>> {
        let length = match encoding.lead_boundary {
            LeadBoundary::Cross => symbols.len(),
            LeadBoundary::Split => samples_per_lead,
        };
        self.encode_rows(symbols, length, encoding.algorithm)
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
