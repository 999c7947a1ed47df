//! Arbitrary bytes as what the crate is given. Short inputs describe long ones, because a fuzzer prefers
//! short inputs and the crate cuts long ones into blocks, segments and chunks.
#![allow(dead_code)]

use arbitrary::Arbitrary;
use rust_bpe::Pair;

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Alphabet {
    Few(u8),
    Letters,
    /// So many that scans of bytes have no ids left, or none at all.
    Many(u8),
    Any(u8),
}

impl Alphabet {
    pub fn num_symbols(self) -> usize {
        match self {
            Self::Few(number) => usize::from(number % 4) + 1,
            Self::Letters => 26,
            Self::Many(number) => 250 + usize::from(number % 7),
            Self::Any(number) => usize::from(number) + 1,
        }
    }
}

#[derive(Arbitrary, Debug)]
pub enum Part<'a> {
    Noise(&'a [u8]),
    /// A flat line.
    Run(u8, u16),
    Periodic(&'a [u8], u16),
    /// A Fibonacci word of the two symbols.
    Fibonacci(u8, u8, u16),
}

impl Part<'_> {
    fn write(&self, symbols: &mut Vec<u8>, limit: usize) {
        let room = limit.saturating_sub(symbols.len());
        let length = |length: u16| usize::from(length).min(room);
        match *self {
            Self::Noise(noise) => symbols.extend(noise.iter().take(room)),
            Self::Run(symbol, long) => symbols.extend(std::iter::repeat_n(symbol, length(long))),
            Self::Periodic(period, long) => {
                symbols.extend(period.iter().cycle().take(length(long)));
            }
            Self::Fibonacci(a, b, long) => {
                let (mut shorter, mut word) = (vec![a], vec![a, b]);
                while word.len() < length(long) {
                    let longer = [&word[..], &shorter].concat();
                    shorter = std::mem::replace(&mut word, longer);
                }
                symbols.extend(word.iter().take(length(long)));
            }
        }
    }
}

/// The parts one after the other, at most `limit` symbols.
pub fn sequence(parts: &[Part], limit: usize) -> Vec<u8> {
    let mut symbols = Vec::new();
    for part in parts {
        part.write(&mut symbols, limit);
    }
    symbols
}

/// Makes every symbol one of the alphabet.
pub fn fold(symbols: &mut [u8], num_symbols: usize) {
    for symbol in symbols {
        *symbol = (usize::from(*symbol) % num_symbols) as u8;
    }
}

/// One merge: most of them join tokens that are defined, some do not.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Merge(u16, u16);

impl Merge {
    fn pair(self, defined: usize) -> Pair {
        let id = |id: u16| {
            if id >= 0xFFF0 {
                u32::MAX - u32::from(u16::MAX - id)
            } else {
                u32::from(id) % defined as u32
            }
        };
        (id(self.0), id(self.1))
    }
}

pub fn merges(merges: &[Merge], num_symbols: usize) -> Vec<Pair> {
    let merges = merges.iter().take(MAX_MERGES).enumerate();
    merges
        .map(|(rank, merge)| merge.pair(num_symbols + rank))
        .collect()
}

const MAX_MERGES: usize = 80;

/// Symbols of all tokens together, as [`rust_bpe::Bpe`] counts them; `None` for a merge of a token that
/// is not defined before it.
pub fn vocabulary_symbols(merges: &[Pair], num_symbols: usize) -> Option<u128> {
    let mut lengths = vec![1_u128; num_symbols];
    for &(left, right) in merges {
        let length = lengths.get(left as usize)? + lengths.get(right as usize)?;
        lengths.push(length);
    }
    Some(lengths.iter().sum())
}
