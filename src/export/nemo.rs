//! Prompt `.nemo` archives: the table of virtual tokens and the configuration it was tuned with, no base weights.
//!
//! Written in the layout of generation A (NeMo 1.10 to 1.16, also read by later tools): weights are
//! `{prompt_table: {prompt_table.<task>.prompt_embeddings.weight, prompt_table.<task>.indices}}`. Read also: the older
//! flat form, and the cached table of generation B, which has no `indices` (`super::generation_b` writes that layout).

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use indexmap::IndexMap;
use serde_yaml::Value;

use super::{Architecture, generation_b};
use crate::diag::Diagnostic;
use crate::schema::{PromptLearning, PromptLearningModel, TaskTemplateSection, VirtualPromptStyle};
use crate::tensors::nemo::NemoArchive;
use crate::tensors::torch::StateValue;
use crate::yaml::{Key, Node};

const TABLE: &str = "prompt_table";
/// Where generation A's training checkpoints keep the encoder; its loader of finished archives passes over it.
const ENCODER: &str = "prompt_encoder";
const EMBEDDINGS: &str = ".prompt_embeddings.weight";
const INDICES: &str = ".indices";
/// The NeMo release whose layout is written.
const NEMO_VERSION: &str = "1.16.0";

/// The content of a prompt archive.
#[derive(Clone, Debug)]
pub struct PromptArchive {
    /// Task name to virtual tokens [V, H], f32, in the order of the file.
    pub tasks: IndexMap<String, Tensor>,
    /// Text of `model_config.yaml`: the resolved `model` section of the run.
    pub model_config: String,
    /// Parameters of the encoder that made the prompts by their names in `prompt::encoder`, where the archive keeps it:
    /// what training can go on with.
    pub encoder: IndexMap<String, Tensor>,
}

