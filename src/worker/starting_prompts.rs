//! Where the virtual tokens of a training begin: finished tasks of `restore_path`, and first values of new ones.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use indexmap::IndexMap;

use super::frozen_model::FrozenModel;
use super::tasks;
use crate::data::dataset::{Architecture, Dataset};
use crate::diag::Diagnostic;
use crate::diag::suggest::did_you_mean;
use crate::export::{self, nemo::PromptArchive};
use crate::prompt::init::{self, Pieces};
use crate::prompt::template::TaskTemplate;
use crate::prompt::{EncoderConfig, PromptEncoder, PromptTable, VirtualPrompts};
use crate::schema::{
    PromptEncoderType, PromptInitMethod, PromptLearningModel, PromptTuningSection,
    VirtualPromptStyle,
};
use crate::sys::rng::SeededRng;

/// Stream of the run's seed that first values are drawn from; the order of rows has streams of its own.
const STREAM_PROMPT: u64 = 1;

/// Finished tasks, and first values of what is trained on the rows `train`.
///
/// # Errors
/// When tasks or files do not fit the templates and the frozen model; all that do not are named.
pub(super) fn prompts(
    section: &PromptLearningModel,
    templates: &[TaskTemplate],
    frozen: &FrozenModel,
    train: &Dataset,
    device: &Device,
) -> Result<VirtualPrompts> {
    let restored = match &section.restore_path {
        None => None,
        Some(path) => Some(PromptArchive::open(path).with_context(|| {
            format!("reading the prompts of `restore_path` {}", path.display())
        })?),
    };
    let start = Start {
        section,
        templates,
        frozen,
        train,
        restored: restored.as_ref(),
        device,
    };
    let existing = start.existing_tasks()?;
    match section.virtual_prompt_style {
        VirtualPromptStyle::PTuning => start.p_tuning(existing),
        _ => VirtualPrompts::prompt_tuning(existing, &start.first_values()?),
    }
}

struct Start<'a> {
    section: &'a PromptLearningModel,
    templates: &'a [TaskTemplate],
    frozen: &'a FrozenModel,
    train: &'a Dataset,
    restored: Option<&'a PromptArchive>,
    device: &'a Device,
}

