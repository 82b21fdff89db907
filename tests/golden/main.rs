//! Parity with reference numbers of tiny models: by transformers, and for NeMo by a NumPy program of its own.
//!
//! `PTUNE_GOLDEN=DIR cargo test --release --test golden -- --nocapture` runs every folder of DIR that has
//! `golden.safetensors` beside a Hugging Face checkpoint or a `model.nemo`: `input_ids` [B,T] padded on the right,
//! `attention_mask`, `labels` (the decoder's for a T5; [B,T] with -100 outside of the answer for a GPT),
//! `virtual_prompt` [P,D] in front of the embedded input, `logits`, `loss` (mean over labels that are not -100) and
//! `grad_virtual_prompt`. It prints the largest difference of logits, loss and gradient, relative to the largest
//! number of each. Without the variable it runs the repository's own small ones, `tests/golden/fixtures`, whose
//! `make.py` and `make_megatron.py` made them.

#![expect(clippy::print_stdout, reason = "the numbers are what this test is for")]
#![expect(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

mod generation;
mod training;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, Var};
use ptune::model::{Engine, LanguageModel, LmInputs, LoadOptions, Rows};
use ptune::tensors::TensorSource;
use ptune::tensors::safetensors::SafetensorsFile;

/// Largest difference allowed, relative to the largest number.
const TOLERANCE: f64 = 1e-4;
/// Label of a position without a loss.
const NO_LABEL: i64 = -100;

fn folders() -> Vec<PathBuf> {
    let root = ptune::sys::env_vars::get("PTUNE_GOLDEN").unwrap_or_else(|| {
        println!("PTUNE_GOLDEN is not set: running tests/golden/fixtures");
        format!("{}/tests/golden/fixtures", env!("CARGO_MANIFEST_DIR"))
    });
    let mut folders: Vec<PathBuf> = fs_err::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("golden.safetensors").is_file())
        .collect();
    folders.sort();
    assert!(!folders.is_empty(), "no golden folder in {root}");
    folders
}

/// `model.nemo` in a golden folder, or the folder itself, which is then of Hugging Face.
fn checkpoint(folder: &Path) -> PathBuf {
    let nemo = folder.join("model.nemo");
    if nemo.is_file() {
        nemo
    } else {
        folder.to_owned()
    }
}

/// A golden folder in the packed layout.
struct Case {
    model: LanguageModel,
    tokens: Tensor,
    virtual_prompt: Var,
    /// For every packed position, its row in `cat([tokens, virtual_prompt])`.
    splice: Vec<u32>,
    rows: Rows,
    decoder_ids: Vec<u32>,
    decoder_rows: Rows,
    loss_positions: Vec<u32>,
    labels: Vec<u32>,
    /// Reference logits of the positions that are no padding, and their place in the packed layout.
    logits: Tensor,
    loss: f64,
    gradient: Tensor,
}

impl Case {
    fn read(folder: &Path) -> Self {
        Self::read_with(folder, &checkpoint(folder))
    }