impl PromptArchive {
    /// The archive of a finished run: its `model` section, ready for inference, and its table.
    pub fn from_training<'a>(
        section: &PromptLearning,
        table: impl Iterator<Item = (&'a str, &'a Tensor)>,
        is_t5: bool,
    ) -> Result<Self> {
        let precision = serde_yaml::to_value(section.trainer.precision)?;
        Self::new(section.model.clone(), precision, table, is_t5)
    }

    /// An archive of `table` for inference, with the settings `model`.
    pub fn new<'a>(
        mut model: PromptLearningModel,
        precision: impl Into<Value>,
        table: impl Iterator<Item = (&'a str, &'a Tensor)>,
        is_t5: bool,
    ) -> Result<Self> {
        let tasks: IndexMap<String, Tensor> = table
            .map(|(task, embeddings)| (task.to_owned(), embeddings.clone()))
            .collect();
        model.virtual_prompt_style = VirtualPromptStyle::Inference;
        model.existing_tasks = tasks.keys().cloned().collect();
        model.new_tasks = vec![];
        let mut config = serde_yaml::to_value(&model)?;
        let kind = if is_t5 { ("t5", "T5") } else { ("gpt", "GPT") };
        let entries = config
            .as_mapping_mut()
            .context("the model section is a mapping")?;
        entries.insert("precision".into(), precision.into());
        entries.insert(
            "target".into(),
            format!(
                "nemo.collections.nlp.models.language_modeling.megatron_{}_prompt_learning_model.Megatron{}PromptLearningModel",
                kind.0, kind.1
            )
            .into(),
        );
        entries.insert("nemo_version".into(), NEMO_VERSION.into());
        entries.insert(
            "ptune_version".into(),
            Value::from(env!("CARGO_PKG_VERSION")),
        );
        Ok(Self {
            tasks,
            model_config: yaml_of(&config),
            encoder: IndexMap::new(),
        })
    }

    /// The settings that the archive was tuned with.
    pub fn settings(&self) -> Result<PromptLearningModel> {
        if self.model_config.trim().is_empty() {
            return Ok(PromptLearningModel::default());
        }
        serde_yaml::from_str(&self.model_config)
            .context("reading model_config.yaml of the prompt archive")
    }

    /// The kind of its base model, where `target` says it.
    pub fn architecture(&self) -> Option<Architecture> {
        let config: Value = serde_yaml::from_str(&self.model_config).ok()?;
        let target = config.get("target")?.as_str()?.to_lowercase();
        if target.contains("t5") {
            Some(Architecture::T5)
        } else {
            target.contains("gpt").then_some(Architecture::Gpt)
        }
    }

    /// The same settings with other tasks: those in `tasks`, whose templates are `templates`.
    pub fn with_tasks(
        &self,
        tasks: IndexMap<String, Tensor>,
        templates: Vec<TaskTemplateSection>,
    ) -> Result<Self> {
        let mut config: Value = serde_yaml::from_str(&self.model_config)
            .context("reading model_config.yaml of the prompt archive")?;
        let entries = config
            .as_mapping_mut()
            .context("model_config.yaml is a mapping")?;
        let names: Vec<&String> = tasks.keys().collect();
        entries.insert("existing_tasks".into(), serde_yaml::to_value(names)?);
        entries.insert("new_tasks".into(), Value::Sequence(vec![]));
        entries.insert("task_templates".into(), serde_yaml::to_value(templates)?);
        Ok(Self {
            tasks,
            model_config: yaml_of(&config),
            encoder: IndexMap::new(),
        })
    }

    /// Reads the archive or unpacked folder at `path`.
    ///
    /// # Errors
    /// When it is no `.nemo`, or one without a prompt table (a base model, say).
    pub fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(Diagnostic::configuration(format!(
                "there is no prompt archive at {}",
                path.display()
            ))
            .into());
        }
        let archive =
            NemoArchive::open(path).map_err(|error| Diagnostic::job(error.to_string()))?;
        let table = archive.weights.get(TABLE).unwrap_or(&archive.weights);
        let mut tasks = IndexMap::new();
        for (key, value) in table.as_dict().into_iter().flatten() {
            // `prompt_table.<task>…` in the nested form, `prompt_table.prompt_table.<task>…` in the flat one.
            let mut name = key.as_str();
            while let Some(rest) = name.strip_prefix("prompt_table.") {
                name = rest;
            }
            if let (Some(task), Some(tensor)) = (name.strip_suffix(EMBEDDINGS), value.as_tensor()) {
                if tensor.dims().len() != 2 {
                    return Err(Diagnostic::job(format!(
                        "{}: the virtual tokens of `{task}` have shape {:?}, expected two dimensions",
                        path.display(),
                        tensor.dims()
                    ))
                    .into());
                }
                tasks.insert(task.to_owned(), tensor.to_dtype(DType::F32)?);
            }
        }
        if tasks.is_empty() {
            return Err(Diagnostic::job(format!("{} holds no prompt table", path.display()))
                .note("a prompt archive is what a prompt learning job writes to `model.nemo_path`; it is not a base model")
                .into());
        }
        let mut read = Self {
            tasks,
            encoder: encoder_of(&archive.weights)?,
            model_config: archive.model_config,
        };
        generation_b::fill_zeros(&mut read, path)?;
        Ok(read)
    }

    /// Writes the archive to `path` in one step; equal content gives equal bytes.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut table = IndexMap::new();
        for (task, embeddings) in &self.tasks {
            let virtual_tokens = embeddings.dim(0)?;
            let indices = Tensor::from_vec(
                (0..virtual_tokens as i64).collect::<Vec<_>>(),
                virtual_tokens,
                &Device::Cpu,
            )?;
            let embeddings = embeddings.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
            table.insert(
                format!("{TABLE}.{task}{INDICES}"),
                StateValue::Tensor(indices),
            );
            table.insert(
                format!("{TABLE}.{task}{EMBEDDINGS}"),
                StateValue::Tensor(embeddings),
            );
        }
        let mut weights = IndexMap::from([(TABLE.to_owned(), StateValue::Dict(table))]);
        if !self.encoder.is_empty() {
            let mut encoder = IndexMap::new();
            for (name, tensor) in &self.encoder {
                let tensor = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
                encoder.insert(name.clone(), StateValue::Tensor(tensor.contiguous()?));
            }
            weights.insert(ENCODER.to_owned(), StateValue::Dict(encoder));
        }
        let weights = StateValue::Dict(weights);
        NemoArchive {
            model_config: self.model_config.clone(),
            weights,
        }
        .write(path)?;
        Ok(())
    }
}

/// The encoder's parameters as generation A names them: in one mapping there, in one for each module in generation B.
fn encoder_of(weights: &StateValue) -> Result<IndexMap<String, Tensor>> {
    let mut parameters = IndexMap::new();
    for (module, prefix) in [
        (ENCODER, ""),
        ("embeddings", "embedding."),
        ("lstm_head", "lstm_head."),
        ("mlp_head", "mlp_head."),
        ("tpmlp", ""),
    ] {
        let entries = weights.get(module).and_then(StateValue::as_dict);
        for (name, value) in entries.into_iter().flatten() {
            // A buffer with the numbers 0 to V − 1, not a parameter.
            if let Some(tensor) = value.as_tensor().filter(|_| name != "indices") {
                parameters.insert(format!("{prefix}{name}"), tensor.to_dtype(DType::F32)?);
            }
        }
    }
    Ok(parameters)
}

/// The text of a configuration, as OmegaConf reads it back unchanged.
pub(super) fn yaml_of(config: &Value) -> String {
    crate::yaml::to_yaml(&node_of(config))
}

