//! The trainer in its plainest form, the yardstick of `scripts/benchmark/tokenizer.py`: for every merge one
//! recount of all adjacent pairs and one rewrite of the corpus, on one thread.
//!
//! ```text
//! cargo run --release --example train_plain -- SYMBOLS RECORDS NUM_SYMBOLS NUM_MERGES MAX_TOKEN_LENGTH MERGES
//! ```
//!
//! SYMBOLS is a file of symbols, a byte each. RECORDS is the length of every record, or a text file with one
//! length a line. A pair that would make a token of more than `MAX_TOKEN_LENGTH` symbols is not merged. MERGES
//! is written: a line `left right` for each merge. Seconds and memory go to the standard output, as JSON.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::time::Instant;

use rustc_hash::FxHashMap;

const USAGE: &str =
    "expected: SYMBOLS RECORDS NUM_SYMBOLS NUM_MERGES MAX_TOKEN_LENGTH MERGES; see the file's head";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [
        symbols,
        records,
        num_symbols,
        num_merges,
        max_token_length,
        output,
    ] = &arguments[..]
    else {
        return Err(USAGE.into());
    };
    let symbols = fs::read(symbols)?;
    let lengths = record_lengths(records, symbols.len())?;
    let (num_symbols, num_merges) = (num_symbols.parse()?, num_merges.parse()?);
    let max_token_length = max_token_length.parse()?;
    let baseline = memory("VmRSS:");

    let start = Instant::now();
    let mut corpus = Corpus::new(&symbols, &lengths);
    let merges = corpus.train(num_symbols, num_merges, max_token_length);
    let seconds = start.elapsed().as_secs_f64();

    let mut text = String::new();
    for (left, right) in &merges {
        writeln!(text, "{left} {right}")?;
    }
    fs::write(output, text)?;
    println!(
        r#"{{"seconds": {seconds}, "symbols": {}, "merges": {}, "tokens": {}, "baseline_bytes": {baseline}, "peak_bytes": {}}}"#,
        symbols.len(),
        merges.len(),
        corpus.tokens.len(),
        memory("VmHWM:"),
    );
    Ok(())
}

fn record_lengths(argument: &str, num_symbols: usize) -> Result<Vec<usize>, Box<dyn Error>> {
    let lengths: Vec<usize> = match argument.parse::<usize>() {
        Ok(0) => return Err("a record has at least one symbol".into()),
        Ok(length) => vec![length; num_symbols / length],
        Err(_) => fs::read_to_string(argument)?
            .lines()
            .map(str::parse)
            .collect::<Result<_, _>>()?,
    };
    let sum: usize = lengths.iter().sum();
    if sum != num_symbols {
        return Err(format!("the records have {sum} symbols, the file has {num_symbols}").into());
    }
    Ok(lengths)
}

/// Records one after the other, as tokens.
struct Corpus {
    tokens: Vec<u32>,
    /// Where each record ends.
    ends: Vec<usize>,
}

impl Corpus {
    fn new(symbols: &[u8], lengths: &[usize]) -> Self {
        let mut end = 0;
        let ends = lengths.iter().map(|length| {
            end += length;
            end
        });
        Self {
            ends: ends.collect(),
            tokens: symbols.iter().map(|&symbol| u32::from(symbol)).collect(),
        }
    }

    /// Highest count first, then the smallest left token, then the smallest right one.
    fn train(
        &mut self,
        num_symbols: u32,
        num_merges: usize,
        max_token_length: usize,
    ) -> Vec<(u32, u32)> {
        let mut lengths = vec![1; num_symbols as usize];
        let mut counts = FxHashMap::default();
        let mut merges = Vec::new();
        while merges.len() < num_merges {
            self.count(&mut counts);
            let length = |key| lengths[left(key) as usize] + lengths[right(key) as usize];
            let best = counts
                .iter()
                .filter(|&(&key, _)| length(key) <= max_token_length)
                .max_by_key(|&(&key, &count)| (count, std::cmp::Reverse(key)));
            let Some((&key, _)) = best else { break };
            let new_length = length(key);
            self.replace(key, lengths.len() as u32);
            lengths.push(new_length);
            merges.push((left(key), right(key)));
        }
        merges
    }

    fn count(&self, counts: &mut FxHashMap<u64, u64>) {
        counts.clear();
        let mut start = 0;
        for &end in &self.ends {
            for pair in self.tokens[start..end].windows(2) {
                *counts.entry(key(pair[0], pair[1])).or_insert(0) += 1;
            }
            start = end;
        }
    }

    /// From left to right, in place: a record never gets longer.
    fn replace(&mut self, pair: u64, new: u32) {
        let (mut read, mut written) = (0, 0);
        for end in &mut self.ends {
            while read < *end {
                let token = self.tokens[read];
                let matches = read + 1 < *end && key(token, self.tokens[read + 1]) == pair;
                self.tokens[written] = if matches { new } else { token };
                read += if matches { 2 } else { 1 };
                written += 1;
            }
            *end = written;
        }
        self.tokens.truncate(written);
    }
}

/// Two tokens as one number, which is quicker to hash; smaller where the left one, then the right one, is.
fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

fn left(key: u64) -> u32 {
    (key >> 32) as u32
}

fn right(key: u64) -> u32 {
    key as u32
}

/// Bytes that Linux states for this process in a field of `/proc/self/status`; 0 elsewhere.
fn memory(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
