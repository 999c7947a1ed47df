//! Throughput on one thread, on noisy simulated ECGs: `cargo bench`.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use rust_bpe::{
    Algorithm, Bpe, Corpus, Error, LeadBoundary, Quantizer, SignalEncoding, TrainOptions, train,
};

const NUM_SYMBOLS: usize = 26;
const NUM_MERGES: usize = 3500;
const NUM_RECORDS: usize = 180;
const LEADS: usize = 12;
const SAMPLES: usize = 2500;
const RANGE: (f64, f64) = (-1.5, 2.0);
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Greedy, Algorithm::Bpe];

fn main() {
    let mut random = Random(1);
    let records: Vec<Vec<u8>> = (0..NUM_RECORDS).map(|_| record(&mut random)).collect();
    let symbols: usize = records.iter().map(Vec::len).sum();

    let mut corpus = Corpus::new(NUM_SYMBOLS).unwrap();
    for record in &records {
        corpus.push_record(record).unwrap();
    }
    let options = TrainOptions {
        num_threads: Some(1),
        ..TrainOptions::new(NUM_MERGES)
    };
    let start = Instant::now();
    let merges = train(corpus, &options, |_| Ok::<(), Error>(())).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "train: {} merges on {symbols} symbols in {seconds:.3} s",
        merges.len()
    );

    let seconds = median_seconds(|| Bpe::new(merges.clone(), NUM_SYMBOLS).unwrap());
    println!("Bpe::new: {:.2} ms", 1e3 * seconds);

    let bpe = Bpe::new(merges, NUM_SYMBOLS).unwrap();
    for algorithm in ALGORITHMS {
        let encode = || bpe.encode_batch(&records, algorithm, Some(1)).unwrap();
        let rate = symbols as f64 / median_seconds(encode) / 1e6;
        let tokens: usize = encode().iter().map(Vec::len).sum();
        let compression = symbols as f64 / tokens as f64;
        println!("encode {algorithm:?}: {rate:.0} MB/s, {compression:.2} symbols per token");
    }

    let signals: Vec<Vec<f32>> = (0..NUM_RECORDS).map(|_| signal(&mut random)).collect();
    for algorithm in ALGORITHMS {
        for lead_boundary in [LeadBoundary::Cross, LeadBoundary::Split] {
            let encoding = SignalEncoding {
                algorithm,
                lead_boundary,
            };
            let encode = |signal: &Vec<f32>| bpe.encode_signal(signal, SAMPLES, RANGE, encoding);
            let seconds = median_seconds(|| signals.iter().map(encode).collect::<Vec<_>>());
            let time = 1e6 * seconds / NUM_RECORDS as f64;
            println!("encode_signal {algorithm:?} {lead_boundary:?}: {time:.0} us per record");
        }
    }

    let quantizer = Quantizer::new(RANGE.0, RANGE.1, NUM_SYMBOLS).unwrap();
    let single = &signals[0];
    let double: Vec<f64> = single.iter().copied().map(f64::from).collect();
    let rate = |seconds| single.len() as f64 / seconds / 1e6;
    println!(
        "quantize: {:.0} million float32, {:.0} million float64 per second",
        rate(median_seconds(|| quantizer.quantize(single))),
        rate(median_seconds(|| quantizer.quantize(&double)))
    );
}

fn median_seconds<R>(mut run: impl FnMut() -> R) -> f64 {
    let mut seconds: Vec<f64> = (0..11)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(run());
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn record(random: &mut Random) -> Vec<u8> {
    let quantizer = Quantizer::new(RANGE.0, RANGE.1, NUM_SYMBOLS).unwrap();
    quantizer.quantize(&signal(random)).unwrap()
}

/// Twelve leads of one beat shape, each with its own height, over wander and noise.
fn signal(random: &mut Random) -> Vec<f32> {
    let period = 180.0 + 60.0 * random.uniform();
    let mut values = Vec::new();
    for _ in 0..LEADS {
        let height = 0.4 + random.uniform();
        let phase = random.uniform();
        for sample in 0..SAMPLES {
            let time = sample as f64 / period + phase;
            let wander = 0.1 * (time * 0.7).sin();
            let value = height * beat(time.fract()) + wander + 0.02 * random.normal();
            values.push(value as f32);
        }
    }
    values
}

/// P wave, QRS complex and T wave, as (height, centre, width) in parts of a beat.
fn beat(time: f64) -> f64 {
    [
        (0.12, 0.25, 0.025),
        (-0.1, 0.38, 0.008),
        (1.0, 0.4, 0.01),
        (-0.2, 0.425, 0.01),
        (0.3, 0.65, 0.05),
    ]
    .into_iter()
    .map(|(height, centre, width)| height * (-0.5 * ((time - centre) / width).powi(2)).exp())
    .sum()
}

/// A linear congruential generator: the same corpus everywhere.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The sum of twelve uniform values: variance 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}