    /// The numbers of `folder` and the model at `model`.
    fn read_with(folder: &Path, model: &Path) -> Self {
        let cpu = Device::Cpu;
        let model = LanguageModel::load(model, &LoadOptions::default()).unwrap();
        let golden = SafetensorsFile::open(&folder.join("golden.safetensors")).unwrap();
        let matrix = |name: &str| -> Vec<Vec<i64>> {
            let tensor = golden.load(name, &cpu).unwrap();
            tensor.to_dtype(DType::I64).unwrap().to_vec2().unwrap()
        };
        let floats = |name: &str| {
            golden
                .load(name, &cpu)
                .unwrap()
                .to_dtype(DType::F32)
                .unwrap()
        };
        let (ids, mask, labels) = (
            matrix("input_ids"),
            matrix("attention_mask"),
            matrix("labels"),
        );
        let virtual_prompt = floats("virtual_prompt");
        let virtual_count = virtual_prompt.dims()[0];

        let (mut flat_ids, mut splice, mut lengths) = (vec![], vec![], vec![]);
        let total: i64 = mask.iter().flatten().sum();
        for (ids, mask) in ids.iter().zip(&mask) {
            splice.extend((0..virtual_count).map(|k| (total as usize + k) as u32));
            let length = mask.iter().sum::<i64>() as usize;
            for &id in &ids[..length] {
                splice.push(flat_ids.len() as u32);
                flat_ids.push(id as u32);
            }
            lengths.push(virtual_count + length);
        }
        let rows = Rows::new(lengths);

        // The reference has a rectangle of logits; ours are packed.
        let reference = floats("logits"); // [B, T, C]
        let (mut decoder_ids, mut decoder_lengths) = (vec![], vec![]);
        let (mut loss_positions, mut flat_labels, mut kept) = (vec![], vec![], vec![]);
        let is_t5 = matches!(model, LanguageModel::T5(_));
        for (row, labels) in labels.iter().enumerate() {
            let reference = reference.get(row).unwrap();
            if is_t5 {
                let mut previous = 0;
                for &label in labels {
                    decoder_ids.push(previous);
                    previous = label.max(0) as u32;
                    if label != NO_LABEL {
                        loss_positions.push(decoder_ids.len() as u32 - 1);
                        flat_labels.push(label as u32);
                    }
                }
                decoder_lengths.push(labels.len());
                kept.push(reference);
            } else {
                let range = rows.range(row);
                for (place, &label) in labels.iter().enumerate() {
                    if label != NO_LABEL {
                        loss_positions.push((range.start + virtual_count + place - 1) as u32);
                        flat_labels.push(label as u32);
                    }
                }
                kept.push(reference.narrow(0, 0, range.len()).unwrap());
            }
        }
        Self {
            tokens: model.embed_tokens(&flat_ids).unwrap(),
            model,
            virtual_prompt: Var::from_tensor(&virtual_prompt).unwrap(),
            splice,
            rows,
            decoder_ids,
            decoder_rows: Rows::new(decoder_lengths),
            loss_positions,
            labels: flat_labels,
            logits: Tensor::cat(&kept, 0).unwrap(),
            loss: f64::from(
                floats("loss")
                    .flatten_all()
                    .unwrap()
                    .to_vec1::<f32>()
                    .unwrap()[0],
            ),
            gradient: floats("grad_virtual_prompt"),
        }
    }

    fn embeddings(&self, virtual_prompt: &Tensor) -> Tensor {
        let index = Tensor::new(self.splice.as_slice(), &Device::Cpu).unwrap();
        let pool = Tensor::cat(&[&self.tokens, virtual_prompt], 0).unwrap();
        pool.index_select(&index, 0).unwrap() // [N, H]
    }

    fn with_inputs<T>(&self, virtual_prompt: &Tensor, work: impl FnOnce(&LmInputs<'_>) -> T) -> T {
        let weights = vec![1.0 / self.labels.len() as f32; self.labels.len()];
        work(&LmInputs {
            embeddings: &self.embeddings(virtual_prompt),
            trained_positions: None,
            rows: &self.rows,
            decoder_ids: &self.decoder_ids,
            decoder_rows: Some(&self.decoder_rows),
            loss_positions: &self.loss_positions,
            labels: &self.labels,
            weights: &weights,
        })
    }

    fn loss(&self, virtual_prompt: &Tensor, engine: Engine) -> Tensor {
        self.with_inputs(virtual_prompt, |inputs| {
            self.model.loss_with(inputs, engine)
        })
        .unwrap()
    }

    fn gradient(&self, engine: Engine) -> (f64, Tensor) {
        let loss = self.loss(&self.virtual_prompt, engine);
        let store = loss.backward().unwrap();
        let gradient = store
            .get(&self.virtual_prompt)
            .expect("the gradient reaches the prompt");
        (
            f64::from(loss.to_scalar::<f32>().unwrap()),
            gradient.clone(),
        )
    }
}

/// Largest difference, relative to the largest number of `expected`.
fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.dims(), expected.dims());
    let largest = |tensor: Tensor| {
        tensor
            .abs()
            .unwrap()
            .max_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap()
    };
    f64::from(largest((found - expected).unwrap())) / f64::from(largest(expected.clone()))
}

