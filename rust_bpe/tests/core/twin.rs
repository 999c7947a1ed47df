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

/// Numerator, denominator, state after a constant input of 1.
pub type Section = (Vec<f64>, Vec<f64>, Vec<f64>);

#[derive(Clone, Debug)]
pub struct Filter {
    pub sections: Vec<Section>,
    pub padding: usize,
}

pub fn filtfilt(lead: &[f64], filter: &Filter) -> Vec<f64> {
    let (first, last) = (lead[0], lead[lead.len() - 1]);
    let padding = filter.padding;
    let before = (1..=padding).rev().map(|i| 2.0 * first - lead[i]);
    let after = (1..=padding).map(|i| 2.0 * last - lead[lead.len() - 1 - i]);
    let mut extended: Vec<f64> = before.chain(lead.iter().copied()).chain(after).collect();
    for _ in 0..2 {
        let first = extended[0];
        for section in &filter.sections {
            extended = lfilter(&extended, section, first);
        }
        extended.reverse();
    }
    extended[padding..padding + lead.len()].to_vec()
}

fn lfilter(lead: &[f64], (b, a, zi): &Section, first: f64) -> Vec<f64> {
    let mut state: Vec<f64> = zi.iter().map(|zi| zi * first).collect();
    let last = state.len() - 1;
    let step = |&x: &f64| {
        let y = state[0] + b[0] * x;
        for i in 0..last {
            state[i] = state[i + 1] + b[i + 1] * x - a[i + 1] * y;
        }
        state[last] = b[last + 1] * x - a[last + 1] * y;
        y
    };
    lead.iter().map(step).collect()
}

/// Mirrored at the ends: 1 0 | 0 1 2 3 | 3 2.
fn mirrored(lead: &[f64], index: isize) -> f64 {
    let length = lead.len() as isize;
    let index = if index < 0 { -index - 1 } else { index };
    let index = if index < length {
        index
    } else {
        2 * length - 1 - index
    };
    lead[index as usize]
}

pub fn shrink(lead: &[f64], low_pass: &[f64], levels: usize) -> Vec<f64> {
    let taps = low_pass.len();
    let sign = |i: usize| if i.is_multiple_of(2) { -1.0 } else { 1.0 };
    let high_pass: Vec<f64> = (0..taps)
        .map(|i| sign(i) * low_pass[taps - 1 - i])
        .collect();
    let half = |lead: &[f64], filter: &[f64]| -> Vec<f64> {
        let term =
            |o: usize, j: usize| filter[j] * mirrored(lead, (2 * o + 1) as isize - j as isize);
        let outputs = 0..(lead.len() + taps - 1) / 2;
        outputs
            .map(|o| (0..taps).map(|j| term(o, j)).sum())
            .collect()
    };
    let mut coarse = lead.to_vec();
    let mut details = Vec::new();
    for _ in 0..levels {
        details.push(half(&coarse, &high_pass));
        coarse = half(&coarse, low_pass);
    }
    let mut sizes: Vec<f64> = details[levels - 1]
        .iter()
        .map(|detail: &f64| detail.abs())
        .collect();
    sizes.sort_by(f64::total_cmp);
    let threshold = (sizes[sizes.len() / 2] + sizes[(sizes.len() - 1) / 2]) / 2.0 / 0.6745;
    for detail in details.iter().rev() {
        let soft = |&c: &f64| {
            if c.abs() <= 1e-10 {
                0.0
            } else {
                c.signum() * (c.abs() - threshold).max(0.0)
            }
        };
        let detail: Vec<f64> = detail.iter().map(soft).collect();
        // Sample t of the sum over k of coefficient k, spread by the filter that starts at 2 k.
        let spread = |t: usize| -> f64 {
            let term = |k: usize| {
                let tap = (2 * k + 1).checked_sub(t).filter(|&tap| tap < taps);
                tap.map_or(0.0, |tap| {
                    coarse[k] * low_pass[tap] + detail[k] * high_pass[tap]
                })
            };
            (0..detail.len()).map(term).sum()
        };
        coarse = (0..2 * detail.len() + 2 - taps).map(spread).collect();
    }
    coarse[..lead.len()].to_vec()
}

/// Every condition on the second derivatives as one dense equation, solved by elimination with pivots.
pub fn spline(lead: &[f64], num_samples: usize) -> Vec<f64> {
    let n = lead.len();
    let mut rows = vec![vec![0.0; n + 1]; n];
    for (row, at) in [(0, 0), (n - 1, n - 3)] {
        rows[row][at..at + 3].copy_from_slice(&[1.0, -2.0, 1.0]);
    }
    for i in 1..n - 1 {
        rows[i][i - 1..=i + 1].copy_from_slice(&[1.0, 4.0, 1.0]);
        rows[i][n] = 6.0 * (lead[i - 1] - 2.0 * lead[i] + lead[i + 1]);
    }
    let second = solve(rows);
    let value = |k: usize| {
        let t = k as f64 * (n - 1) as f64 / (num_samples - 1).max(1) as f64;
        let i = (t as usize).min(n - 2);
        let u = t - i as f64;
        let slope = lead[i + 1] - lead[i] - (2.0 * second[i] + second[i + 1]) / 6.0;
        lead[i] + u * (slope + u * (second[i] / 2.0 + u * (second[i + 1] - second[i]) / 6.0))
    };
    (0..num_samples).map(value).collect()
}

fn solve(mut rows: Vec<Vec<f64>>) -> Vec<f64> {
    let n = rows.len();
    for column in 0..n {
        let pivot = (column..n)
            .max_by(|&i, &j| rows[i][column].abs().total_cmp(&rows[j][column].abs()))
            .unwrap();
        rows.swap(column, pivot);
        for i in (0..n).filter(|&i| i != column) {
            let above = rows[column].clone();
            let factor = rows[i][column] / above[column];
            for (value, above) in rows[i].iter_mut().zip(above).skip(column) {
                *value -= factor * above;
            }
        }
    }
    (0..n).map(|i| rows[i][n] / rows[i][i]).collect()
}
