//! `ptune generate`: answers to questions from the command line or a file, with a finished prompt.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::answers::{Answerer, Written};
use super::frozen_model::FrozenModel;
use super::{devices, evaluation, on_pool, tasks};
use crate::data::dataset::{Dataset, Example};
use crate::diag::suggest::did_you_mean;
use crate::diag::{Diagnostic, Location};
use crate::export::nemo::PromptArchive;
use crate::export::{self, Import};
use crate::prompt::template::TaskTemplate;
use crate::quickstart;
use crate::schema::{
    Accelerator, InferenceSection, Precision, PromptLearningModel, TaskTemplateSection,
};
use crate::sys::atomic_file;

/// Rows answered before the first of them is written: so many batches.
const BATCHES_AT_ONCE: usize = 8;
/// The task of rows whose prompts name none.
const UNNAMED: &str = "task";
/// How rows become prompts where nothing says it.
const BARE_TEMPLATE: &str = "<|VIRTUAL_PROMPT_0|>{text}";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Generation {
    /// A prompt archive, the results folder of a tuning, a PEFT adapter's folder, or a NumPy or torch file of prompts.
    pub prompts: PathBuf,
    /// The base model; the one the prompts were tuned over where it is not given.
    pub model: Option<PathBuf>,
    /// A tokenizer in place of the model's own.
    pub tokenizer: Option<PathBuf>,
    /// The task, for rows that name none.
    pub task: Option<String>,
    /// How rows become prompts, in place of what the prompts' file says.
    pub template: Option<String>,
    /// Whether virtual tokens are put in.
    pub virtual_tokens: bool,
    /// One question, `field=text`.
    pub words: Vec<String>,
    /// Rows of questions, as jsonl; `-` is standard input.
    pub input: Option<PathBuf>,
    /// Where answers go; standard output where it is not given.
    pub output: Option<PathBuf>,
    /// Whether answers are written as JSON lines.
    pub json: bool,
    /// Whether the answer to one question is shown while it is written.
    pub stream: bool,
    /// How text is generated.
    pub inference: InferenceSection,
    /// Rows generated for at once.
    pub batch_size: usize,
    /// Where the model runs.
    pub accelerator: Accelerator,
    /// Number format.
    pub precision: Precision,
}

/// Answers, and writes the answers to `out` or the output file.
///
/// # Errors
/// A [`Diagnostic`] for what cannot be found or does not fit.
pub fn run(asked: &Generation, out: &mut (dyn Write + Send)) -> Result<()> {
    asked.inference.check()?;
    on_pool(|| answer_all(asked, out))
}

fn answer_all(asked: &Generation, out: &mut dyn Write) -> Result<()> {
    let archive = open_prompts(asked)?;
    let settings: PromptLearningModel = archive.settings()?;
    let sections: Vec<TaskTemplateSection> = settings
        .task_templates
        .iter()
        .filter(|section| archive.tasks.contains_key(&section.taskname))
        .map(|section| with_template(section, asked.template.as_deref()))
        .collect();
    let mut templates = TaskTemplate::parse_all(&sections)?;
    // Questions are looked at before a model is loaded.
    let folder = tempfile::tempdir().context("making a folder for the questions")?;
    let questions = Questions::read(asked, &templates, folder.path())?;

    let device = devices::device(asked.accelerator)?;
    let model = asked
        .model
        .clone()
        .unwrap_or_else(|| settings.language_model_path.clone());
    if !model.exists() && !quickstart::is_builtin(&model) {
        return Err(no_model(asked, &model).into());
    }
    let frozen = FrozenModel::load(
        &model,
        asked
            .tokenizer
            .as_deref()
            .or(settings.tokenizer_path.as_deref()),
        devices::dtype(asked.precision, &device),
        &device,
    )?;
    let table = tasks::table_of(&archive, &device)?;
    evaluation::check_table(&table, &templates, &frozen, asked.virtual_tokens)?;
    if !asked.virtual_tokens {
        templates = templates
            .iter()
            .map(TaskTemplate::without_virtual_tokens)
            .collect();
    }
    let rows = tasks::answer_options(&frozen.row_facts(), &settings.data, &asked.inference);
    let dataset = Dataset::load(
        std::slice::from_ref(&questions.file),
        &templates,
        &frozen.tokenizer,
        &rows,
    )
    .map_err(|error| questions.renamed(error))?;
    for line in dataset.report.lines().iter().skip(1) {
        tracing::warn!(
            "{}",
            line.replace(&questions.file.display().to_string(), &questions.name)
        );
    }
    let answerer = Answerer::new(
        &frozen,
        &templates,
        &table,
        &asked.inference,
        &rows,
        settings.seed,
        asked.batch_size,
    )?;
    match &asked.output {
        None => answer(asked, &questions, &dataset, &answerer, out),
        Some(path) => {
            let mut text = vec![];
            answer(asked, &questions, &dataset, &answerer, &mut text)?;
            atomic_file::write(path, text)?;
            tracing::info!("{} answers in {}", dataset.examples.len(), path.display());
            Ok(())
        }
    }
}

