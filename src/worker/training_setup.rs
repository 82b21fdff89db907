//! From the section's keys to the optimizer, the schedule and the options of a training.

use anyhow::Result;

use super::frozen_model::FrozenModel;
use crate::data::dataset::Dataset;
use crate::diag::Diagnostic;
use crate::prompt::init;
use crate::schema::{
    Amount, ClipAlgorithm, Epsilon, Monitored, OptimSection, OptimizerName, PolicyName, Precision,
    PromptLearning, TimeLimit, canonical_metric,
};
use crate::sys::env_vars;
use crate::train::clip::Clip;
use crate::train::fit::{KeepBest, ValidationBatches, ValidationTimes};
use crate::train::loss_scale::LossScaleOptions;
use crate::train::metrics::{Console, JsonLines, MetricSink, TensorBoard};
use crate::train::monitor::{EarlyStopping, Monitor};
use crate::train::schedule::{LearningRate, Policy};
use crate::train::{AdafactorConfig, AdamConfig, FitOptions, OptimizerConfig, SgdConfig};

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

/// Numbers that shape a training over these rows.
pub(super) fn fit_options(
    section: &PromptLearning,
    train: &Dataset,
    validation: Option<&Dataset>,
) -> Result<FitOptions> {
    let (trainer, model) = (&section.trainer, &section.model);
    let steps = section.step_plan(train.examples.len()).ok_or_else(|| {
        Diagnostic::configuration("nothing limits the training")
            .hint("prompt_learning.trainer.max_steps=1000")
    })?;
    let exp_manager = &section.exp_manager;
    let params = &exp_manager.checkpoint_callback_params;
    let validation_batches = ValidationBatches {
        global: model
            .validation_global_batch_size
            .unwrap_or(model.global_batch_size),
        micro: model
            .validation_micro_batch_size
            .unwrap_or(model.micro_batch_size),
    };
    let validation_rows = validation.map_or(0, |dataset| {
        let rows = dataset.examples.len();
        validation_rows(section, rows, validation_batches.global)
    });
    let clip = match (trainer.gradient_clip_val, trainer.gradient_clip_algorithm) {
        (None, _) => Clip::Off,
        (Some(limit), ClipAlgorithm::Norm) => Clip::Norm(limit),
        (Some(limit), ClipAlgorithm::Value) => Clip::Value(limit),
    };
    let seconds = |limit: Option<TimeLimit>| limit.map(|limit| limit.seconds as f64);
    Ok(FitOptions {
        max_steps: steps.total as u64,
        max_seconds: seconds(trainer.max_time),
        max_seconds_per_run: seconds(exp_manager.max_time_per_run),
        micro_batch_size: model.micro_batch_size,
        validation_batches,
        validation_rows,
        validate: ValidationTimes {
            interval: steps.validation_interval as u64,
            within_epoch: matches!(trainer.val_check_interval, Amount::Share(_)),
            epoch_steps: steps.epoch as u64,
            every_n_epochs: trainer.check_val_every_n_epoch as u64,
        },
        log_every_n_steps: trainer.log_every_n_steps as u64,
        clip,
        loss_scale: (trainer.precision == Precision::Float16).then_some(LossScaleOptions {
            init_scale: model.native_amp_init_scale,
            growth_interval: model.native_amp_growth_interval,
            hysteresis: model.hysteresis,
        }),
        early_stopping: early_stopping(section, validation.is_some())?,
        monitor: monitor(measured_value(&params.monitor)?),
        checkpoints: exp_manager.create_checkpoint_callback,
        save_best_model: params.save_best_model && exp_manager.create_checkpoint_callback,
        // A job that Slurm starts again must not begin anew, or it would never end.
        resume_if_exists: exp_manager.resume_if_exists
            || env_vars::get(env_vars::SLURM_RESTART_COUNT).is_some(),
        start_from: trainer.resume_from_checkpoint.clone(),
        save_every_seconds: params
            .train_time_interval
            .map_or(600.0, |time| time.seconds as f64),
        save_every_n_steps: params
            .every_n_train_steps
            .filter(|steps| *steps > 0)
            .map(|steps| steps as u64),
        keep: (exp_manager.create_checkpoint_callback && params.save_top_k != 0).then(|| {
            KeepBest {
                filename: params
                    .filename
                    .clone()
                    .unwrap_or_else(|| format!("{{{}:.3f}}-{{step}}", canonical(&params.monitor))),
                most: usize::try_from(params.save_top_k).ok(),
            }
        }),
    })
}

