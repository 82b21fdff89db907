//! `ptune inspect PATH`: what a checkpoint or a file of prompts holds.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::inspect;

#[derive(Debug, Args)]
pub(super) struct InspectArguments {
    /// A .nemo, a Hugging Face or PEFT folder, safetensors, a torch checkpoint, a NumPy file or a tokenizer
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// Hash files, tasks and listed tensors, which reads every number
    #[arg(long)]
    hash: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn inspect(arguments: &InspectArguments) -> Result<i32> {
    let options = inspect::Options {
        tensors: arguments.tensors,
        hash: arguments.hash,
    };
    let report = inspect::inspect(&arguments.path, options)?;
    let mut stdout = std::io::stdout().lock();
    if arguments.json {
        writeln!(stdout, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        write!(stdout, "{report}")?;
    }
    Ok(0)
}
