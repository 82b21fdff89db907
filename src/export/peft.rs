//! Folders of Hugging Face PEFT: `adapter_config.json` and `adapter_model.safetensors` with one tensor,
//! `prompt_embeddings` [N·S, D] (N virtual tokens, S stacks of the model that get their own, D hidden size).
//!
//! Written as type PROMPT_TUNING: what p-tuning's network made is a table too, and PEFT keeps nothing else of it.
//! Facts are those of PEFT 0.21 (`peft/tuners/prompt_tuning`, `p_tuning`, `multitask_prompt_tuning`).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};

use super::nemo::PromptArchive;
use super::plain::{architecture_of, numbered};
use super::{Architecture, Import, Options, archive_of, broken, one_task, template_in_front};
use crate::diag::Diagnostic;
use crate::schema::TaskTemplateSection;
use crate::sys::atomic_file;
use crate::tensors::TensorSource;
use crate::tensors::safetensors::SafetensorsFile;
use crate::tensors::torch;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// The same as `torch.save` writes it, from before PEFT 0.6.
const OLD_WEIGHTS: &str = "adapter_model.bin";
const ROWS: &str = "prompt_embeddings";
/// The release whose keys are written.
const PEFT_VERSION: &str = "0.21.2";

/// Whether `path` is such a folder.
pub(super) fn is_one(path: &Path) -> bool {
    path.join(CONFIG).is_file()
}

/// Writes one task as an adapter that `PeftModel.from_pretrained` loads.
pub(super) fn write(
    archive: &PromptArchive,
    folder: &Path,
    options: &Options,
) -> Result<Vec<PathBuf>> {
    let (task, rows) = one_task(archive, options)?; // [V, H]
    let template = template_in_front(archive, task, "PEFT")?;
    let settings = archive.settings()?;
    let architecture = archive.architecture().ok_or_else(|| {
        Diagnostic::job("the archive does not say whether it is for a GPT or a T5")
            .note("`target` of its model_config.yaml is missing or of another kind")
    })?;
    let (virtual_tokens, hidden_size) = rows.dims2()?;
    let base_model = options
        .base_model
        .clone()
        .unwrap_or_else(|| settings.language_model_path.display().to_string());
    // With one stack, PEFT puts the rows in front of the encoder's input of a T5 and leaves the decoder alone.
    let config = json!({
        "auto_mapping": null,
        "base_model_name_or_path": base_model,
        "inference_mode": true,
        "modules_to_save": null,
        "num_attention_heads": null,
        "num_layers": null,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": virtual_tokens,
        "peft_type": "PROMPT_TUNING",
        "peft_version": PEFT_VERSION,
        // Anything else would make PEFT want the tokenizer of the first values.
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": null,
        "revision": null,
        "task_type": match architecture {
            Architecture::Gpt => "CAUSAL_LM",
            Architecture::T5 => "SEQ_2_SEQ_LM",
        },
        "token_dim": hidden_size,
        "tokenizer_kwargs": null,
        "tokenizer_name_or_path": null,
    });
    let rows = rows.to_dtype(options.dtype.unwrap_or(DType::F32))?;
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let weights = ::safetensors::serialize([(ROWS, &rows)], Some(metadata))
        .context("laying out the adapter's tensor")?;
    let mut text = serde_json::to_string_pretty(&config)?;
    text.push('\n');

    let card = model_card(task, template.as_ref(), &base_model, settings.data.add_bos);
    let files: Vec<PathBuf> = [CONFIG, WEIGHTS, "README.md"]
        .map(|name| folder.join(name))
        .into();
    atomic_file::write(&files[0], text)?;
    atomic_file::write(&files[1], weights)?;
    atomic_file::write(&files[2], card)?;
    Ok(files)
}

/// What PEFT has no key for, and a user of the adapter must know.
fn model_card(
    task: &str,
    template: Option<&TaskTemplateSection>,
    base_model: &str,
    add_bos: bool,
) -> String {
    let mut card = format!(
        "---\nlibrary_name: peft\nbase_model: {}\n---\n\n# Virtual tokens for `{task}`\n\n\
         Tuned with ptune {} and written as a PEFT prompt tuning adapter.\n",
        serde_json::Value::from(base_model),
        env!("CARGO_PKG_VERSION"),
    );
    if let Some(template) = template {
        let text = template
            .prompt_template
            .trim_start()
            .trim_start_matches("<|VIRTUAL_PROMPT_0|>");
        let _ = write!(
            card,
            "\nIt was tuned on texts of this form, which the base model must get behind the virtual tokens:\n\n    {text}\n"
        );
        if let Some(answer) = &template.answer_field {
            let _ = write!(card, "\n`{{{answer}}}` is what the model is to write.\n");
        }
    }
    if add_bos {
        card.push_str(
            "\nThe rows began with BOS, in front of the virtual tokens; PEFT puts everything behind them.\n",
        );
    }
    card
}

