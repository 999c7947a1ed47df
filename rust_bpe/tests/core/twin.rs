//! The definitions, written as plainly as possible: recount everything, rewrite everything.

use std::collections::HashMap;

use rust_bpe::Pair;

pub fn train(
    records: &[Vec<u8>],
    num_merges: usize,
    num_symbols: usize,
    max_token_length: usize,
) -> Vec<Pair> {
    let mut corpus: Vec<Vec<u32>> = records.iter().map(|record| widen(record)).collect();
    let mut lengths = vec![1; num_symbols];
    let mut merges = Vec::new();
    for rank in 0..num_merges {
        let mut counts: HashMap<Pair, usize> = HashMap::new();
        for ids in &corpus {
            for pair in ids.windows(2) {
                *counts.entry((pair[0], pair[1])).or_default() += 1;
            }
        }
        let length = |pair: Pair| lengths[pair.0 as usize] + lengths[pair.1 as usize];
        let best = counts
            .into_iter()
            .filter(|&(pair, _)| length(pair) <= max_token_length)
            .min_by_key(|&(pair, count)| (std::cmp::Reverse(count), pair));
        let Some((pair, _)) = best else { break };
        lengths.push(length(pair));
        for ids in &mut corpus {
            *ids = replace(ids, pair, (num_symbols + rank) as u32);
        }
        merges.push(pair);
    }
    merges
}

pub fn encode_bpe(merges: &[Pair], num_symbols: usize, symbols: &[u8]) -> Vec<u32> {
    let mut ids = widen(symbols);
    for (rank, &pair) in merges.iter().enumerate() {
        ids = replace(&ids, pair, (num_symbols + rank) as u32);
    }
    ids
}

pub fn encode_greedy(merges: &[Pair], num_symbols: usize, symbols: &[u8]) -> Vec<u32> {
    let tokens = tokens(merges, num_symbols);
    let mut rest = symbols;
    let mut ids = Vec::new();
    while !rest.is_empty() {
        let (id, token) = tokens
            .iter()
            .enumerate()
            .filter(|(_, token)| rest.starts_with(token))
            .max_by_key(|(_, token)| token.len())
            .unwrap();
        ids.push(id as u32);
        rest = &rest[token.len()..];
    }
    ids
}

pub fn tokens(merges: &[Pair], num_symbols: usize) -> Vec<Vec<u8>> {
    let mut tokens: Vec<Vec<u8>> = (0..num_symbols).map(|symbol| vec![symbol as u8]).collect();
    for &(left, right) in merges {
        tokens.push([&tokens[left as usize][..], &tokens[right as usize]].concat());
    }
    tokens
}

fn widen(symbols: &[u8]) -> Vec<u32> {
    symbols.iter().map(|&symbol| symbol.into()).collect()
}

fn replace(ids: &[u32], pair: Pair, id: u32) -> Vec<u32> {
    let mut replaced = Vec::new();
    let mut rest = ids;
    while let Some(&first) = rest.first() {
        let matches = rest.len() > 1 && (first, rest[1]) == pair;
        replaced.push(if matches { id } else { first });
        rest = &rest[if matches { 2 } else { 1 }..];
    }
    replaced
}
