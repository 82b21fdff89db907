//! What a tuning is made of, so that a checkpoint is told from those of other runs: the keys of its configuration that
//! decide what is trained and how, and hashes of the rows and of the frozen model.

use anyhow::Result;
use candle_core::{DType, Device};
use indexmap::IndexMap;
use serde::Serialize;
use serde_yaml::Value;
use sha2::{Digest, Sha256};

use super::frozen_model::FrozenModel;
use crate::data::dataset::Dataset;
use crate::schema::{Precision, PromptLearning, VirtualPromptStyle};
use crate::sys::hexadecimal;
use crate::train::RunSettings;

/// Word embeddings looked at to tell one frozen model from another.
const PROBES: usize = 64;
/// Keys of `model.data` that do not change what is learnt; what the rows are is told by a hash.
const FREE_DATA: [&str; 8] = [
    "train_ds",
    "validation_ds",
    "test_ds",
    "num_workers",
    "pin_memory",
    "cache",
    "cache_dir",
    "load_cache",
];

/// The settings of a training with this section over these rows and this model.
pub(super) fn collect(
    section: &PromptLearning,
    train: &Dataset,
    validation: Option<&Dataset>,
    frozen: &FrozenModel,
) -> Result<RunSettings> {
    let mut settings = of_section(section)?;
    let fixed = &mut settings.fixed;
    fixed.insert("rows of model.data.train_ds".into(), rows(train));
    fixed.insert("frozen model".into(), probe(frozen)?);
    settings.free.insert(
        RunSettings::VALIDATION_ROWS.into(),
        validation.map_or("none".to_owned(), rows),
    );
    Ok(settings)
}

/// Those of them that the section alone tells.
pub(super) fn of_section(section: &PromptLearning) -> Result<RunSettings> {
    let (model, trainer) = (&section.model, &section.trainer);
    let mut settings = RunSettings::new();
    let fixed = &mut settings.fixed;
    put(
        fixed,
        "model.virtual_prompt_style",
        &model.virtual_prompt_style,
    )?;
    put(fixed, "model.new_tasks", &model.new_tasks)?;
    put(fixed, "model.seed", &model.seed)?;
    put(fixed, "model.global_batch_size", &model.global_batch_size)?;
    put(fixed, "model.micro_batch_size", &model.micro_batch_size)?;
    put(fixed, "model.optim", &model.optim)?;
    if model.virtual_prompt_style == VirtualPromptStyle::PTuning {
        put(fixed, "model.p_tuning", &model.p_tuning)?;
    } else {
        put(fixed, "model.prompt_tuning", model.initialisation())?;
    }
    for template in &model.task_templates {
        if model.new_tasks.contains(&template.taskname) {
            put(
                fixed,
                &format!("model.task_templates[{}]", template.taskname),
                template,
            )?;
        }
    }
    let mut data = serde_yaml::to_value(&model.data)?;
    if let Some(data) = data.as_mapping_mut() {
        for key in FREE_DATA {
            data.shift_remove(key);
        }
    }
    flatten(fixed, "model.data", &data);
    put(fixed, "trainer.precision", &trainer.precision)?;
    put(
        fixed,
        "trainer.gradient_clip_val",
        &trainer.gradient_clip_val,
    )?;
    put(
        fixed,
        "trainer.gradient_clip_algorithm",
        &trainer.gradient_clip_algorithm,
    )?;
    put(
        fixed,
        "trainer.accumulate_grad_batches",
        &trainer.accumulate_grad_batches,
    )?;
    if trainer.precision == Precision::Float16 {
        put(
            fixed,
            "model.native_amp_init_scale",
            &model.native_amp_init_scale,
        )?;
        put(
            fixed,
            "model.native_amp_growth_interval",
            &model.native_amp_growth_interval,
        )?;
        put(fixed, "model.hysteresis", &model.hysteresis)?;
    }
    put(
        fixed,
        "trainer.limit_train_batches",
        &trainer.limit_train_batches,
    )?;

    let free = &mut settings.free;
    put(free, "trainer.max_steps", &trainer.max_steps)?;
    put(free, "trainer.max_epochs", &trainer.max_epochs)?;
    put(
        free,
        "trainer.val_check_interval",
        &trainer.val_check_interval,
    )?;
    put(
        free,
        "exp_manager.checkpoint_callback_params.monitor",
        &section.exp_manager.checkpoint_callback_params.monitor,
    )?;
    put(
        free,
        "trainer.limit_val_batches",
        &trainer.limit_val_batches,
    )?;
    let early = exp_early_stopping(section)?;
    flatten(free, "exp_manager.early_stopping_callback_params", &early);
    Ok(settings)
}

