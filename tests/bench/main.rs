//! Speed.
//!
//! `cargo bench` times one training step (forward and backward to the embeddings) of toy models with criterion.
//!
//! `PTUNE_BENCH_MODEL=DIR cargo bench` instead times a real checkpoint (a Hugging Face folder): steps of 8 rows of 280
//! to 300 tokens, of which 100 stand for virtual ones, and for a T5 six decoder tokens a row. It prints seconds a
//! step, tokens a second, the necessary arithmetic over time, and that as a share of a matrix product's speed measured
//! in turn with the steps, since a shared machine is never the same twice. Ratios are what to read.

#![expect(clippy::print_stdout, reason = "numbers are what a bench is for")]

use std::time::Instant;

use candle_core::{Tensor, Var};
use criterion::Criterion;
use ptune::model::config::StackConfig;
use ptune::model::{LanguageModel, LmInputs, LoadOptions, ModelConfig, Rows, toy};
use ptune::sys::rng::SeededRng;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A packed batch of random ids.
struct Batch {
    embeddings: Var,
    rows: Rows,
    decoder_ids: Vec<u32>,
    decoder_rows: Option<Rows>,
    loss_positions: Vec<u32>,
    labels: Vec<u32>,
    weights: Vec<f32>,
}

impl Batch {
    /// Rows of `shortest..=longest` tokens; each has a loss on 6 positions.
    fn random(model: &LanguageModel, rows: usize, shortest: usize, longest: usize) -> Self {
        let mut rng = SeededRng::new(1, 0);
        let lengths: Vec<usize> = (0..rows)
            .map(|_| shortest + rng.below(longest - shortest + 1))
            .collect();
        let rows = Rows::new(lengths);
        let mut ids = |count: usize| -> Vec<u32> {
            (0..count)
                .map(|_| rng.below(model.vocab_size()) as u32)
                .collect()
        };
        let embeddings = model
            .embed_tokens(&ids(rows.total()))
            .expect("ids in range");
        let (decoder_ids, decoder_rows, loss_positions) = match model {
            LanguageModel::T5(_) => {
                let decoder = Rows::new(vec![6; rows.count()]);
                let total = decoder.total();
                (ids(total), Some(decoder), (0..total as u32).collect())
            }
            LanguageModel::Gpt(_) => {
                let positions = rows
                    .ranges()
                    .iter()
                    .flat_map(|row| row.end as u32 - 6..row.end as u32);
                (vec![], None, positions.collect::<Vec<u32>>())
            }
        };
        let labels = ids(loss_positions.len());
        Self {
            embeddings: Var::from_tensor(&embeddings).expect("a tensor of the CPU"),
            weights: vec![1.0 / loss_positions.len() as f32; loss_positions.len()],
            rows,
            decoder_ids,
            decoder_rows,
            loss_positions,
            labels,
        }
    }

    fn forward(&self, model: &LanguageModel) -> Tensor {
        let inputs = LmInputs {
            embeddings: &self.embeddings,
            trained_positions: None,
            rows: &self.rows,
            decoder_ids: &self.decoder_ids,
            decoder_rows: self.decoder_rows.as_ref(),
            loss_positions: &self.loss_positions,
            labels: &self.labels,
            weights: &self.weights,
        };
        model.loss(&inputs).expect("a valid batch")
    }

    fn step(&self, model: &LanguageModel) -> Tensor {
        let store = self
            .forward(model)
            .backward()
            .expect("a differentiable loss");
        store.get(&self.embeddings).expect("a gradient").clone()
    }

    /// Multiplications and additions that a step cannot do without: twice each weight of the layers for each position
    /// that passes it, forward and backward to the input; attention; the head where there is a loss.
    fn necessary_flop(&self, model: &LanguageModel) -> f64 {
        let positions = self.rows.total() as f64;
        let squares: f64 = self.rows.lengths().iter().map(|&t| (t * t) as f64).sum();
        let losses = self.loss_positions.len() as f64;
        let vocabulary = (model.vocab_size() * model.hidden_size()) as f64;
        let layers = match model {
            LanguageModel::Gpt(gpt) => {
                let c = &gpt.config;
                let (queries, keys) = (c.heads * c.head_size, c.key_value_heads * c.head_size);
                let up = if c.gated { 2 } else { 1 };
                let weights =
                    c.hidden_size * (2 * queries + 2 * keys + (up + 1) * c.feed_forward_size);
                // Causal attention needs half of the scores; two products forward, four backward.
                let attention = squares * (6 * queries) as f64;
                c.layers as f64 * (positions * (4 * weights) as f64 + attention)
            }
            LanguageModel::T5(t5) => {
                let c = &t5.config;
                let sizes = |stack: &StackConfig| {
                    let inner = stack.heads * stack.head_size;
                    let up = if stack.gated { 2 } else { 1 };
                    let feed_forward = (up + 1) * c.hidden_size * stack.feed_forward_size;
                    (inner, 4 * c.hidden_size * inner + feed_forward)
                };
                let (inner, layer) = sizes(&c.encoder);
                let encoder = positions * (4 * layer) as f64 + squares * (12 * inner) as f64;
                let (inner, layer) = sizes(&c.decoder);
                let cross = positions * (8 * c.hidden_size * inner) as f64;
                let decoder = losses * (4 * (layer + 2 * c.hidden_size * inner)) as f64;
                c.encoder.layers as f64 * encoder + c.decoder.layers as f64 * (cross + decoder)
            }
        };
        layers + 4.0 * losses * vocabulary
    }
}