fn answer(
    asked: &Generation,
    questions: &Questions,
    dataset: &Dataset,
    answerer: &Answerer<'_>,
    out: &mut dyn Write,
) -> Result<()> {
    let examples: Vec<&Example> = dataset.examples.iter().collect();
    if asked.stream && !asked.json && asked.output.is_none() && examples.len() == 1 {
        return stream(asked, &examples, answerer, out);
    }
    for (number, chunk) in examples
        .chunks(asked.batch_size.max(1) * BATCHES_AT_ONCE)
        .enumerate()
    {
        let first = number * asked.batch_size.max(1) * BATCHES_AT_ONCE;
        let answers = answerer.answer_from(chunk, first as u64, None)?;
        for (example, written) in chunk.iter().zip(&answers.written) {
            if asked.json {
                let mut row = questions.row(example.line);
                fill(&mut row, written);
                writeln!(out, "{}", Value::Object(row))?;
            } else {
                writeln!(out, "{}", written.text.replace(['\n', '\r'], " "))?;
            }
        }
        out.flush()?;
    }
    Ok(())
}

/// Shows the one answer while it is written.
fn stream(
    asked: &Generation,
    examples: &[&Example],
    answerer: &Answerer<'_>,
    out: &mut dyn Write,
) -> Result<()> {
    let mut shown = 0;
    let mut show = |_: usize, text: &str| {
        let text = text.trim_start();
        let safe = certain(text, &asked.inference.end_strings);
        if safe > shown {
            write!(out, "{}", &text[shown..safe])?;
            out.flush()?;
            shown = safe;
        }
        Ok(())
    };
    let answers = answerer.answer_from(examples, 0, Some(&mut show))?;
    let text = &answers.written[0].text;
    writeln!(out, "{}", text.get(shown..).unwrap_or_default())?;
    Ok(())
}

/// How much of a text stays as it is whatever comes next: no part of a character, of an end string, no last blanks.
fn certain(text: &str, end_strings: &[String]) -> usize {
    let whole = text.trim_end_matches('\u{fffd}').trim_end();
    let begun = end_strings.iter().flat_map(|end| {
        end.char_indices()
            .skip(1)
            .map(move |(length, _)| &end[..length])
            .filter(|start| whole.ends_with(start))
            .map(str::len)
    });
    whole.len() - begun.max().unwrap_or(0)
}

fn fill(row: &mut Map<String, Value>, written: &Written) {
    row.insert("prediction".into(), written.text.clone().into());
    row.insert("tokens".into(), written.tokens.into());
    row.insert("finished".into(), written.finished.into());
    if let Some(log_probability) = written.log_probability {
        row.insert("log_probability".into(), log_probability.into());
    }
}

/// The questions as a file of rows.
struct Questions {
    /// What is read.
    file: PathBuf,
    /// What the user calls it.
    name: String,
    /// Lines of the user's input.
    lines: Vec<String>,
}

impl Questions {
    fn read(asked: &Generation, templates: &[TaskTemplate], folder: &Path) -> Result<Self> {
        let (name, text) = match (&asked.input, asked.words.is_empty()) {
            (Some(_), false) => {
                return Err(Diagnostic::configuration(
                    "either questions in a file or one on the command line, not both",
                )
                .note(format!("found `--input` and `{}`", asked.words[0]))
                .into());
            }
            (None, true) => return Err(no_question(asked, templates).into()),
            (None, false) => {
                let row = question(asked, templates)?;
                ("<command line>".to_owned(), Value::Object(row).to_string())
            }
            (Some(path), true) if path.as_os_str() == "-" => {
                let lines: std::io::Result<Vec<String>> = std::io::stdin().lock().lines().collect();
                let lines = lines.context("reading questions from standard input")?;
                ("<standard input>".to_owned(), lines.join("\n"))
            }
            (Some(path), true) => {
                let text = fs_err::read_to_string(path)
                    .map_err(|error| Diagnostic::configuration(error.to_string()))?;
                (path.display().to_string(), text)
            }
        };
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        // Rows need not name the task where only one can be meant.
        let mut file = String::new();
        for (number, line) in lines.iter().enumerate() {
            match serde_json::from_str::<Value>(line) {
                Ok(Value::Object(mut row)) if !row.contains_key("taskname") => {
                    let task = the_task(asked, templates)
                        .map_err(|error| error.at(Location::line(&name, number + 1)))?;
                    row.insert("taskname".into(), task.taskname.clone().into());
                    file.push_str(&Value::Object(row).to_string());
                }
                _ => file.push_str(line),
            }
            file.push('\n');
        }
        let path = folder.join("questions.jsonl");
        fs_err::write(&path, file)?;
        Ok(Self {
            file: path,
            name,
            lines,
        })
    }

