//! `prompts.json`: how the tuned virtual tokens stand to the frozen model's vocabulary: their norms beside those of word
//! embeddings, and the words nearest to each by cosine.

use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use indexmap::IndexMap;
use serde::Serialize;

use super::frozen_model::FrozenModel;
use crate::prompt::PromptTable;
use crate::sys::atomic_file;

/// Name of the file.
pub(super) const FILE: &str = "prompts.json";
/// Words told for each virtual token.
const NEAREST: usize = 5;
/// Words compared at once.
const CHUNK: usize = 8192;
/// Virtual tokens looked at in all, so that a large table does not hold a job up.
const MOST_TOKENS: usize = 2000;

#[derive(Serialize)]
struct Health {
    vocabulary: Vocabulary,
    tasks: IndexMap<String, Vec<VirtualToken>>,
}

#[derive(Serialize)]
struct Vocabulary {
    size: usize,
    norm_p5: f32,
    norm_median: f32,
    norm_p95: f32,
}

#[derive(Serialize)]
struct VirtualToken {
    norm: f32,
    nearest: Vec<Word>,
}

#[derive(Clone, Serialize)]
struct Word {
    token: String,
    cosine: f32,
}

/// Writes the file into `folder`.
pub(super) fn write(folder: &Path, table: &PromptTable, frozen: &FrozenModel) -> Result<()> {
    let mut text = serde_json::to_string(&examine(table, frozen)?)?;
    text.push('\n');
    atomic_file::write(&folder.join(FILE), text)?;
    Ok(())
}

fn examine(table: &PromptTable, frozen: &FrozenModel) -> Result<Health> {
    let size = frozen.tokenizer.vocab_size().min(frozen.model.vocab_size());
    let mut left = MOST_TOKENS;
    let mut tasks: Vec<(&str, Tensor)> = vec![];
    for (task, rows) in table.iter() {
        let rows = rows.to_device(&Device::Cpu)?.to_dtype(DType::F32)?; // [V, H]
        if rows.dim(0)? <= left {
            left -= rows.dim(0)?;
            tasks.push((task, rows));
        }
    }
    let task_norms = tasks
        .iter()
        .map(|(_, rows)| norms(rows))
        .collect::<Result<Vec<_>>>()?;
    let mut best: Vec<Vec<Vec<(f32, u32)>>> = task_norms
        .iter()
        .map(|norms| vec![vec![]; norms.len()])
        .collect();
    let mut word_norms = Vec::with_capacity(size);
    for first in (0..size).step_by(CHUNK) {
        let ids: Vec<u32> = (first..size.min(first + CHUNK))
            .map(|id| id as u32)
            .collect();
        let words = frozen.model.embed_tokens(&ids)?.detach();
        let words = words.to_device(&Device::Cpu)?.to_dtype(DType::F32)?; // [W, H]
        let of_words = norms(&words)?;
        for (task, (_, rows)) in tasks.iter().enumerate() {
            let products: Vec<Vec<f32>> = rows.matmul(&words.t()?)?.to_vec2()?; // [V, W]
            for (token, products) in products.iter().enumerate() {
                let scale = task_norms[task][token];
                let nearest = &mut best[task][token];
                for ((&product, &norm), &id) in products.iter().zip(&of_words).zip(&ids) {
                    let cosine = product / (norm * scale).max(f32::MIN_POSITIVE);
                    if nearest.len() == NEAREST && cosine <= nearest[NEAREST - 1].0 {
                        continue;
                    }
                    let place = nearest.partition_point(|other| other.0 >= cosine);
                    nearest.insert(place, (cosine, id));
                    nearest.truncate(NEAREST);
                }
            }
        }
        word_norms.extend(of_words);
    }
    word_norms.sort_by(f32::total_cmp);
    let quantile = |share: f64| {
        let place = share * word_norms.len().saturating_sub(1) as f64;
        word_norms
            .get(place.round() as usize)
            .copied()
            .unwrap_or(0.0)
    };
    let tasks = tasks
        .iter()
        .enumerate()
        .map(|(task, (name, _))| {
            let tokens = task_norms[task].iter().zip(&best[task]);
            let tokens = tokens.map(|(&norm, nearest)| VirtualToken {
                norm,
                nearest: nearest
                    .iter()
                    .map(|&(cosine, id)| Word {
                        token: readable(frozen.tokenizer.id_to_token(id).as_deref(), id),
                        cosine,
                    })
                    .collect(),
            });
            ((*name).to_owned(), tokens.collect())
        })
        .collect();
    Ok(Health {
        vocabulary: Vocabulary {
            size,
            norm_p5: quantile(0.05),
            norm_median: quantile(0.5),
            norm_p95: quantile(0.95),
        },
        tasks,
    })
}

/// [N, H] -> the norm of each row.
fn norms(rows: &Tensor) -> Result<Vec<f32>> {
    Ok(rows.sqr()?.sum(1)?.sqrt()?.to_vec1()?)
}

/// A token with the signs that tokenizers write for a blank replaced.
fn readable(token: Option<&str>, id: u32) -> String {
    token.map_or_else(
        || format!("#{id}"),
        |token| token.replace(['\u{2581}', '\u{120}'], "␣"),
    )
}
