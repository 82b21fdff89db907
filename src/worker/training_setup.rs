//! From the section's keys to the optimizer, the schedule and the options of a training.

use anyhow::Result;

use super::frozen_model::FrozenModel;
use crate::diag::Diagnostic;
use crate::prompt::init;
use crate::schema::{Epsilon, OptimSection, OptimizerName, PolicyName, PromptLearning};
use crate::train::schedule::{LearningRate, Policy};
use crate::train::{AdafactorConfig, AdamConfig, OptimizerConfig, SgdConfig};

/// The rule that `model.optim.name` names.
pub(super) fn optimizer(optim: &OptimSection) -> OptimizerConfig {
    let adam = AdamConfig {
        betas: (optim.betas[0], optim.betas[1]),
        eps: match optim.eps {
            Some(Epsilon::One(eps) | Epsilon::Two(eps, _)) => eps,
            None => 1e-8,
        },
        weight_decay: optim.weight_decay,
    };
    match optim.optimizer().unwrap_or(OptimizerName::AdamW) {
        OptimizerName::AdamW => OptimizerConfig::AdamW(adam),
        OptimizerName::Adam => OptimizerConfig::Adam(adam),
        OptimizerName::Sgd => OptimizerConfig::Sgd(SgdConfig {
            momentum: optim.momentum,
            dampening: optim.dampening,
            nesterov: optim.nesterov,
            weight_decay: optim.weight_decay,
        }),
        OptimizerName::Adafactor => {
            let usual = AdafactorConfig::default();
            OptimizerConfig::Adafactor(AdafactorConfig {
                eps: match optim.eps {
                    None => usual.eps,
                    Some(Epsilon::One(first)) => (first, usual.eps.1),
                    Some(Epsilon::Two(first, second)) => (first, second),
                },
                clip_threshold: optim.clip_threshold,
                decay_rate: optim.decay_rate,
                beta1: optim.beta1,
                weight_decay: optim.weight_decay,
                scale_parameter: optim.scale_parameter,
                relative_step: optim.relative_step,
                warmup_init: optim.warmup_init,
            })
        }
    }
}

/// The learning rate of each of `max_steps` steps, in passes of `epoch_steps`.
pub(super) fn schedule(
    optim: &OptimSection,
    max_steps: u64,
    epoch_steps: u64,
    frozen: &FrozenModel,
) -> Result<LearningRate> {
    let unit = if optim.lr_relative_to_embeddings {
        let scale = init::embedding_scale(&frozen.model)?;
        tracing::info!(
            "learning rate {:.4}: {} times the scale of the word embeddings, {scale:.4}",
            optim.lr * scale,
            optim.lr
        );
        scale
    } else {
        1.0
    };
    let lr = optim.lr * unit;
    let Some(sched) = &optim.sched else {
        return Ok(LearningRate::constant(lr));
    };
    let max_steps = sched.max_steps.map_or(max_steps, |steps| steps as u64);
    let constant_steps = sched.constant(max_steps);
    let policy = match sched.policy().unwrap_or(PolicyName::Cosine) {
        PolicyName::Constant => Policy::Constant,
        PolicyName::Cosine => Policy::Cosine { constant_steps },
        PolicyName::Linear => Policy::Linear,
        PolicyName::Polynomial => Policy::Polynomial {
            power: sched.power,
            cycle: sched.cycle,
        },
        PolicyName::Square => Policy::Square,
        PolicyName::SquareRoot => Policy::SquareRoot,
        PolicyName::InverseSquareRoot => Policy::InverseSquareRoot,
        PolicyName::T5InverseSquareRoot => Policy::T5InverseSquareRoot { constant_steps },
        PolicyName::Noam => Policy::Noam {
            d_model: sched.d_model.unwrap_or(0.0),
        },
        PolicyName::NoamHold => Policy::NoamHold {
            decay_rate: sched.decay_rate,
        },
        PolicyName::Steps => Policy::Steps {
            step_size: sched.step_size.unwrap_or(0) as u64,
            gamma: sched.gamma.unwrap_or(0.1),
        },
        PolicyName::Exponential => Policy::Exponential {
            epoch_steps,
            gamma: sched.gamma.unwrap_or(1.0),
        },
    };
    let rate = LearningRate {
        policy,
        lr,
        min_lr: sched.min_lr * unit,
        warmup_steps: sched.warmup(max_steps),
        hold_steps: sched.hold(max_steps),
        max_steps,
    };
    rate.checked().map_err(|error| {
        Diagnostic::configuration(error.to_string())
            .hint(
                "prompt_learning.model.optim.sched.warmup_steps=0 prompt_learning.model.optim.sched.constant_steps=0",
            )
            .into()
    })
}

/// Says which keys are set and change nothing, so that nobody waits for what they promise.
pub(super) fn warn_of_unused(section: &PromptLearning) {
    let optim = &section.model.optim;
    for key in optim.unused_keys() {
        tracing::warn!("`model.optim.{key}`: `{}` does not look at it", optim.name);
    }
    if let Some(sched) = &optim.sched {
        for key in sched.unused_keys() {
            tracing::warn!(
                "`model.optim.sched.{key}`: `{}` does not look at it",
                sched.name
            );
        }
        if optim.relative_step {
            tracing::warn!(
                "`model.optim.relative_step`: the learning rate follows from the step alone, and `lr` and `sched` are not looked at"
            );
        }
    }
}