    /// An error about our copy, told about the user's file.
    fn renamed(&self, error: anyhow::Error) -> anyhow::Error {
        let copy = self.file.display().to_string();
        match error.downcast::<Diagnostic>() {
            Ok(mut diagnostic) => {
                for location in &mut diagnostic.locations {
                    location.source = location.source.replace(&copy, &self.name);
                }
                for text in diagnostic.notes.iter_mut().chain(&mut diagnostic.hints) {
                    *text = text.replace(&copy, &self.name);
                }
                diagnostic.into()
            }
            Err(error) => error,
        }
    }

    /// The row at a line, as the user gave it.
    fn row(&self, line: usize) -> Map<String, Value> {
        self.lines
            .get(line.saturating_sub(1))
            .and_then(|line| serde_json::from_str(line).ok())
            .unwrap_or_default()
    }
}

/// Fields of a template that a question must fill.
fn asked_fields(template: &TaskTemplate) -> Vec<&str> {
    let mut fields = template.fields();
    fields.retain(|field| template.answer_field.as_deref() != Some(field));
    fields
}

/// The row of the command line's words.
fn question(asked: &Generation, templates: &[TaskTemplate]) -> Result<Map<String, Value>> {
    let template = the_task(asked, templates)?;
    let fields = asked_fields(template);
    let mut row = Map::new();
    row.insert("taskname".into(), template.taskname.clone().into());
    for word in &asked.words {
        let (field, text) = match (word.split_once('='), &fields[..]) {
            (Some((field, text)), _) if fields.contains(&field) => (field, text),
            (_, [only]) if asked.words.len() == 1 => (*only, word.as_str()),
            (split, _) => {
                let field = split.map_or(word.as_str(), |(field, _)| field);
                let unknown = Diagnostic::configuration(format!(
                    "task `{}` has no field `{field}`",
                    template.taskname
                ))
                .at(Location::file("<command line>"))
                .note(format!("its fields: {}", fields.join(", ")));
                return Err(match did_you_mean(field, fields.iter().copied()) {
                    Some(near) => unknown.hint(format!("did you mean `{near}=…`?")),
                    None => unknown.hint(example(asked, template)),
                }
                .into());
            }
        };
        row.insert(field.to_owned(), text.into());
    }
    let missing: Vec<&str> = fields
        .iter()
        .copied()
        .filter(|field| !row.contains_key(*field))
        .collect();
    if missing.is_empty() {
        return Ok(row);
    }
    Err(Diagnostic::configuration(format!(
        "a question of task `{}` also needs `{}`",
        template.taskname,
        missing.join("`, `")
    ))
    .hint(example(asked, template))
    .into())
}

fn example(asked: &Generation, template: &TaskTemplate) -> String {
    let fields: Vec<String> = asked_fields(template)
        .iter()
        .map(|field| format!("{field}=\"…\""))
        .collect();
    let task = asked.task.as_ref().map(|task| format!("--task {task} "));
    format!(
        "ptune generate {} {}{}",
        asked.prompts.display(),
        task.unwrap_or_default(),
        fields.join(" ")
    )
}

fn no_question(asked: &Generation, templates: &[TaskTemplate]) -> Diagnostic {
    let mut nothing = Diagnostic::configuration("there is no question");
    for template in templates {
        nothing = nothing.note(format!(
            "task `{}` has the fields {}",
            template.taskname,
            asked_fields(template).join(", ")
        ));
    }
    if let Some(template) = templates.first() {
        nothing = nothing.hint(example(asked, template));
    }
    nothing.hint(format!(
        "ptune generate {} --input questions.jsonl",
        asked.prompts.display()
    ))
}

