//! Throughput on one thread, on noisy simulated ECGs: `cargo bench`.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use rust_bpe::{Algorithm, Bpe, Corpus, Error, Quantizer, TrainOptions, train};

const NUM_SYMBOLS: usize = 26;
const NUM_MERGES: usize = 3500;
const NUM_RECORDS: usize = 180;
const LEADS: usize = 12;
const SAMPLES: usize = 2500;

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

    let bpe = Bpe::new(merges, NUM_SYMBOLS).unwrap();
    for algorithm in [Algorithm::Greedy, Algorithm::Bpe] {
        let start = Instant::now();
        let ids = bpe.encode_batch(&records, algorithm, Some(1)).unwrap();
        let rate = symbols as f64 / start.elapsed().as_secs_f64() / 1e6;
        let tokens: usize = ids.iter().map(Vec::len).sum();
        let compression = symbols as f64 / tokens as f64;
        println!("encode {algorithm:?}: {rate:.0} MB/s, {compression:.2} symbols per token");
    }

    let signal: Vec<f32> = (0..SAMPLES * LEADS)
        .map(|_| random.normal() as f32)
        .collect();
    let quantizer = Quantizer::new(-3.0, 3.0, NUM_SYMBOLS).unwrap();
    let start = Instant::now();
    for _ in 0..NUM_RECORDS {
        std::hint::black_box(quantizer.quantize(std::hint::black_box(&signal)).unwrap());
    }
    let rate = symbols as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("quantize: {rate:.0} million values per second");
}

/// Twelve leads of one beat shape, each with its own height, over wander and noise.
fn record(random: &mut Random) -> Vec<u8> {
    let quantizer = Quantizer::new(-1.5, 2.0, NUM_SYMBOLS).unwrap();
    let period = 180.0 + 60.0 * random.uniform();
    let mut values = Vec::new();
    for _ in 0..LEADS {
        let height = 0.4 + random.uniform();
        let phase = random.uniform();
        for sample in 0..SAMPLES {
            let time = sample as f64 / period + phase;
            let wander = 0.1 * (time * 0.7).sin();
            values.push(height * beat(time.fract()) + wander + 0.02 * random.normal());
        }
    }
    quantizer.quantize(&values).unwrap()
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