fn exp_early_stopping(section: &PromptLearning) -> Result<Value> {
    let exp_manager = &section.exp_manager;
    if !exp_manager.create_early_stopping_callback {
        return Ok(Value::Null);
    }
    Ok(serde_yaml::to_value(
        &exp_manager.early_stopping_callback_params,
    )?)
}

fn put(entries: &mut IndexMap<String, String>, key: &str, value: &impl Serialize) -> Result<()> {
    flatten(entries, key, &serde_yaml::to_value(value)?);
    Ok(())
}

/// An entry for each leaf of `value`; lists are one leaf.
fn flatten(entries: &mut IndexMap<String, String>, key: &str, value: &Value) {
    match value {
        Value::Mapping(mapping) => {
            for (name, value) in mapping {
                let name = name.as_str().unwrap_or_default();
                flatten(entries, &format!("{key}.{name}"), value);
            }
        }
        Value::String(text) => {
            entries.insert(format!("`{key}`"), text.clone());
        }
        other => {
            let text = serde_json::to_string(other).unwrap_or_default();
            entries.insert(format!("`{key}`"), text);
        }
    }
}

/// Number and hash of the token ids of all rows.
fn rows(dataset: &Dataset) -> String {
    let mut hash = Sha256::new();
    for example in &dataset.examples {
        hash.update((example.task as u64).to_le_bytes());
        for ids in [Some(&example.input_ids), example.decoder_ids.as_ref()] {
            let ids = ids.map_or(&[][..], Vec::as_slice);
            hash.update((ids.len() as u64).to_le_bytes());
            hash.update(
                ids.iter()
                    .flat_map(|id| id.to_le_bytes())
                    .collect::<Vec<u8>>(),
            );
        }
        let start = example.answer_start.map_or(u64::MAX, |start| start as u64);
        hash.update(start.to_le_bytes());
    }
    format!(
        "{} with hash {}",
        dataset.examples.len(),
        short(&hash.finalize())
    )
}

/// Sizes of the frozen model and a hash of some of its word embeddings, which is the same whatever file they come from
/// and in whatever precision they are held.
fn probe(frozen: &FrozenModel) -> Result<String> {
    let size = frozen.model.vocab_size();
    let ids: Vec<u32> = (0..PROBES)
        .map(|probe| (probe * size.saturating_sub(1) / PROBES) as u32)
        .collect();
    let rows = frozen.model.embed_tokens(&ids)?; // [PROBES, H]
    let rows = rows.to_device(&Device::Cpu)?.to_dtype(DType::BF16)?;
    let rows = rows.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let bytes: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
    Ok(format!(
        "{} numbers, {} words, hash {}",
        frozen.model.parameter_count(),
        size,
        short(&Sha256::digest(bytes))
    ))
}

/// The beginning of a hash is enough to tell two of a handful apart.
fn short(hash: &[u8]) -> String {
    hexadecimal(&hash[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_becomes_an_entry_for_each_key() {
        let mut entries = IndexMap::new();
        put(
            &mut entries,
            "model.optim",
            &crate::schema::OptimSection::default(),
        )
        .unwrap();
        assert_eq!(entries["`model.optim.name`"], "fused_adam");
        assert_eq!(entries["`model.optim.betas`"], "[0.9,0.98]");
        assert_eq!(entries["`model.optim.sched.warmup_steps`"], "50");
    }
}
