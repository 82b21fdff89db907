//! The prompt learning job: frozen model and rows in, trained virtual tokens out.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::devices::{self, Role};
use super::frozen_model::FrozenModel;
use super::prompt_health;
use super::report;
use super::run_settings;
use super::starting_prompts;
use super::tasks;
use super::training_setup;
use super::validation_scores::ValidationScores;
use crate::data::dataset::Dataset;
use crate::data::jsonl::Purpose;
use crate::data::sampler::Sampler;
use crate::diag::{Diagnostic, Location};
use crate::dist::Solo;
use crate::export::nemo::PromptArchive;
use crate::model::LanguageModel;
use crate::prompt::template::TaskTemplate;
use crate::prompt::{PromptTable, VirtualPrompts};
use crate::schema::{PromptLearning, VirtualPromptStyle};
use crate::sys::atomic_file;
use crate::sys::env_vars;
use crate::sys::shutdown::{EXIT_STOPPED, Shutdown};
use crate::train::checkpoint::Ownership;
use crate::train::fit::FitParts;
use crate::train::options::{OnBest, Scorer};
use crate::train::step::LossContext;
use crate::train::{CheckpointFolder, Optimizer, Stop, fit, restore};

/// Trains what the section asks for.
pub(super) fn run(section: &PromptLearning) -> Result<i32> {
    let started = Instant::now();
    let shutdown = Shutdown::listen();
    let model_section = &section.model;
    let role = devices::role(
        model_section.tensor_model_parallel_size,
        model_section.pipeline_model_parallel_size,
    )?;
    if role == Role::Watches {
        return Ok(0);
    }
    check_style(model_section.virtual_prompt_style)?;
    training_setup::warn_of_unused(section);
    let log_dir = section.log_dir();
    let checkpoints = CheckpointFolder::new(log_dir.join("checkpoints"));
    let _ownership = own_results(section, &checkpoints)?;

    // Everything that can be wrong with templates and rows is said before a weight is used.
    let templates = TaskTemplate::parse_all(&model_section.task_templates)?;
    let device = devices::device(section.trainer.accelerator)?;
    let mut frozen = FrozenModel::load(
        &model_section.language_model_path,
        model_section.tokenizer_path.as_deref(),
        devices::dtype(section.trainer.precision, &device),
        &device,
    )?;
    let recomputed = model_section.recomputed_layers(usize::MAX);
    frozen.model.recompute(|layer| layer < recomputed);
    let load = |paths: &[std::path::PathBuf], what: &str| -> Result<Dataset> {
        let options =
            tasks::dataset_options(&frozen.row_facts(), &model_section.data, Purpose::Learn);
        let paths = tasks::data_files(paths, &section.log_dir())?;
        let dataset = match tasks::row_cache(&model_section.data) {
            Some(cache) => {
                Dataset::load_cached(&paths, &templates, &frozen.tokenizer, &options, &cache)
            }
            None => Dataset::load(&paths, &templates, &frozen.tokenizer, &options),
        };
        let dataset = dataset.with_context(|| format!("reading the {what} data"))?;
        report::dataset(what, &dataset);
        Ok(dataset)
    };
    let train = load(&model_section.data.train_ds, "training")?;
    let validation = section
        .validates()
        .then(|| load(&model_section.data.validation_ds, "validation"))
        .transpose()?;
    let mut read = vec![("training", &train)];
    read.extend(validation.as_ref().map(|dataset| ("validation", dataset)));
    report::left_out(&log_dir, &read)?;

    let prompts = starting_prompts::prompts(model_section, &templates, &frozen, &train, &device)?;
    let mut optimizer = Optimizer::new(
        training_setup::optimizer(&model_section.optim),
        prompts.named_parameters(),
    )?;
    let trainable: usize = optimizer.vars().map(|(_, var)| var.elem_count()).sum();
    let tasks: Vec<(String, usize)> = templates
        .iter()
        .map(|template| (template.taskname.clone(), template.total_virtual_tokens))
        .collect();

    let mut sampler = Sampler::new(
        train.examples.len(),
        model_section.rows_per_step(&section.trainer),
        model_section.seed,
        model_section.data.shuffle,
        true,
    )?;
    let limit = section.trainer.limit_train_batches;
    sampler = sampler
        .clone()
        .with_most_batches(limit.steps(sampler.batches_per_epoch()));
    let options = training_setup::fit_options(section, &train, validation.as_ref())?;
    let mut scores = match &validation {
        Some(_) if model_section.report_validation_metric => Some(ValidationScores::new(
            model_section,
            &tasks::data_files(&model_section.data.validation_ds, &log_dir)?,
            &frozen,
            &templates,
            options.validation_rows,
            options.validation_batches.micro,
        )?),
        _ => None,
    };
    let schedule = training_setup::schedule(
        &model_section.optim,
        options.max_steps,
        sampler.batches_per_epoch() as u64,
        &frozen,
    )?;
    let settings = run_settings::collect(section, &train, validation.as_ref(), &frozen)?;
    let state = restore(&options, &checkpoints, &mut optimizer, &settings)?;
    tracing::info!(
        "training {} for {}: {trainable} numbers, {} rows, {} steps of {} rows",
        model_section.new_tasks.join(", "),
        style_name(model_section.virtual_prompt_style),
        train.examples.len(),
        options.max_steps,
        model_section.rows_per_step(&section.trainer)
    );
    let context = LossContext {
        model: &frozen.model,
        tasks: &tasks,
        architecture: frozen.architecture(),
        pseudo_token_ids_start: frozen.pseudo_token_ids_start(),
    };
    let is_t5 = matches!(frozen.model, LanguageModel::T5(_));
    let mut sinks = training_setup::sinks(section, options.max_steps, state.global_step)?;
    let mut scorer = scores
        .as_mut()
        .map(|scores| |table: &PromptTable| scores.measure(table));
    let mut on_best = |table: &PromptTable| save(section, &prompts, table, is_t5);
    let outcome = fit(
        &mut FitParts {
            context,
            prompts: &prompts,
            new_tasks: &model_section.new_tasks,
            optimizer: &mut optimizer,
            schedule: &schedule,
            train: &train,
            sampler: &mut sampler,
            validation: validation.as_ref(),
            scorer: scorer.as_mut().map(|scorer| scorer as Scorer<'_>),
            on_best: model_section
                .save_nemo_on_validation_end
                .then_some(&mut on_best as OnBest<'_>),
            checkpoints: &checkpoints,
            sinks: &mut sinks,
            communicator: &Solo,
            shutdown,
        },
        &options,
        state,
    )?;
    if outcome.stop == Stop::RunTime {
        tracing::warn!(
            "`exp_manager.max_time_per_run` is over after step {}; the same command goes on from there",
            outcome.state.global_step
        );
        return Ok(EXIT_STOPPED);
    }
    if let Stop::Signal(signal) = outcome.stop {
        tracing::warn!(
            "stopped by signal {signal} after step {}; the same command goes on from there",
            outcome.state.global_step
        );
        return Ok(EXIT_STOPPED);
    }

    let table = prompts.table()?;
    save(section, &prompts, &table, is_t5)?;
    if let Err(error) = prompt_health::write(&log_dir, &table, &frozen) {
        tracing::warn!("the virtual tokens could not be compared with the vocabulary: {error:#}");
    }
    report::page(&log_dir);
    report::training(section, &outcome, started.elapsed());
    Ok(0)
}

/// Keeps other runs out of this one's folders, and clears up after killed ones.
fn own_results(section: &PromptLearning, checkpoints: &CheckpointFolder) -> Result<Ownership> {
    // A node that lost its power may hold a network file system's lock until its lease ends.
    let seconds = match env_vars::get(env_vars::SLURM_RESTART_COUNT) {
        Some(_) => 120,
        None => 3,
    };
    let ownership = checkpoints.own(Duration::from_secs(seconds))?;
    let exp_manager = &section.exp_manager;
    let must_resume = exp_manager.resume_if_exists && !exp_manager.resume_ignore_no_checkpoint;
    if must_resume && !checkpoints.last().exists() {
        return Err(
            Diagnostic::configuration("there is no checkpoint to resume from")
                .at(Location::file(checkpoints.last().display()))
                .note("`exp_manager.resume_ignore_no_checkpoint` is False")
                .hint("prompt_learning.exp_manager.resume_ignore_no_checkpoint=True")
                .into(),
        );
    }
    let log_dir = section.log_dir();
    for name in [
        "metrics.jsonl",
        report::LEFT_OUT,
        prompt_health::FILE,
        crate::report::FILE,
    ] {
        atomic_file::remove_leftovers(&log_dir, Some(name));
    }
    let nemo_path = &section.model.nemo_path;
    if let (Some(folder), Some(name)) = (nemo_path.parent(), nemo_path.file_name()) {
        atomic_file::remove_leftovers(folder, name.to_str());
    }
    Ok(ownership)
}

fn check_style(style: VirtualPromptStyle) -> Result<()> {
    match style {
        VirtualPromptStyle::PTuning | VirtualPromptStyle::PromptTuning => Ok(()),
        VirtualPromptStyle::Inference | VirtualPromptStyle::NoPrompts => {
            Err(Diagnostic::configuration(format!(
                "`virtual_prompt_style` is `{}`, which trains nothing",
                style_name(style)
            ))
            .note("expected `p-tuning` or `prompt-tuning`")
            .hint("to score a model without virtual tokens run the evaluation stage: stages=[evaluation]")
            .into())
        }
    }
}

fn style_name(style: VirtualPromptStyle) -> &'static str {
    match style {
        VirtualPromptStyle::PTuning => "p-tuning",
        VirtualPromptStyle::PromptTuning => "prompt-tuning",
        VirtualPromptStyle::Inference => "inference",
        VirtualPromptStyle::NoPrompts => "no-prompts",
    }
}

/// Writes the prompt archive at `model.nemo_path`.
fn save(
    section: &PromptLearning,
    prompts: &VirtualPrompts,
    table: &PromptTable,
    is_t5: bool,
) -> Result<()> {
    let path: &Path = &section.model.nemo_path;
    let mut archive = PromptArchive::from_training(section, table.iter(), is_t5)?;
    if section.model.p_tuning.save_encoder {
        archive.encoder = prompts.encoder_parameters()?;
    }
    archive.write(path).map_err(|error| {
        Diagnostic::job("the prompts could not be written")
            .at(Location::file(path.display()))
            .note(format!("{error:#}"))
            .note("the state of the training is saved")
            .hint("the same command writes them once the reason is gone")
            .into()
    })
}
