//! The frozen base model of a job, its tokenizer, and what its kind means for the data.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::{DType, Device};

use super::tasks::RowFacts;
use crate::data::dataset::Architecture;
use crate::diag::Diagnostic;
use crate::model::{LanguageModel, LoadOptions};
use crate::quickstart;
use crate::tensors::nemo::CONFIG_MEMBER;
use crate::tensors::nemo::NEMO_2_WAY_OUT;
use crate::tensors::nemo_files::NemoFiles;
use crate::tokenize::Tokenizer;

/// A loaded base model.
pub(super) struct FrozenModel {
    /// The model.
    pub(super) model: LanguageModel,
    /// Its tokenizer.
    pub(super) tokenizer: Tokenizer,
    /// How a T5's rows were written in its pretraining.
    pub(super) habits: Habits,
}

/// What a T5 expects around its rows, where the configuration leaves it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Habits {
    /// The decoder starts with the padding token, not with BOS.
    pub(super) decoder_starts_with_pad: bool,
    /// `<extra_id_0>` ends the input and begins the answer.
    pub(super) sentinel: bool,
}

impl Habits {
    /// T5 of Hugging Face: the decoder starts with the padding token, and fine-tuning leaves the sentinels out.
    pub(super) const HUGGING_FACE: Self = Self {
        decoder_starts_with_pad: true,
        sentinel: false,
    };

    /// A T5 that NeMo trained starts with BOS and answers behind a sentinel. One that was converted from Hugging Face
    /// keeps its ways; its tokenizer's section tells it apart.
    pub(super) fn of_nemo(files: &NemoFiles) -> Self {
        let text = files.read_text(CONFIG_MEMBER).unwrap_or_default();
        let config: serde_yaml::Value = serde_yaml::from_str(&text).unwrap_or_default();
        if config["tokenizer"]["add_sentinel_tokens_first"] == serde_yaml::Value::Bool(true) {
            return Self::HUGGING_FACE;
        }
        Self {
            decoder_starts_with_pad: false,
            sentinel: true,
        }
    }
}

impl FrozenModel {
    /// Loads the model at `path`: a `.nemo` or the folder of one, a Hugging Face folder, or `builtin:quickstart`.
    ///
    /// `tokenizer_path` replaces the tokenizer that comes with the model.
    pub(super) fn load(
        path: &Path,
        tokenizer_path: Option<&Path>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let started = std::time::Instant::now();
        let options = LoadOptions {
            dtype: Some(dtype),
            device: device.clone(),
        };
        let loading = || format!("loading the frozen model from {}", path.display());
        let tokenizer_or =
            |own: &dyn Fn() -> Result<Tokenizer>| tokenizer_path.map_or_else(own, tokenizer_at);
        let (model, tokenizer, habits) = match resolve(path)? {
            Base::HuggingFace(folder) => {
                let (model, tokenizer) = rayon::join(
                    || LanguageModel::from_hugging_face(folder.path(), &options),
                    || tokenizer_or(&|| Tokenizer::from_folder(folder.path())),
                );
                let model = model.with_context(loading)?;
                (model, tokenizer, Habits::HUGGING_FACE)
            }
            Base::Nemo(files) => {
                let (model, tokenizer) = rayon::join(
                    || LanguageModel::from_nemo(&files, &options),
                    || tokenizer_or(&|| tokenizer_of(&files)),
                );
                let model = model.with_context(loading)?;
                (model, tokenizer, Habits::of_nemo(&files))
            }
        };
        let tokenizer =
            tokenizer.with_context(|| format!("loading the tokenizer of {}", path.display()))?;
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
        Ok(Self {
            model,
            tokenizer,
            habits,
        })
    }

    /// Its shape.
    pub(super) fn architecture(&self) -> Architecture {
        match self.model {
            LanguageModel::Gpt(_) => Architecture::Gpt,
            LanguageModel::T5(_) => Architecture::T5,
        }
    }

    /// How its rows become ids.
    pub(super) fn row_facts(&self) -> RowFacts {
        RowFacts {
            architecture: self.architecture(),
            max_positions: self.model.max_positions(),
            habits: self.habits,
            pseudo_token_ids_start: self.pseudo_token_ids_start(),
        }
    }

    /// First id that stands for a virtual token: beyond every id of the tokenizer and the model.
    pub(super) fn pseudo_token_ids_start(&self) -> u32 {
        self.tokenizer.vocab_size().max(self.model.vocab_size()) as u32
    }
}

/// What a path is the base model of.
pub(super) enum Base {
    HuggingFace(Folder),
    Nemo(NemoFiles),
}

/// A folder, and where it is only unpacked for us, what keeps it alive.
pub(super) enum Folder {
    Theirs(PathBuf),
    Unpacked(tempfile::TempDir),
}

impl Folder {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Theirs(path) => path,
            Self::Unpacked(folder) => folder.path(),
        }
    }
}

pub(super) fn tokenizer_at(path: &Path) -> Result<Tokenizer> {
    if path.is_dir() {
        Tokenizer::from_folder(path)
    } else {
        Tokenizer::from_file(path)
    }
}

/// The tokenizer inside of an archive.
pub(super) fn tokenizer_of(files: &NemoFiles) -> Result<Tokenizer> {
    if files.path().is_dir() && files.contains("tokenizer.json") {
        return Tokenizer::from_folder(files.path());
    }
    // What a Hugging Face folder with nothing but a `tokenizer.json` was converted to: NeMo would ask transformers for it,
    // and the archive has a copy.
    let text = files.read_text(CONFIG_MEMBER)?;
    let config: serde_yaml::Value = serde_yaml::from_str(&text).unwrap_or_default();
    let asks_transformers = config["tokenizer"]["library"].as_str() == Some("huggingface");
    if asks_transformers && files.contains("tokenizer.json") {
        let folder = tempfile::tempdir().context("unpacking the tokenizer")?;
        for name in files.names() {
            if Path::new(name).extension().is_some_and(|end| end == "json") && !name.contains('/') {
                fs_err::write(folder.path().join(name), files.read(name)?)?;
            }
        }
        return Tokenizer::from_folder(folder.path());
    }
    Tokenizer::from_nemo_files(files)
}

pub(super) fn resolve(path: &Path) -> Result<Base> {
    if quickstart::is_builtin(path) {
        let folder = quickstart::unpack_model(path)?;
        return Ok(Base::HuggingFace(Folder::Unpacked(folder)));
    }
    if path.join("config.json").is_file() {
        return Ok(Base::HuggingFace(Folder::Theirs(path.to_owned())));
    }
    let refuse = |found: &str| {
        Diagnostic::configuration(format!("`language_model_path` {found}: {}", path.display()))
            .note("expected a `.nemo` base model, or a Hugging Face folder with config.json, tokenizer.json and model.safetensors")
            .hint("prompt_learning.model.language_model_path=/path/to/model.nemo")
    };
    if !path.exists() {
        return Err(refuse("does not exist").into());
    }
    if NemoFiles::is_nemo(path) {
        let files = NemoFiles::open(path).map_err(|error| Diagnostic::job(error.to_string()))?;
        return Ok(Base::Nemo(files));
    }
    Err(if path.is_file() {
        refuse("is a file and no .nemo")
    } else if NemoFiles::is_nemo_2(path) {
        refuse("has neither config.json nor model_config.yaml").note(NEMO_2_WAY_OUT)
    } else {
        refuse("has neither config.json nor model_config.yaml")
    }
    .into())
}