#[test]
fn logits_loss_and_gradient_are_those_of_the_reference() {
    for folder in folders() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let case = Case::read(&folder);
        for engine in [Engine::Fused, Engine::Reference] {
            let found = case
                .with_inputs(&case.virtual_prompt, |inputs| {
                    case.model.logits(inputs, engine)
                })
                .unwrap();
            let logits = difference(&found, &case.logits);
            let (found, gradient) = case.gradient(engine);
            let loss = (found - case.loss).abs() / case.loss.abs();
            let gradient = difference(&gradient, &case.gradient);
            println!(
                "{name} ({engine:?}): logits {logits:.1e}, loss {loss:.1e}, gradient {gradient:.1e}"
            );
            assert!(
                logits < TOLERANCE && loss < TOLERANCE && gradient < TOLERANCE,
                "{name} ({engine:?}) differs by more than {TOLERANCE}"
            );
        }
    }
}

/// Runs the conversion job on `model`; what it wrote, or why it would not.
fn convert(model: &Path, results: &Path, format: &str) -> Result<PathBuf, String> {
    let section = format!(
        "run: {{results_dir: {}, nemo_file_name: model.nemo}}\n\
         model: {{checkpoint_folder: {}, output_format: {format}, output_tensor_model_parallel_size: 1, \
         output_pipeline_model_parallel_size: 1, verify: true}}\n",
        results.display(),
        model.display()
    );
    fs_err::create_dir_all(results).unwrap();
    let config = results.join("job.yaml");
    fs_err::write(&config, section).unwrap();
    ptune::worker::run(ptune::schema::WorkerJob::Conversion, &config)
        .map_err(|error| format!("{error:#}"))?;
    Ok(results.join(match format {
        "nemo" => "results/model.nemo",
        _ => "results/model",
    }))
}

#[test]
fn a_model_converted_there_and_back_gives_the_numbers_of_the_reference() {
    let mut compared = 0;
    for folder in folders() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let work = tempfile::tempdir().unwrap();
        let is_nemo = checkpoint(&folder).is_file();
        let formats = if is_nemo {
            ["hugging_face", "nemo"]
        } else {
            ["nemo", "hugging_face"]
        };
        let mut model = checkpoint(&folder);
        for (step, format) in formats.into_iter().enumerate() {
            model = match convert(&model, &work.path().join(step.to_string()), format) {
                Ok(model) => model,
                Err(reason) => {
                    assert!(
                        reason.contains("has no such model"),
                        "{name} to {format}: {reason}"
                    );
                    println!("{name} to {format}: {}", reason.replace('\n', " "));
                    break;
                }
            };
            let case = Case::read_with(&folder, &model);
            let found = case
                .with_inputs(&case.virtual_prompt, |inputs| {
                    case.model.logits(inputs, Engine::Fused)
                })
                .unwrap();
            let columns = case.logits.dim(1).unwrap();
            let is_padded = found.dim(1).unwrap() > columns;
            let logits = difference(&found.narrow(1, 0, columns).unwrap(), &case.logits);
            let (found, gradient) = case.gradient(Engine::Fused);
            let loss = (found - case.loss).abs() / case.loss.abs();
            let gradient = difference(&gradient, &case.gradient);
            println!(
                "{name} to {format}: logits {logits:.1e}, loss {loss:.1e}, gradient {gradient:.1e}"
            );
            assert!(logits < TOLERANCE, "{name} to {format}");
            // NeMo's softmax runs over the rows that pad a table too, and these tables of a few rows are mostly padding.
            assert!(
                is_padded || (loss < TOLERANCE && gradient < TOLERANCE),
                "{name} to {format}"
            );
            compared += 1;
        }
    }
    assert!(compared >= 8, "{compared} conversions");
}