/// The same value in our own tree, whose emitter writes what OmegaConf reads back unchanged.
fn node_of(value: &Value) -> Node {
    use crate::yaml::Value as Tree;
    Node::computed(match value {
        Value::Null => Tree::Null,
        Value::Bool(value) => Tree::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Tree::Int(integer.into()),
            None => Tree::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Tree::Str(text.clone()),
        Value::Sequence(items) => Tree::List(items.iter().map(node_of).collect()),
        Value::Mapping(entries) => Tree::Map(
            entries
                .iter()
                .filter_map(|(key, value)| {
                    Some((Key::Str(key.as_str()?.to_owned()), node_of(value)))
                })
                .collect(),
        ),
        Value::Tagged(tagged) => return node_of(&tagged.value),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Tensor {
        Tensor::new(&[[1f32, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::Cpu).unwrap()
    }

    #[test]
    fn a_trained_table_is_written_in_nemos_layout_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.nemo");
        let mut section = PromptLearning::default();
        section.model.new_tasks = vec!["squad".into()];
        let archive =
            PromptArchive::from_training(&section, [("squad", &rows())].into_iter(), true).unwrap();
        archive.write(&path).unwrap();

        let raw = NemoArchive::open(&path).unwrap();
        let table = raw.weights.get("prompt_table").unwrap();
        let indices = table
            .get("prompt_table.squad.indices")
            .unwrap()
            .as_tensor()
            .unwrap();
        assert_eq!(indices.to_vec1::<i64>().unwrap(), [0, 1, 2]);
        let read = PromptArchive::open(&path).unwrap();
        assert_eq!(
            read.tasks["squad"].to_vec2::<f32>().unwrap(),
            rows().to_vec2::<f32>().unwrap()
        );
        let config: Value = serde_yaml::from_str(&read.model_config).unwrap();
        assert_eq!(config["virtual_prompt_style"], Value::from("inference"));
        assert_eq!(config["existing_tasks"][0], Value::from("squad"));
        assert_eq!(config["new_tasks"], Value::Sequence(vec![]));
        assert!(
            config["target"]
                .as_str()
                .unwrap()
                .ends_with("MegatronT5PromptLearningModel")
        );
    }

    #[test]
    fn the_flat_form_and_the_form_without_indices_are_read() {
        let folder = tempfile::tempdir().unwrap();
        for key in [
            "prompt_table.a.prompt_embeddings.weight",
            "prompt_table.prompt_table.a.prompt_embeddings.weight",
        ] {
            let path = folder.path().join("p.nemo");
            let weights = StateValue::Dict(IndexMap::from([(
                key.to_owned(),
                StateValue::Tensor(rows()),
            )]));
            NemoArchive {
                model_config: String::new(),
                weights,
            }
            .write(&path)
            .unwrap();
            let read = PromptArchive::open(&path).unwrap();
            assert_eq!(read.tasks.keys().collect::<Vec<_>>(), ["a"], "{key}");
        }
    }

    #[test]
    fn an_encoder_is_kept_where_asked_for_and_found_in_generation_b_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.nemo");
        let mut section = PromptLearning::default();
        section.model.new_tasks = vec!["squad".into()];
        let rows_of_squad = rows();
        let table = [("squad", &rows_of_squad)].into_iter();
        let mut archive = PromptArchive::from_training(&section, table, false).unwrap();
        archive.write(&path).unwrap();
        assert!(PromptArchive::open(&path).unwrap().encoder.is_empty());
        archive.encoder = IndexMap::from([
            ("embedding.weight".to_owned(), rows()),
            ("first.bias".to_owned(), rows()),
        ]);
        archive.write(&path).unwrap();
        let read = PromptArchive::open(&path).unwrap();
        assert_eq!(
            read.encoder.keys().collect::<Vec<_>>(),
            ["embedding.weight", "first.bias"]
        );
        assert_eq!(read.tasks.len(), 1);

        let dict = |entries: &[(&str, StateValue)]| {
            let entries = entries.iter();
            StateValue::Dict(
                entries
                    .map(|(name, value)| ((*name).to_owned(), value.clone()))
                    .collect(),
            )
        };
        let row = || StateValue::Tensor(rows());
        let weights = dict(&[
            (
                "prompt_table",
                dict(&[("prompt_table.a.prompt_embeddings.weight", row())]),
            ),
            ("embeddings", dict(&[("weight", row())])),
            ("mlp_head", dict(&[("0.weight", row()), ("2.bias", row())])),
            ("lstm_head", dict(&[("weight_ih_l0", row())])),
        ]);
        let model_config = String::new();
        NemoArchive {
            model_config,
            weights,
        }
        .write(&path)
        .unwrap();
        let mut names: Vec<_> = PromptArchive::open(&path)
            .unwrap()
            .encoder
            .into_keys()
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "embedding.weight",
                "lstm_head.weight_ih_l0",
                "mlp_head.0.weight",
                "mlp_head.2.bias"
            ]
        );
    }

    #[test]
    fn an_archive_without_a_table_is_named_for_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("base.nemo");
        NemoArchive {
            model_config: String::new(),
            weights: StateValue::Dict(IndexMap::new()),
        }
        .write(&path)
        .unwrap();
        let error = PromptArchive::open(&path).unwrap_err().to_string();
        assert!(error.contains("holds no prompt table"), "{error}");
    }
}
