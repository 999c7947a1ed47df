//! Byte-pair encoding of quantised ECG signals.
//!
//! A recording is quantised to a few symbols ([`Quantizer`]), the most frequent adjacent pairs of a
//! corpus become tokens ([`train`]), and a recording is written in those tokens ([`Bpe`]). Symbol
//! `k` is token `k`; the token made by merge `r` is `num_symbols + r`.
//!
//! ```
//! use rust_bpe::{Bpe, Corpus, Error, TrainOptions, train};
//!
//! let mut corpus = Corpus::new(3)?;
//! corpus.push_record(&[0, 1, 0, 1, 2])?;
//! let merges = train(corpus, &TrainOptions::new(1), |_| Ok::<(), Error>(()))?;
//! assert_eq!(merges, [(0, 1)]);
//!
//! let bpe = Bpe::new(merges, 3)?;
//! assert_eq!(bpe.encode_greedy(&[0, 1, 2, 0])?, [3, 2, 0]);
//! assert_eq!(bpe.decode(&[3, 2, 0])?, [0, 1, 2, 0]);
//! # Ok::<(), Error>(())
//! ```
//!
//! Before that, a recording is cleaned ([`Cleaning`]).

mod clean;
mod encode;
mod error;
mod greedy;
mod quantize;
mod ranked;
mod threads;
mod train;

#[cfg(feature = "python")]
mod py;

pub use clean::{Cleaning, Filter, Leads, Section, Shrinkage};
pub use encode::{Algorithm, Bpe, LeadBoundary, SignalEncoding};
pub use error::{Error, Result};
pub use quantize::Quantizer;
pub use train::{Corpus, TrainOptions, train};

/// Two adjacent tokens, left and right.
pub type Pair = (u32, u32);

/// Symbols are bytes, so an alphabet has at most this many.
pub const MAX_SYMBOLS: usize = 256;

fn check_num_symbols(num_symbols: usize) -> Result<()> {
    if (1..=MAX_SYMBOLS).contains(&num_symbols) {
        Ok(())
    } else {
        Err(Error::NumSymbols { num_symbols })
    }
}

fn check_symbols(symbols: &[u8], num_symbols: usize) -> Result<()> {
    // The maximum first: it is vectorised, the search for a position is not.
    let largest = symbols.iter().copied().max().unwrap_or(0);
    if usize::from(largest) < num_symbols {
        return Ok(());
    }
    let found = symbols
        .iter()
        .zip(0_usize..)
        .find(|&(&symbol, _)| usize::from(symbol) >= num_symbols);
    match found {
        Some((&symbol, position)) => Err(Error::Symbol {
            position,
            symbol,
            num_symbols,
        }),
        None => Ok(()),
    }
}