#[test]
fn the_gradient_agrees_with_finite_differences_and_reaches_every_virtual_token() {
    for folder in folders() {
        let case = Case::read(&folder);
        let (_, gradient) = case.gradient(Engine::Fused);
        let (count, width) = gradient.dims2().unwrap();
        let rows: Vec<Vec<f32>> = gradient.to_vec2().unwrap();
        assert!(
            rows.iter().all(|row| row.iter().any(|&g| g != 0.0)),
            "a virtual token gets no gradient in {}",
            folder.display()
        );
        // Along the gradient itself and along single coordinates, by differences; a ReLU's corners
        // cost some per cent.
        let largest = rows.iter().flatten().fold(0.0_f32, |a, &b| a.max(b.abs()));
        let slope = |direction: &Tensor, step: f64| -> f64 {
            let at = |sign: f64| {
                let moved = (case.virtual_prompt.as_tensor()
                    + (direction * (sign * step)).unwrap())
                .unwrap();
                f64::from(case.loss(&moved, Engine::Fused).to_scalar::<f32>().unwrap())
            };
            // Of fourth order, so that the step can be large against the rounding of the loss.
            (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * step)
        };
        let squared = f64::from(
            gradient
                .sqr()
                .unwrap()
                .sum_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap(),
        );
        let direction = (&gradient / squared.sqrt()).unwrap();
        let along = slope(&direction, 1e-2);
        assert!(
            (along - squared.sqrt()).abs() < 3e-2 * squared.sqrt(),
            "{}: slope {along} along a gradient of length {}",
            folder.display(),
            squared.sqrt()
        );
        for (token, channel) in [(0, 0), (count / 2, width / 2), (count - 1, width - 1)] {
            let mut one = vec![0.0_f32; count * width];
            one[token * width + channel] = 1.0;
            let one = Tensor::from_vec(one, (count, width), &Device::Cpu).unwrap();
            let found = slope(&one, 2e-2);
            let expected = f64::from(rows[token][channel]);
            assert!(
                (found - expected).abs() < 5e-2 * f64::from(largest),
                "{}: difference {found}, gradient {expected} at [{token}, {channel}]",
                folder.display()
            );
        }
    }
}

#[test]
fn two_runs_give_equal_bytes() {
    for folder in folders() {
        let case = Case::read(&folder);
        let run = || {
            let (loss, gradient) = case.gradient(Engine::Fused);
            let numbers: Vec<f32> = gradient.flatten_all().unwrap().to_vec1().unwrap();
            (
                loss.to_bits(),
                numbers.into_iter().map(f32::to_bits).collect::<Vec<_>>(),
            )
        };
        assert_eq!(run(), run(), "{}", folder.display());
    }
}

/// `tests/cases/distributed/make.py` saves the tensors of this folder with `torch.distributed.checkpoint`.
#[test]
fn a_distributed_checkpoint_gives_the_numbers_of_the_same_model_in_ranks() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let folder = tests.join("golden/fixtures/nemo_gpt_core_groups_tp2_pp2");
    let expected = Case::read(&folder);
    let logits = |case: &Case| -> Vec<Vec<f32>> {
        let logits = case.with_inputs(&case.virtual_prompt, |inputs| {
            case.model.logits(inputs, Engine::Fused)
        });
        logits.unwrap().to_vec2().unwrap()
    };
    for name in ["stacked.nemo", "whole.nemo"] {
        let case = Case::read_with(&folder, &tests.join("cases/distributed").join(name));
        assert_eq!(logits(&case), logits(&expected), "{name}");
        let (loss, gradient) = case.gradient(Engine::Fused);
        let (expected_loss, expected_gradient) = expected.gradient(Engine::Fused);
        assert_eq!(loss.to_bits(), expected_loss.to_bits(), "{name}");
        assert!(difference(&gradient, &expected_gradient) == 0.0, "{name}");
    }
}
