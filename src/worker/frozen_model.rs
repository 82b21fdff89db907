//! The frozen base model of a job, its tokenizer, and what its kind means for the data.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::{DType, Device};

use crate::data::dataset::Architecture;
use crate::diag::Diagnostic;
use crate::model::{LanguageModel, LoadOptions};
use crate::quickstart;
use crate::tokenize::Tokenizer;

/// A loaded base model.
pub(super) struct FrozenModel {
    /// The model.
    pub(super) model: LanguageModel,
    /// Its tokenizer.
    pub(super) tokenizer: Tokenizer,
}

impl FrozenModel {
    /// Loads the model at `path`: a Hugging Face folder, or `builtin:quickstart`.
    ///
    /// `tokenizer_path` replaces the tokenizer that comes with the model.
    pub(super) fn load(
        path: &Path,
        tokenizer_path: Option<&Path>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let started = std::time::Instant::now();
        // Keeps the unpacked built-in model alive until it is read.
        let (_unpacked, folder) = resolve(path)?;
        let options = LoadOptions {
            dtype: Some(dtype),
            device: device.clone(),
        };
        let model = LanguageModel::from_hugging_face(&folder, &options)
            .with_context(|| format!("loading the frozen model from {}", path.display()))?;
        let tokenizer = match tokenizer_path {
            Some(file) if file.is_dir() => Tokenizer::from_folder(file),
            Some(file) => Tokenizer::from_file(file),
            None => Tokenizer::from_folder(&folder),
        }
        .with_context(|| format!("loading the tokenizer of {}", path.display()))?;
        tracing::info!(
            "frozen model: {} with {:.1} M parameters from {} in {:.1} s",
            match model {
                LanguageModel::Gpt(_) => "GPT",
                LanguageModel::T5(_) => "T5",
            },
            model.parameter_count() as f64 / 1e6,
            path.display(),
            started.elapsed().as_secs_f64()
        );
        Ok(Self { model, tokenizer })
    }

    /// Its shape.
    pub(super) fn architecture(&self) -> Architecture {
        match self.model {
            LanguageModel::Gpt(_) => Architecture::Gpt,
            LanguageModel::T5(_) => Architecture::T5,
        }
    }

    /// First id that stands for a virtual token: beyond every id of the tokenizer and the model.
    pub(super) fn pseudo_token_ids_start(&self) -> u32 {
        self.tokenizer.vocab_size().max(self.model.vocab_size()) as u32
    }
}

fn resolve(path: &Path) -> Result<(Option<tempfile::TempDir>, PathBuf)> {
    if quickstart::is_builtin(path) {
        let folder = quickstart::unpack_model(path)?;
        let path = folder.path().to_owned();
        return Ok((Some(folder), path));
    }
    let refuse = |found: &str| {
        Diagnostic::configuration(format!("`language_model_path` {found}: {}", path.display()))
            .note("expected a Hugging Face folder with config.json, tokenizer.json and model.safetensors")
            .hint("prompt_learning.model.language_model_path=/path/to/the/folder")
    };
    if path.join("config.json").is_file() {
        return Ok((None, path.to_owned()));
    }
    Err(if !path.exists() {
        refuse("does not exist")
    } else if path.extension().is_some_and(|end| end == "nemo")
        || path.join("model_config.yaml").is_file()
    {
        refuse("is a NeMo checkpoint, which this version does not read yet")
    } else if path.is_file() {
        refuse("is a file")
    } else {
        refuse("has no config.json")
    }
    .into())
}
