//! `ptune generate PROMPTS …`: answers with a finished prompt.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::schema::{Accelerator, InferenceSection, Precision};
use crate::worker::generation::{self, Generation};

/// The answer to one question, or to each row of a file.
///
///   ptune generate results/my_t5 context="Oslo is Norway's capital." question="What is Norway's capital?"
///
///   ptune generate prompt.nemo --model models/my_t5 --input questions.jsonl --output answers.jsonl
///
/// Without a setting of chance (--temperature, --top-k, --top-p) the likeliest token is taken, always.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct GenerateArguments {
    /// A prompt archive, the results folder of a tuning, a PEFT adapter's folder, a .npy or a .pt
    #[arg(value_name = "PROMPTS")]
    prompts: PathBuf,
    /// One question, a text for each field of the task's template
    #[arg(value_name = "FIELD=TEXT")]
    words: Vec<String>,
    /// The base model; that of the tuning where it is not given
    #[arg(long, short, value_name = "PATH")]
    model: Option<PathBuf>,
    /// A tokenizer in place of the model's own
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// The task, where the prompts are for several and a row names none
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// How rows become prompts, such as '<|VIRTUAL_PROMPT_0|>{text}'; that of the tuning where it is not given
    #[arg(long, value_name = "TEXT")]
    template: Option<String>,
    /// Leave the virtual tokens out: the base model alone
    #[arg(long)]
    no_virtual_tokens: bool,
    /// Questions as JSON lines; - is standard input
    #[arg(long, short, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Write here instead of to standard output; a name in .json or .jsonl asks for JSON lines
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// JSON lines: the question's fields and `prediction`
    #[arg(long)]
    json: bool,
    /// Show one answer while it is written, as a terminal is shown it
    #[arg(long)]
    stream: bool,
    /// Most tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_tokens: usize,
    /// Fewest tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_tokens: usize,
    /// Draw tokens by chance; above 1 more evenly, below 1 less
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Draw among so many likeliest tokens
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Draw among the likeliest tokens that hold this much probability
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Fixes what is drawn
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Beam search with so many beams
    #[arg(long, value_name = "N", default_value_t = 1)]
    num_beams: usize,
    /// Of beam search: above 0 favours long answers
    #[arg(
        long,
        value_name = "X",
        default_value_t = 1.0,
        allow_negative_numbers = true
    )]
    length_penalty: f64,
    /// Above 1: tokens that were used become less likely
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    repetition_penalty: f64,
    /// A text that ends an answer; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Begin a GPT's prompt with the beginning-of-text token, or not; as in tuning where it is not given
    #[arg(long, value_name = "true|false")]
    add_bos: Option<bool>,
    /// Also the log-probability of each answer, with --json
    #[arg(long)]
    logprob: bool,
    /// Rows generated for at once
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch_size: usize,
    /// Where the model runs
    #[arg(long, value_enum, default_value = "auto")]
    device: Device,
    /// Number format on a GPU
    #[arg(long, value_enum, default_value = "32")]
    precision: NumberFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Device {
    Auto,
    Cpu,
    Gpu,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NumberFormat {
    #[value(name = "32")]
    Float32,
    #[value(name = "16")]
    Float16,
    Bf16,
}

pub(super) fn generate(arguments: &GenerateArguments) -> Result<i32> {
    let is_json = |path: &PathBuf| {
        path.extension()
            .is_some_and(|end| end == "json" || end == "jsonl")
    };
    let draws =
        arguments.temperature.is_some() || arguments.top_k.is_some() || arguments.top_p.is_some();
    let mut stdout = std::io::stdout();
    let asked = Generation {
        prompts: arguments.prompts.clone(),
        model: arguments.model.clone(),
        tokenizer: arguments.tokenizer.clone(),
        task: arguments.task.clone(),
        template: arguments.template.clone(),
        virtual_tokens: !arguments.no_virtual_tokens,
        words: arguments.words.clone(),
        input: arguments.input.clone(),
        output: arguments.output.clone(),
        json: arguments.json || arguments.output.as_ref().is_some_and(is_json),
        stream: arguments.stream || stdout.is_terminal(),
        inference: InferenceSection {
            greedy: !draws,
            temperature: arguments.temperature.unwrap_or(1.0),
            top_k: arguments.top_k.unwrap_or(0),
            top_p: arguments.top_p.unwrap_or(1.0),
            tokens_to_generate: arguments.max_tokens,
            min_tokens_to_generate: arguments.min_tokens,
            repetition_penalty: arguments.repetition_penalty,
            end_strings: arguments.stop.clone(),
            compute_logprob: arguments.logprob,
            num_beams: arguments.num_beams,
            length_penalty: arguments.length_penalty,
            seed: arguments.seed,
            add_bos: arguments.add_bos,
            ..InferenceSection::default()
        },
        batch_size: arguments.batch_size,
        accelerator: match arguments.device {
            Device::Auto => Accelerator::Auto,
            Device::Cpu => Accelerator::Cpu,
            Device::Gpu => Accelerator::Gpu,
        },
        precision: match arguments.precision {
            NumberFormat::Float32 => Precision::Float32,
            NumberFormat::Float16 => Precision::Float16,
            NumberFormat::Bf16 => Precision::BFloat16,
        },
    };
    generation::run(&asked, &mut stdout)?;
    stdout.flush()?;
    Ok(0)
}