/// Rows of each validation: all, without a last smaller batch where that is asked for, or those of so many batches.
fn validation_rows(section: &PromptLearning, rows: usize, batch_size: usize) -> usize {
    let batch_size = batch_size.max(1);
    let whole = if section.model.validation_drop_last && rows >= batch_size {
        rows / batch_size * batch_size
    } else {
        rows
    };
    let limit = section.trainer.limit_val_batches;
    let batches = limit.steps(whole.div_ceil(batch_size));
    whole.min(batches.saturating_mul(batch_size))
}

fn canonical(name: &str) -> String {
    canonical_metric(name).map_or_else(|_| name.to_owned(), |known| known.name.to_owned())
}

fn measured_value(name: &str) -> Result<Monitored, Diagnostic> {
    canonical_metric(name).map_err(Diagnostic::configuration)
}

fn monitor(known: Monitored) -> Monitor {
    Monitor {
        name: known.name.to_owned(),
        higher_is_better: known.higher_is_better,
    }
}

fn early_stopping(section: &PromptLearning, validates: bool) -> Result<Option<EarlyStopping>> {
    let exp_manager = &section.exp_manager;
    let early = &exp_manager.early_stopping_callback_params;
    if !exp_manager.create_early_stopping_callback {
        return Ok(None);
    }
    let known = measured_value(&early.monitor)?;
    if known.of_validation && !validates {
        let title = format!(
            "early stopping watches `{}`, and there are no validation rows",
            early.monitor
        );
        if early.strict {
            return Err(Diagnostic::configuration(title)
                .hint("prompt_learning.model.data.validation_ds=[rows.jsonl]")
                .hint("prompt_learning.exp_manager.create_early_stopping_callback=False")
                .into());
        }
        tracing::warn!("{title}: it does nothing");
        return Ok(None);
    }
    Ok(Some(EarlyStopping {
        monitor: monitor(known),
        patience: early.patience as u64,
        min_delta: early.min_delta.abs(),
        verbose: early.verbose,
        check_finite: early.check_finite,
        stopping_threshold: early.stopping_threshold,
        divergence_threshold: early.divergence_threshold,
    }))
}

/// The score that `model.validation_metric` names.
fn headline(section: &PromptLearning) -> Option<String> {
    let model = &section.model;
    let known = canonical_metric(&model.validation_metric).ok()?;
    model
        .report_validation_metric
        .then(|| known.name.to_owned())
}

/// Where the numbers of the run go.
pub(super) fn sinks(
    section: &PromptLearning,
    max_steps: u64,
    steps_done: u64,
) -> Result<Vec<Box<dyn MetricSink>>> {
    let log_dir = section.log_dir();
    let mut sinks: Vec<Box<dyn MetricSink>> = vec![
        Box::new(Console::new(max_steps, steps_done, headline(section))),
        Box::new(JsonLines::open(&log_dir.join("metrics.jsonl"), steps_done)?),
    ];
    if section.exp_manager.create_tensorboard_logger {
        sinks.push(Box::new(TensorBoard::create(&log_dir, steps_done)?));
    }
    Ok(sinks)
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
    let exp_manager = &section.exp_manager;
    if exp_manager.create_wandb_logger {
        let folder = section.log_dir();
        let project = exp_manager.wandb_logger_kwargs.project.as_ref();
        let project = project.map_or(String::new(), |project| format!(" --project {project}"));
        tracing::warn!(
            "`exp_manager.create_wandb_logger`: nothing is sent to Weights & Biases; the metrics are in {} and in TensorBoard's \
             files beside it, which `wandb sync --sync-tensorboard{project} {}` sends",
            folder.join("metrics.jsonl").display(),
            folder.display()
        );
    }
    let params = &exp_manager.checkpoint_callback_params;
    let trained_only = !section.validates();
    let unused = [
        (
            "exp_manager.summary_writer_kwargs",
            exp_manager.summary_writer_kwargs.is_some(),
            "TensorBoard's files stand in the log folder",
        ),
        (
            "exp_manager.checkpoint_callback_params.save_last",
            !params.save_last,
            "the last state is always kept, so that a stopped run can be gone on with",
        ),
        (
            "exp_manager.checkpoint_callback_params.save_nemo_on_train_end",
            params.save_nemo_on_train_end,
            "the prompts stand at `model.nemo_path`, and nowhere else",
        ),
        (
            "model.report_validation_metric",
            section.model.report_validation_metric && trained_only,
            "there are no validation rows",
        ),
        (
            "model.save_nemo_on_validation_end",
            section.model.save_nemo_on_validation_end && trained_only,
            "there are no validation rows",
        ),
    ];
    for (key, is_set, why) in unused {
        if is_set {
            tracing::warn!("`{key}`: {why}");
        }
    }
}
