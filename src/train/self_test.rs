//! Before the first step: does the gradient reach what shall be trained? And after a bad one: where did it go wrong?

use std::cell::RefCell;

use anyhow::{Context, Result};
use candle_core::{DType, Tensor, Var};
use indexmap::IndexMap;

use super::options::FitParts;
use super::step::LossContext;
use crate::data::dataset::{Dataset, Example};
use crate::diag::Diagnostic;
use crate::prompt::VirtualPrompts;

/// Virtual tokens named in a message.
const SHOWN: usize = 10;

/// One backward pass over the shortest row of each task of `tasks`: every virtual token must get a gradient, and a
/// finite one.
///
/// # Errors
/// A [`Diagnostic`] that names the virtual tokens, and the layer where numbers stop being finite.
pub fn gradient_reaches_every_virtual_token(
    context: &LossContext<'_>,
    prompts: &VirtualPrompts,
    tasks: &[String],
    train: &Dataset,
    loss_scale: f64,
) -> Result<()> {
    let examples = shortest_of_each(context, tasks, train);
    if examples.is_empty() {
        return Ok(());
    }
    let batch = context.collate(examples.iter().copied());
    let vars: RefCell<IndexMap<String, Var>> = RefCell::default();
    let embeddings = |task: &str| -> Result<Tensor> {
        if let Some(var) = vars.borrow().get(task) {
            return Ok(var.as_tensor().clone());
        }
        let var = Var::from_tensor(&prompts.embeddings(task)?.detach())?; // [V, H]
        let tensor = var.as_tensor().clone();
        vars.borrow_mut().insert(task.to_owned(), var);
        Ok(tensor)
    };
    let loss = context
        .loss_of(&batch, &embeddings, 1.0)?
        .affine(loss_scale, 0.0)?;
    let gradients = loss.backward()?;
    let (mut dead, mut wild) = (vec![], vec![]);
    for task in tasks {
        let vars = vars.borrow();
        let Some(var) = vars.get(task) else { continue };
        let Some(gradient) = gradients.get(var) else {
            dead.push(format!("all of task `{task}`"));
            continue;
        };
        let sizes: Vec<f64> = gradient.to_dtype(DType::F64)?.abs()?.sum(1)?.to_vec1()?; // [V]
        for (token, size) in sizes.into_iter().enumerate() {
            let name = || format!("{token} of task `{task}`");
            if size == 0.0 {
                dead.push(name());
            } else if !size.is_finite() {
                wild.push(name());
            }
        }
    }
    if !wild.is_empty() && loss_scale <= 1.0 {
        let place = place_of_trouble(context, prompts, &examples)?.unwrap_or_else(|| {
            "all layers give finite numbers: they stop being so in the backward pass".to_owned()
        });
        return Err(Diagnostic::job(
            "the gradient of the virtual tokens is not finite before the first step",
        )
        .note(format!("virtual tokens {}", listed(&wild)))
        .note(place)
        .hint("prompt_learning.trainer.precision=32")
        .into());
    }
    if !dead.is_empty() {
        return Err(Diagnostic::job("some virtual tokens would never be trained: the loss does not depend on them")
            .note(format!("virtual tokens {}", listed(&dead)))
            .note(
                "tried on the shortest row of each task; in a GPT a token has an effect on what follows it alone",
            )
            .hint("put `<|VIRTUAL_PROMPT_k|>` before the answer in `prompt_template`")
            .into());
    }
    tracing::debug!("every virtual token gets a finite gradient");
    Ok(())
}

fn listed(names: &[String]) -> String {
    let shown = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN {
        format!("{shown} and {} more", names.len() - SHOWN)
    } else {
        shown
    }
}

/// The shortest example of each of `tasks`.
fn shortest_of_each<'a>(
    context: &LossContext<'_>,
    tasks: &[String],
    train: &'a Dataset,
) -> Vec<&'a Example> {
    tasks
        .iter()
        .filter_map(|task| {
            train
                .examples
                .iter()
                .filter(|example| context.tasks[example.task].0 == *task)
                .min_by_key(|example| example.input_ids.len())
        })
        .collect()
}

/// Which layer's result is not finite for these rows.
fn place_of_trouble(
    context: &LossContext<'_>,
    prompts: &VirtualPrompts,
    examples: &[&Example],
) -> Result<Option<String>> {
    let embeddings = |task: &str| -> Result<Tensor> { Ok(prompts.embeddings(task)?.detach()) };
    let batch = context.collate(examples.iter().copied());
    let place = context.first_not_finite(&batch, &embeddings)?;
    Ok(place.map(|place| format!("the first numbers that are not finite come from {place}")))
}

/// Why a step's loss or gradient is not finite: the micro-batch and the layer.
pub(super) fn explain(
    parts: &FitParts<'_>,
    indices: &[usize],
    micro_batch_size: usize,
) -> Result<Vec<String>> {
    let mut notes = vec![];
    for rows in indices.chunks(micro_batch_size.max(1)) {
        let examples: Vec<&Example> = rows
            .iter()
            .map(|index| &parts.train.examples[*index])
            .collect();
        let Some(place) = place_of_trouble(&parts.context, parts.prompts, &examples)? else {
            continue;
        };
        let (first, last) = (
            examples.first().context("a batch without rows")?,
            examples.last().context("a batch without rows")?,
        );
        notes.push(place);
        notes.push(format!(
            "in a micro-batch of {} rows, from {}:{} to {}:{}",
            examples.len(),
            first.file.display(),
            first.line,
            last.file.display(),
            last.line
        ));
        break;
    }
    if notes.is_empty() {
        notes.push(
            "all layers give finite numbers: they stop being so in the loss or the backward pass"
                .to_owned(),
        );
    }
    Ok(notes)
}