impl Start<'_> {
    fn virtual_tokens_of(&self, task: &str) -> Result<usize> {
        self.templates
            .iter()
            .find(|template| template.taskname == task)
            .map(|template| template.total_virtual_tokens)
            .with_context(|| format!("there is no template for task `{task}`"))
    }

    /// The tasks of `restore_path` that stay, as they are.
    fn existing_tasks(&self) -> Result<PromptTable> {
        let Some(archive) = self.restored else {
            return Ok(PromptTable::new());
        };
        let table = tasks::table_of(archive, self.device)?;
        let mut kept = PromptTable::new();
        let mut problems = vec![];
        for task in &self.section.existing_tasks {
            match archive.tasks.get(task) {
                None => problems.push(unknown_task(task, &archive.tasks)),
                Some(rows) => {
                    problems.extend(self.misfit(task, task, rows)?);
                    kept.insert(task.as_str(), table.get(task)?)?;
                }
            }
        }
        fail_with(
            "`existing_tasks` and `restore_path` do not go together",
            &problems,
        )?;
        let left: Vec<&str> = table.tasks().filter(|task| !kept.contains(task)).collect();
        if !left.is_empty() && !self.section.existing_tasks.is_empty() {
            tracing::warn!(
                "`restore_path` also holds {}, which `existing_tasks` does not name: the result will not have it",
                left.join(", ")
            );
        }
        Ok(kept)
    }

    /// What keeps `rows`, those of `source`, from being virtual tokens of `task`.
    fn misfit(&self, task: &str, source: &str, rows: &Tensor) -> Result<Option<String>> {
        let expected = [
            self.virtual_tokens_of(task)?,
            self.frozen.model.hidden_size(),
        ];
        Ok((rows.dims() != expected).then(|| {
            format!(
                "`{source}` has virtual tokens of shape {:?}, the template of `{task}` and the frozen model need \
                 {expected:?}",
                rows.dims()
            )
        }))
    }

    /// One encoder for all new tasks.
    fn p_tuning(&self, existing: PromptTable) -> Result<VirtualPrompts> {
        let section = self.section;
        let mut names = IndexMap::new();
        let mut virtual_tokens = None;
        for task in &section.new_tasks {
            let count = self.virtual_tokens_of(task)?;
            let first = *virtual_tokens.get_or_insert(count);
            if count != first {
                return Err(Diagnostic::configuration(format!(
                    "tasks that are p-tuned together share one encoder, but `{}` has {first} virtual tokens and \
                     `{task}` has {count}",
                    section.new_tasks[0]
                ))
                .hint("give them the same `total_virtual_tokens`, or tune them one after another")
                .into());
            }
            let ids = self.frozen.tokenizer.encode(task)?;
            let name = self.frozen.model.embed_tokens(&ids)?; // [T, H]
            names.insert(task.clone(), name.to_dtype(DType::F32)?);
        }
        if section.p_tuning.encoder_type == PromptEncoderType::Embedding && names.len() > 1 {
            tracing::warn!(
                "the encoder `embedding` does not look at the tasks' names: {} get the same virtual tokens; for some of \
                 each task's own take virtual_prompt_style=prompt-tuning",
                section.new_tasks.join(", ")
            );
        }
        let mut rng = SeededRng::new(section.seed, STREAM_PROMPT);
        let config = EncoderConfig::of_section(
            &section.p_tuning,
            virtual_tokens.unwrap_or(0),
            self.frozen.model.hidden_size(),
            section.seed,
        );
        let encoder = PromptEncoder::new(&config, &mut rng, self.device)?;
        self.restore_encoder(&encoder)?;
        Ok(VirtualPrompts::p_tuning(existing, encoder, names))
    }

    /// Goes on with the trained encoder of `restore_path`, where there is one and it is wanted.
    fn restore_encoder(&self, encoder: &PromptEncoder) -> Result<()> {
        let wanted = self.section.p_tuning.restore_encoder;
        let trained = self
            .restored
            .map(|archive| &archive.encoder)
            .filter(|parameters| !parameters.is_empty());
        match (trained, wanted) {
            (_, Some(false)) | (None, None) => Ok(()),
            (None, Some(true)) => Err(Diagnostic::configuration(
                "`p_tuning.restore_encoder` is set, but `restore_path` holds no prompt encoder",
            )
            .note("an archive keeps it where it was tuned with `p_tuning.save_encoder=True`, or by NeMo 1.17 and later")
            .hint("prompt_learning.model.p_tuning.restore_encoder=null")
            .into()),
            (Some(parameters), _) => match encoder.load(parameters) {
                Ok(()) => {
                    tracing::info!("the prompt encoder of `restore_path` is trained further");
                    Ok(())
                }
                // Generation B's prompt tuning keeps a task's rows as an encoder: no start for a network or for another
                // length.
                Err(_) if wanted.is_none() && parameters.len() == 1 => Ok(()),
                Err(error) => Err(match error.downcast::<Diagnostic>() {
                    Ok(diagnostic) => diagnostic
                        .hint("prompt_learning.model.p_tuning.restore_encoder=False")
                        .into(),
                    Err(error) => error,
                }),
            },
        }
    }

    /// First virtual tokens [V, H] of each new task of prompt tuning.
    fn first_values(&self) -> Result<IndexMap<String, Tensor>> {
        let settings = self.section.initialisation();
        let mut rng = SeededRng::new(self.section.seed, STREAM_PROMPT);
        let mut first_values = IndexMap::new();
        let mut problems = vec![];
        for (index, task) in self.section.new_tasks.iter().enumerate() {
            match self.first_values_of(task, index, settings, &mut rng)? {
                Ok(values) => {
                    first_values.insert(task.clone(), values);
                }
                Err(found) => problems.extend(found),
            }
        }
        fail_with("new tasks cannot start as `prompt_tuning` says", &problems)?;
        Ok(first_values)
    }

    /// The values, or what is wrong with where they should come from.
    fn first_values_of(
        &self,
        task: &str,
        index: usize,
        settings: &PromptTuningSection,
        rng: &mut SeededRng,
    ) -> Result<Result<Tensor, Vec<String>>> {
        let (model, tokenizer) = (&self.frozen.model, &self.frozen.tokenizer);
        let (count, width) = (self.virtual_tokens_of(task)?, model.hidden_size());
        let special = tokenizer.special;
        let special = [special.bos, special.eos, special.pad, special.unk];
        let special: Vec<u32> = special.into_iter().flatten().collect();
        let values = match settings.method(index) {
            PromptInitMethod::Random => init::random(count, width, rng, self.device)?,
            PromptInitMethod::Normal => init::normal(count, width, rng, self.device)?,
            PromptInitMethod::Uniform => init::uniform(count, width, rng, self.device)?,
            PromptInitMethod::Vocab => {
                init::vocabulary(count, Pieces::Common, &special, rng, model)?
            }
            PromptInitMethod::SampleVocab => {
                init::vocabulary(count, Pieces::All, &special, rng, model)?
            }
            PromptInitMethod::Text => {
                let text = settings.new_prompt_init_text.get(index);
                let ids = tokenizer.encode(text.and_then(Option::as_deref).unwrap_or_default())?;
                if ids.is_empty() {
                    return Ok(Err(vec![format!("the text of `{task}` has no tokens")]));
                }
                init::text(&ids, count, model)?
            }
            PromptInitMethod::Labels => {
                let given = settings.new_prompt_init_labels.get(index);
                let labels = match given.and_then(Option::as_ref) {
                    Some(labels) => labels.clone(),
                    None => self.answers(task, count),
                };
                tracing::info!("`{task}` starts from the labels {}", labels.join(", "));
                let ids = labels
                    .iter()
                    .map(|label| tokenizer.encode(&self.as_answer(task, label)))
                    .collect::<Result<Vec<_>, _>>()?;
                if ids.iter().all(Vec::is_empty) {
                    return Ok(Err(vec![format!("the labels of `{task}` have no tokens")]));
                }
                init::labels(&ids, count, &special, rng, model)?
            }
            PromptInitMethod::File => {
                let path = settings.new_prompt_init_file.get(index);
                let path = path.and_then(Option::as_ref).context("a file is given")?;
                let name = path.display().to_string();
                let rows = match export::read_rows(path) {
                    Ok(rows) => rows,
                    Err(error) => return Ok(Err(vec![format!("`{task}`: {error:#}")])),
                };
                let asked = settings.new_prompt_init_task.get(index);
                let asked = asked.and_then(Option::as_ref);
                let names: Vec<String> = match asked {
                    Some(asked) => asked.names().to_vec(),
                    // What is alone in its file need not have the task's name.
                    None if rows.len() == 1 => rows.keys().cloned().collect(),
                    None => vec![task.to_owned()],
                };
                return self.mean_of(task, &names, &rows, &name);
            }
            PromptInitMethod::Task => {
                let names = settings.new_prompt_init_task.get(index);
                let names = names.and_then(Option::as_ref).context("a task is given")?;
                let archive = self.restored.context("`restore_path` is given")?;
                return self.mean_of(task, names.names(), &archive.tasks, "`restore_path`");
            }
        };
        Ok(Ok(values))
    }

    /// The mean of the rows of `names` among those of `source`, or why they will not do.
    fn mean_of(
        &self,
        task: &str,
        names: &[String],
        tasks: &IndexMap<String, Tensor>,
        source: &str,
    ) -> Result<Result<Tensor, Vec<String>>> {
        let mut problems = vec![];
        let mut found = vec![];
        for name in names {
            match tasks.get(name) {
                None => problems.push(format!("{source}: {}", unknown_task(name, tasks))),
                Some(rows) => match self.misfit(task, name, rows)? {
                    Some(problem) => problems.push(format!("{source}: {problem}")),
                    None => found.push(rows.to_device(self.device)?.to_dtype(DType::F32)?),
                },
            }
        }
        if !problems.is_empty() {
            return Ok(Err(problems));
        }
        Ok(Ok(match &found[..] {
            [only] => only.copy()?, // as it is, to the bit
            rows => Tensor::stack(rows, 0)?.mean(0)?,
        }))
    }

    /// The answers of the task's rows, most frequent first and then in the rows' order, at most `most`.
    fn answers(&self, task: &str, most: usize) -> Vec<String> {
        let mut counts = IndexMap::<&str, usize>::new();
        for example in &self.train.examples {
            let name = &self.templates[example.task].taskname;
            if let (true, Some(answer)) = (name == task, example.answers.first()) {
                *counts.entry(answer.as_str()).or_default() += 1;
            }
        }
        let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
            .into_iter()
            .take(most)
            .map(|(answer, _)| answer.to_owned())
            .collect()
    }

    /// A label as the model writes it: behind the blank that a GPT's template has there.
    fn as_answer(&self, task: &str, label: &str) -> String {
        let template = self
            .section
            .task_templates
            .iter()
            .find(|one| one.taskname == task);
        let behind_blank = template.is_some_and(|template| {
            let answer = template.answer_field.as_deref().unwrap_or("answer");
            let place = format!(" {{{answer}}}");
            template.prompt_template.ends_with(&place)
        });
        if behind_blank && self.frozen.architecture() == Architecture::Gpt {
            format!(" {label}")
        } else {
            label.to_owned()
        }
    }
}

fn unknown_task(task: &str, known: &IndexMap<String, Tensor>) -> String {
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    let near = did_you_mean(task, names.iter().copied());
    let near = near.map_or(String::new(), |near| format!(" (did you mean `{near}`?)"));
    format!("there is no task `{task}`{near}, only {}", names.join(", "))
}

fn fail_with(title: &str, problems: &[String]) -> Result<(), Diagnostic> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(Diagnostic::configuration(title).first_notes(problems))
}
