//! Every way in which the core refuses its input.

use crate::MAX_SYMBOLS;
use crate::threads::MAX_THREADS;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("num_symbols is {num_symbols}: expected 1 to {MAX_SYMBOLS}, because symbols are bytes")]
    NumSymbols { num_symbols: usize },

    #[error(
        "symbol {symbol} at position {position} is outside the alphabet: expected 0 to {}; quantise with \
         the same num_symbols ({num_symbols}) or raise num_symbols",
        num_symbols - 1
    )]
    Symbol {
        position: usize,
        symbol: u8,
        num_symbols: usize,
    },

    /// One item of several is at fault.
    #[error("{what} {index}: {source}")]
    Item {
        what: &'static str,
        index: usize,
        source: Box<Error>,
    },

    #[error(
        "the record has {length} symbols: expected at most {limit}, because positions are 32-bit; \
         split it into several records"
    )]
    RecordTooLong { length: usize, limit: usize },

    #[error("num_merges is {num_merges}: expected at most {limit}, because token ids are 31-bit")]
    NumMerges { num_merges: usize, limit: usize },

    #[error(
        "max_token_length is {max_token_length}: expected at least 2, the length of the shortest merge"
    )]
    MaxTokenLength { max_token_length: usize },

    #[error("num_threads is {num_threads}: expected 1 to {MAX_THREADS}, or none for all cores")]
    NumThreads { num_threads: usize },

    #[error("the thread pool could not be started: {reason}; set num_threads=1 to run without one")]
    ThreadPool { reason: String },

    #[error(
        "merge {rank} joins token {id}: expected ids 0 to {}, the tokens defined before it; \
         merges must be in the order in which they were learnt, and num_symbols the one of training",
        defined - 1
    )]
    UndefinedToken {
        rank: usize,
        id: i64,
        defined: usize,
    },

    #[error(
        "merge {rank} makes the symbols that token {first} already has: expected every token to have \
         symbols of its own; remove the repeated merge"
    )]
    DuplicateToken { rank: usize, first: u32 },

    #[error(
        "merge {rank} takes the vocabulary over {limit} {unit}: expected less; \
         train with a smaller max_token_length or fewer merges"
    )]
    VocabularyTooLarge {
        rank: usize,
        limit: usize,
        unit: &'static str,
    },

    #[error("there is no token {id}: expected 0 to {}", vocab_size - 1)]
    TokenId { id: i64, vocab_size: usize },

    #[error(
        "the quantisation range is [{low}, {high}]: expected finite low <= high at a finite distance"
    )]
    Range { low: f64, high: f64 },

    #[error(
        "signal[{}] is {value}: expected finite values; clean or interpolate the recording before quantising it",
        position.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
    )]
    NotFinite { position: Vec<usize>, value: f64 },

    #[error(
        "the filter has {b} numbers in b, {a} in a and {zi} in zi: expected at least one in b and in a, two in one \
         of them, and in zi one less than in the longer, as scipy.signal.lfilter_zi(b, a) gives"
    )]
    FilterShape { b: usize, a: usize, zi: usize },

    #[error("a[0] of the filter is {value}: expected a finite number other than 0")]
    LeadingCoefficient { value: f64 },

    #[error(
        "the wavelet has {taps} numbers: expected an even count, the low-pass filter of an orthogonal wavelet \
         such as pywt.Wavelet('db6').dec_lo"
    )]
    WaveletTaps { taps: usize },

    #[error("levels is {levels}: expected 1 to {limit}")]
    Levels { levels: usize, limit: usize },

    #[error(
        "the signal has {samples} samples: expected at least {least} for {step}; give a longer signal, or leave \
         the step out"
    )]
    SignalTooShort {
        samples: usize,
        least: usize,
        step: String,
    },

    #[error(
        "{bytes} bytes more do not fit into memory: expected a shorter signal or fewer num_samples"
    )]
    Memory { bytes: usize },

    #[error("{option} is {got:?}: expected one of {expected:?}")]
    UnknownName {
        option: &'static str,
        got: String,
        expected: &'static [&'static str],
    },
}

impl Error {
    /// The same error, saying which of several items it concerns.
    #[must_use]
    pub fn in_item(self, what: &'static str, index: usize) -> Self {
        Self::Item {
            what,
            index,
            source: Box::new(self),
        }
    }

    pub(crate) fn filter_shape(b: &[f64], a: &[f64], zi: &[f64]) -> Self {
        Self::FilterShape {
            b: b.len(),
            a: a.len(),
            zi: zi.len(),
        }
    }

    /// A position in flattened rows as row and column.
    pub(crate) fn in_rows_of(self, columns: usize) -> Self {
        match self {
            Self::NotFinite { position, value } if columns > 0 => Self::NotFinite {
                position: position
                    .iter()
                    .flat_map(|flat| [flat / columns, flat % columns])
                    .collect(),
                value,
            },
            error => error,
        }
    }
}