fn toys(criterion: &mut Criterion) {
    for (name, config) in [
        ("gpt", ModelConfig::Gpt(toy::gpt_config())),
        ("t5", ModelConfig::T5(toy::t5_config())),
    ] {
        let model = toy::random(config, 1).expect("a valid toy");
        let batch = Batch::random(&model, 8, 40, 60);
        criterion.bench_function(&format!("train step, toy {name}"), |bencher| {
            bencher.iter(|| batch.step(&model));
        });
    }
}

/// Sizes and repeats of the matrix product that everything is compared with.
const PRODUCT: (usize, usize, usize, usize) = (2048, 1024, 1024, 6);
const PRODUCT_FLOP: f64 = (2 * PRODUCT.0 * PRODUCT.1 * PRODUCT.2 * PRODUCT.3) as f64;

/// GFLOP/s of a large matrix product of candle.
fn matrix_product_speed() -> f64 {
    let (m, k, n, repeats) = PRODUCT;
    let numbers = |count| {
        Tensor::new(
            SeededRng::new(2, 0).normals(count, 1.0),
            &candle_core::Device::Cpu,
        )
    };
    let left = numbers(m * k)
        .and_then(|x| x.reshape((m, k)))
        .expect("sizes fit");
    let right = numbers(k * n)
        .and_then(|x| x.reshape((k, n)))
        .expect("sizes fit");
    let start = Instant::now();
    for _ in 0..repeats {
        left.matmul(&right).expect("sizes fit");
    }
    PRODUCT_FLOP / start.elapsed().as_secs_f64() / 1e9
}

fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Largest memory of this process so far, in MB.
fn peak_memory() -> f64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) / 1e3
}

/// Processor seconds of this process so far, all threads together: what a shared machine distorts least.
fn processor_seconds() -> f64 {
    let status = fs_err::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = status.rsplit(") ").next().unwrap_or_default();
    let ticks = after_name
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

fn real(folder: &str) {
    let start = Instant::now();
    let model = LanguageModel::from_hugging_face(folder.as_ref(), &LoadOptions::default())
        .expect("a checkpoint");
    println!(
        "loaded in {:.2} s, {} parameters",
        start.elapsed().as_secs_f64(),
        model.parameter_count()
    );
    let batch = Batch::random(&model, 8, 280, 300);
    let (mut seconds, mut forwards, mut products) = (vec![], vec![], vec![]);
    let (mut processor, mut product_processor) = (0.0, 0.0);
    for round in 0..9 {
        let before = processor_seconds();
        let product = matrix_product_speed();
        let between = processor_seconds();
        let start = Instant::now();
        let loss = batch.forward(&model);
        let forward = start.elapsed().as_secs_f64();
        let store = loss.backward().expect("a differentiable loss");
        let step = start.elapsed().as_secs_f64();
        drop((loss, store));
        if round >= 2 {
            processor += processor_seconds() - between;
            product_processor += between - before;
            seconds.push(step);
            forwards.push(forward);
            products.push(product.midpoint(matrix_product_speed()));
        }
    }
    let (step, forward, product) = (
        median(&mut seconds),
        median(&mut forwards),
        median(&mut products),
    );
    let tokens = (batch.rows.total() + batch.decoder_ids.len()) as f64;
    let flop = batch.necessary_flop(&model);
    println!(
        "{tokens} tokens: {step:.3} s/step (forward {forward:.3}), {:.0} tokens/s, best {:.3} s\n\
         {:.1} GFLOP needed: {:.1} GFLOP/s, {:.0} % of the matrix product's {product:.1} GFLOP/s\n\
         processor time {:.2} s/step: {:.1} GFLOP/s a thread, the matrix product {:.1}\n\
         peak memory {:.0} MB",
        tokens / step,
        seconds[0],
        flop / 1e9,
        flop / step / 1e9,
        100.0 * flop / step / 1e9 / product,
        processor / seconds.len() as f64,
        flop / 1e9 / (processor / seconds.len() as f64),
        PRODUCT_FLOP / 1e9 / (product_processor / seconds.len() as f64),
        peak_memory(),
    );
}

#[expect(unsafe_code, reason = "mimalloc is a C library")]
fn main() {
    // SAFETY: sets one number of the allocator's options, as `src/main.rs` does.
    unsafe { libmimalloc_sys::mi_option_set_default(15, -1) };
    if let Some(folder) = ptune::sys::env_vars::get("PTUNE_BENCH_MODEL") {
        real(&folder);
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    toys(&mut criterion);
    criterion.final_summary();
}