/// The task of rows that name none.
fn the_task<'a>(
    asked: &Generation,
    templates: &'a [TaskTemplate],
) -> Result<&'a TaskTemplate, Diagnostic> {
    let names = || templates.iter().map(|template| template.taskname.as_str());
    let all = || names().collect::<Vec<_>>().join(", ");
    if let Some(task) = &asked.task {
        return templates
            .iter()
            .find(|template| template.taskname == *task)
            .ok_or_else(|| {
                let missing = Diagnostic::configuration(format!(
                    "{} has no task `{task}`",
                    asked.prompts.display()
                ))
                .note(format!("it holds: {}", all()));
                match did_you_mean(task, names()) {
                    Some(near) => missing.hint(format!("--task {near}")),
                    None => missing,
                }
            });
    }
    match templates {
        [only] => Ok(only),
        [] => Err(Diagnostic::configuration(format!(
            "{} does not say how rows become prompts",
            asked.prompts.display()
        ))
        .hint(format!("--template '{BARE_TEMPLATE}'"))),
        [first, ..] => Err(Diagnostic::configuration(
            "the prompts are for several tasks, and none is named",
        )
        .note(format!("they are: {}", all()))
        .hint(format!("--task {}", first.taskname))),
    }
}

/// The section with another text; its virtual tokens stay as many.
fn with_template(section: &TaskTemplateSection, template: Option<&str>) -> TaskTemplateSection {
    let mut section = section.clone();
    if let Some(template) = template {
        template.clone_into(&mut section.prompt_template);
        section.virtual_token_splits = vec![section.total_virtual_tokens];
        section.truncate_field = None;
        // A row's answer, where it has one, must not become a part of its question.
        let answer = section.answer_field.take().unwrap_or("answer".to_owned());
        let is_last = template.trim_end().ends_with(&format!("{{{answer}}}"));
        section.answer_field = is_last.then_some(answer);
        section.answer_only_loss = false;
    }
    section
}

/// The prompts, whichever form they are in.
fn open_prompts(asked: &Generation) -> Result<PromptArchive> {
    let path = &asked.prompts;
    let nemo = |path: &Path| {
        PromptArchive::open(path)
            .with_context(|| format!("reading the prompts from {}", path.display()))
    };
    let is_nemo_file = path.extension().is_some_and(|end| end == "nemo");
    if !path.exists() || is_nemo_file || path.join("model_config.yaml").is_file() {
        return nemo(path);
    }
    if path.is_dir() && !path.join("adapter_config.json").is_file() {
        return nemo(&archive_below(path)?);
    }
    let import = Import {
        task: asked.task.clone().unwrap_or_else(|| UNNAMED.to_owned()),
        template: TaskTemplateSection {
            prompt_template: asked
                .template
                .clone()
                .unwrap_or_else(|| BARE_TEMPLATE.to_owned()),
            ..TaskTemplateSection::default()
        },
        language_model_path: asked.model.clone(),
        // Only matters for the class that an archive written from this would name.
        architecture: Some(export::Architecture::Gpt),
    };
    export::read(path, &import)
}

/// The prompt archive of a results folder.
fn archive_below(folder: &Path) -> Result<PathBuf> {
    let mut found = vec![];
    let mut folders = vec![folder.to_owned()];
    // The folder of all results, of a model, of its tuning, or of its results.
    for _ in 0..4 {
        let mut below = vec![];
        for folder in &folders {
            for entry in fs_err::read_dir(folder)? {
                let path = entry?.path();
                if path.extension().is_some_and(|end| end == "nemo") {
                    found.push(path);
                } else if path.is_dir() {
                    below.push(path);
                }
            }
        }
        if !found.is_empty() {
            break;
        }
        folders = below;
    }
    found.sort();
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => Err(Diagnostic::configuration(format!(
            "there is no prompt archive in {}",
            folder.display()
        ))
        .note("expected a .nemo in it, or in the folder `results` of a tuning")
        .into()),
        several => {
            let several: Vec<String> = several
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            Err(Diagnostic::configuration(format!(
                "there are {} prompt archives in {}",
                several.len(),
                folder.display()
            ))
            .note(several.join(", "))
            .hint(format!("ptune generate {} …", several[0]))
            .into())
        }
    }
}

fn no_model(asked: &Generation, model: &Path) -> Diagnostic {
    let diagnostic = if model.as_os_str().is_empty() {
        Diagnostic::configuration(format!(
            "{} does not name its base model",
            asked.prompts.display()
        ))
    } else {
        Diagnostic::configuration(format!("the base model is not at {}", model.display()))
    };
    diagnostic
        .note("expected a Hugging Face folder (config.json, tokenizer.json, model.safetensors) or a .nemo")
        .hint(format!(
            "ptune generate {} --model FOLDER …",
            asked.prompts.display()
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_holds_back_what_the_next_token_may_change() {
        let ends = ["###".to_owned(), "\nQ:".to_owned()];
        for (text, shown) in [
            ("red", 3),
            ("red ", 3),
            ("caf\u{fffd}", 3),
            ("red ##", 4),
            ("red\nQ", 3),
            ("Q", 1),
            ("", 0),
        ] {
            assert_eq!(certain(text, &ends), shown, "{text:?}");
        }
    }
}