/// The keys of `adapter_config.json` that matter here.
#[derive(serde::Deserialize)]
struct Config {
    peft_type: String,
    #[serde(default)]
    task_type: Option<String>,
    #[serde(default)]
    num_virtual_tokens: Option<usize>,
    #[serde(default)]
    base_model_name_or_path: Option<String>,
}

/// Reads an adapter of type PROMPT_TUNING, P_TUNING or MULTITASK_PROMPT_TUNING (each of its tasks by itself).
pub(super) fn read(folder: &Path, import: &Import) -> Result<PromptArchive> {
    let path = folder.join(CONFIG);
    let config: Config = serde_json::from_slice(&fs_err::read(&path)?).map_err(|error| {
        broken(
            &path,
            format!("not the configuration of an adapter: {error}"),
        )
    })?;
    let multitask = match config.peft_type.as_str() {
        "PROMPT_TUNING" | "P_TUNING" => false,
        "MULTITASK_PROMPT_TUNING" => true,
        other => {
            return Err(broken(&path, format!("an adapter of type {other}"))
                .note("only PROMPT_TUNING, P_TUNING and MULTITASK_PROMPT_TUNING are virtual tokens at the model's input")
                .note("prefix tuning changes every layer and LoRA the weights: neither can be said as rows of a prompt table")
                .into());
        }
    };
    let architecture = import
        .architecture
        .or_else(|| architecture_of(config.task_type.as_deref()?))
        .ok_or_else(|| {
            broken(&path, "it does not say which kind of model it is for")
                .note(format!(
                    "task_type is {}",
                    Value::from(config.task_type.clone())
                ))
                .hint("--architecture gpt")
        })?;
    let tensors = Tensors::open(folder)?;
    let rows = tensors.get(ROWS)?;
    let [total, _] = *rows.dims() else {
        return Err(broken(
            folder,
            format!(
                "`{ROWS}` has shape {:?}, expected two dimensions",
                rows.dims()
            ),
        )
        .into());
    };
    // Further rows are for the decoder, and PEFT itself does not use them.
    let virtual_tokens = config.num_virtual_tokens.unwrap_or(total);
    if virtual_tokens == 0 || total % virtual_tokens != 0 {
        return Err(broken(
            folder,
            format!("`{ROWS}` has {total} rows, num_virtual_tokens is {virtual_tokens}"),
        )
        .into());
    }
    let mut tasks = vec![];
    if multitask {
        let columns = tensors.get("prefix_task_cols")?; // [tasks, N·S, ranks]
        let lines = tensors.get("prefix_task_rows")?; // [tasks, ranks, D]
        let scales = columns
            .matmul(lines)
            .with_context(|| format!("joining the tasks of {}", folder.display()))?; // [tasks, N·S, D]
        for (index, scale) in (0..scales.dim(0)?).map(|task| (task, scales.get(task))) {
            let prompt = rows.mul(&scale?)?.narrow(0, 0, virtual_tokens)?;
            tasks.push((numbered(&import.task, index), prompt));
        }
    } else {
        tasks.push((import.task.clone(), rows.narrow(0, 0, virtual_tokens)?));
    }
    let model = import
        .language_model_path
        .clone()
        .or(config.base_model_name_or_path.map(PathBuf::from))
        .unwrap_or_default();
    archive_of(tasks, import, architecture, model)
}

/// An adapter's tensors, as f32.
struct Tensors {
    path: PathBuf,
    by_name: BTreeMap<String, Tensor>,
}

impl Tensors {
    fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(WEIGHTS);
        let old = folder.join(OLD_WEIGHTS);
        let mut by_name = BTreeMap::new();
        if !path.is_file() && old.is_file() {
            let state = torch::read_file(&old).map_err(|error| broken(&old, error))?;
            for (name, value) in state.as_dict().into_iter().flatten() {
                if let Some(tensor) = value.as_tensor() {
                    by_name.insert(name.clone(), tensor.to_dtype(DType::F32)?);
                }
            }
            return Ok(Self { path: old, by_name });
        }
        let file = SafetensorsFile::open(&path).map_err(|error| broken(&path, error))?;
        for name in file.names() {
            let tensor = file
                .load(&name, &Device::Cpu)
                .map_err(|error| broken(&path, error))?;
            by_name.insert(name, tensor.to_dtype(DType::F32)?);
        }
        Ok(Self { path, by_name })
    }

    fn get(&self, name: &str) -> Result<&Tensor, Diagnostic> {
        self.by_name.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
            broken(&self.path, format!("no tensor `{name}`"))
                .note(format!("it holds: {}", names.join(", ")))
        })
    }
}
