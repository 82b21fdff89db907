//! At the first step: does the gradient reach what shall be trained? And after a bad one: where did it go wrong?

use std::cell::RefCell;

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use indexmap::IndexMap;

use super::options::FitParts;
use super::step::LossContext;
use crate::data::dataset::{Dataset, Example};
use crate::diag::Diagnostic;
use crate::prompt::VirtualPrompts;

/// Virtual tokens named in a message.
const SHOWN: usize = 10;

/// Where the gradient of a step reaches the virtual tokens: the pass through the frozen model ends here, and the rest of
/// the way to what is trained is one more, short pass from here.
#[derive(Default)]
pub(super) struct Gate {
    /// Virtual tokens [V, H] of a task as they come, and as the model gets them.
    tokens: RefCell<IndexMap<String, (Tensor, Var)>>,
}

impl Gate {
    /// The virtual tokens [V, H] of a task for the frozen model.
    pub(super) fn embeddings(&self, prompts: &VirtualPrompts, task: &str) -> Result<Tensor> {
        if let Some((_, var)) = self.tokens.borrow().get(task) {
            return Ok(var.as_tensor().clone());
        }
        let tokens = prompts.embeddings(task)?; // [V, H]
        let var = Var::from_tensor(&tokens.detach())?;
        let given = var.as_tensor().clone();
        self.tokens
            .borrow_mut()
            .insert(task.to_owned(), (tokens, var));
        Ok(given)
    }

    /// A scalar with the gradient of the loss in what the virtual tokens are made of.
    pub(super) fn rest(&self, gradients: &GradStore) -> Result<Option<Tensor>> {
        let mut sum: Option<Tensor> = None;
        for (tokens, var) in self.tokens.borrow().values() {
            let Some(gradient) = gradients.get(var) else {
                continue;
            };
            let part = (tokens * gradient.detach())?.sum_all()?;
            sum = Some(match sum {
                Some(sum) => (sum + part)?,
                None => part,
            });
        }
        Ok(sum)
    }

    /// Adds up the sizes of each virtual token's gradient, for the tasks that were here.
    pub(super) fn add_sizes(&self, gradients: &GradStore, sizes: &mut Sizes) -> Result<()> {
        for (task, (_, var)) in &*self.tokens.borrow() {
            let here: Vec<f64> = match gradients.get(var) {
                Some(gradient) => gradient.to_dtype(DType::F64)?.abs()?.sum(1)?.to_vec1()?,
                None => vec![0.0; var.dims()[0]],
            }; // [V]
            match sizes.get_mut(task) {
                Some(sums) => sums.iter_mut().zip(here).for_each(|(sum, x)| *sum += x),
                None => {
                    sizes.insert(task.clone(), here);
                }
            }
        }
        Ok(())
    }
}

/// How much gradient came to each virtual token of a task.
pub(super) type Sizes = IndexMap<String, Vec<f64>>;

/// Every virtual token of `tasks` must get a gradient, and a finite one. `sizes` are those of the first step; a task that
/// has no row in it is tried on its shortest one.
///
/// # Errors
/// A [`Diagnostic`] that names the virtual tokens, and the layer where numbers stop being finite.
pub(super) fn gradient_reaches_every_virtual_token(
    context: &LossContext<'_>,
    prompts: &VirtualPrompts,
    tasks: &[String],
    train: &Dataset,
    loss_scale: f64,
    mut sizes: Sizes,
) -> Result<()> {
    let absent: Vec<String> = tasks
        .iter()
        .filter(|task| !sizes.contains_key(*task))
        .cloned()
        .collect();
    let examples = shortest_of_each(context, &absent, train);
    if !examples.is_empty() {
        let batch = context.collate(examples.iter().copied());
        let gate = Gate::default();
        let loss = context
            .loss_of(&batch, &|task| gate.embeddings(prompts, task), 1.0)?
            .affine(loss_scale, 0.0)?;
        gate.add_sizes(&loss.backward()?, &mut sizes)?;
    }
    let (mut dead, mut wild) = (vec![], vec![]);
    for (task, sizes) in tasks.iter().filter_map(|task| sizes.get_key_value(task)) {
        for (token, &size) in sizes.iter().enumerate() {
            let name = || format!("{token} of task `{task}`");
            if size == 0.0 {
                dead.push(name());
            } else if !size.is_finite() {
                wild.push(name());
            }
        }
    }
    if !wild.is_empty() && loss_scale <= 1.0 {
        let examples = shortest_of_each(context, tasks, train);
        let place = place_of_trouble(context, prompts, &examples)?.unwrap_or_else(|| {
            "all layers give finite numbers for the shortest rows: they stop being so in the backward pass, or for longer rows"
                .to_owned()
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
                "tried on the rows of the first step; in a GPT a token has an effect on what follows it alone",
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
