//! `ptune key=value …`: the launcher, a program that is composed as Hydra composes.

use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::arguments::{ComposeArguments, verbs};
use super::{completion, dry_run, embedded};
use crate::application::arguments::{Arguments, Mode, OwnOption, parse};
use crate::application::{Application, Job, Task};
use crate::config::{Config, ConfigSource};
use crate::diag::Diagnostic;
use crate::diag::suggest::did_you_mean;
use crate::launch::{ClusterType, Templates};
use crate::stages::{self, ArrayMember, Launched, Plan, Settings, Sweep};
use crate::sys::env_vars;

const DRY_RUN: &str = "--dry-run";
const TEMPLATES_DIR: &str = "--templates-dir";

const OPTIONS: &[OwnOption] = &[
    OwnOption {
        name: DRY_RUN,
        value: None,
        help: "write and show every file, hand nothing over (as NEMO_LAUNCHER_DEBUG=1)",
    },
    OwnOption {
        name: TEMPLATES_DIR,
        value: Some("FOLDER"),
        help: "job script templates that replace the program's own",
    },
];

/// Runs the launcher on the whole command line, the program's name in front.
pub(super) fn run(command_line: &[String]) -> Result<i32> {
    let words = command_line.get(1..).unwrap_or_default();
    let arguments = parse(words, OPTIONS)?;
    let help = help();
    let application = application(&help);
    if matches!(arguments.mode, Mode::Run | Mode::Multirun) {
        check_words(&arguments.words)?;
    }
    let templates = Templates {
        folder: arguments.value(TEMPLATES_DIR).map(PathBuf::from),
    };
    let mut launcher = Launcher {
        program: std::env::current_exe().context("finding this program's own path")?,
        dry_run: arguments.has(DRY_RUN) || stages::switch(env_vars::NEMO_LAUNCHER_DEBUG)?,
        templates,
        command_line,
        planned: VecDeque::new(),
        sweep: Sweep::default(),
        gathered: vec![],
    };
    application.run(&arguments, &mut launcher, &mut std::io::stdout().lock())
}

/// The configuration that the words and options of a command such as `ptune config explain` ask for.
pub(super) fn compose_words(compose: &ComposeArguments) -> Result<Config> {
    check_words(&compose.words)?;
    let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let arguments = Arguments {
        words: compose.words.clone(),
        config_name: Some(compose.config_name.clone()),
        config_path: text(&compose.config_path),
        config_dir: text(&compose.config_dir),
        ..Arguments::default()
    };
    Ok(application("").compose(&arguments)?)
}

fn application(help: &str) -> Application<'_> {
    Application {
        is_whole_process: true,
        name: "ptune",
        version: concat!("ptune ", env!("CARGO_PKG_VERSION")),
        config_name: Some("config"),
        sources: &sources,
        resolvers: crate::config::interpolation::Resolvers::default(),
        options: OPTIONS,
        help: Some(help),
        commands: &completion::commands,
        known_values: &completion::KNOWN_VALUES,
        warn: &super::warn,
    }
}

/// `ptune --help`: a template as Hydra's help has them.
fn help() -> String {
    let verbs: String = verbs()
        .iter()
        .map(|(name, about)| format!("  {name:10} {about}\n"))
        .collect();
    format!(
        "\
Tune virtual tokens over a frozen GPT, T5 or mT5: on Slurm, on BCP or on this machine.

Usage: ptune [OPTIONS] [WORDS]...    launch the stages that a configuration asks for
       ptune COMMAND ...

Commands (ptune COMMAND --help tells more):
{verbs}
Words:
  group=option         choose a file of conf/:     prompt_learning=t5/squad
  key=value            change a value:             prompt_learning.trainer.devices=4
  +key=value           add one                     ++key=value   add or change
  ~key                 remove one
  key=a,b              with --multirun: one job for each

Options:
$FLAGS_HELP
Configuration groups (group=option):
$APP_CONFIG_GROUPS
Examples:
  ptune --config-name=quickstart
  ptune stages=[prompt_learning,evaluation] prompt_learning=t5/squad evaluation=prompt_t5/squad \\
      cluster_type=interactive prompt_learning.model.language_model_path=t5-small
  ptune prompt_learning=gpt3/squad cluster.partition=gpu --dry-run
  ptune --cfg job -p prompt_learning.model
  eval \"$$(ptune --shell-completion install=bash)\"

Exit status: 0 done, 1 a job failed, 2 the command line or configuration is wrong,
75 stopped by a signal after saving."
    )
}

/// A first word that is a plain name is a verb that does not exist; other words without `=` are slips, which the
/// composition explains.
fn check_words(words: &[String]) -> Result<(), Diagnostic> {
    let Some(word) = words.first() else {
        return Ok(());
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let blanks_around_equal = words.get(1).is_some_and(|word| word.starts_with('='));
    if !word.chars().all(is_name) || blanks_around_equal {
        return Ok(());
    }
    let diagnostic = Diagnostic::configuration(format!(
        "`{word}` is neither a command nor of the form `key=value`"
    ))
    .code("OverrideParseException");
    let verbs = verbs();
    Err(
        match did_you_mean(word, verbs.iter().map(|(verb, _)| verb.as_str())) {
            Some(near) => diagnostic.hint(format!("did you mean `ptune {near}`?")),
            None => diagnostic.hint("ptune --help"),
        },
    )
}

/// Where files are looked for without `--config-path`, first match wins: the conf/ of `launcher_scripts_path` where the
/// command line gives one (users of the original keep their files there), conf/ beside this program, and the files that
/// are part of it.
fn sources(words: &[String]) -> Vec<ConfigSource> {
    let given = words
        .iter()
        .rev()
        .find_map(|word| word.strip_prefix("launcher_scripts_path="))
        .map(|path| std::path::Path::new(path.trim_matches(['"', '\''])).join("conf"));
    let beside = std::env::current_exe()
        .ok()
        .and_then(|path| Some(path.parent()?.join("conf")));
    let mut sources: Vec<ConfigSource> = given
        .into_iter()
        .chain(beside)
        .filter(|folder| folder.join("config.yaml").is_file())
        .map(ConfigSource::Folder)
        .collect();
    sources.push(ConfigSource::Embedded(embedded::CONF));
    sources
}

/// Hands the stages of each composed configuration over.
struct Launcher<'a> {
    program: PathBuf,
    dry_run: bool,
    templates: Templates,
    command_line: &'a [String],
    /// Jobs that were checked and not yet run, in order.
    planned: VecDeque<(Plan, Settings)>,
    sweep: Sweep,
    /// Jobs of a sweep that wait to be handed over as one array.
    gathered: Vec<ArrayMember>,
}

impl Launcher<'_> {
    /// On Slurm the jobs of a sweep wait for the last of them and then go as one array, or one by one where they ask
    /// for different things.
    fn gather(
        &mut self,
        plan: Plan,
        settings: Settings,
        job: &Job<'_>,
        out: &mut dyn Write,
    ) -> Result<i32> {
        self.gathered.push(ArrayMember {
            plan,
            settings,
            choices: job.config.choices().clone(),
        });
        if !self.planned.is_empty() {
            return Ok(0);
        }
        let mut members = std::mem::take(&mut self.gathered);
        let how = Launched {
            dry_run: self.dry_run,
            command_line: self.command_line,
            choices: job.config.choices(),
            templates: &self.templates,
        };
        if stages::can_be_array(&members) {
            let folder = array_folder(&members);
            return stages::launch_array(&mut members, &folder, &how, &mut super::warn, out);
        }
        for member in members {
            let how = Launched {
                choices: &member.choices,
                ..how.clone()
            };
            stages::launch(member.plan, &member.settings, &how, &mut super::warn, out)?;
        }
        Ok(0)
    }
}

/// The deepest folder that holds all results of the sweep.
fn array_folder(members: &[ArrayMember]) -> PathBuf {
    let mut folders = members
        .iter()
        .flat_map(|member| &member.plan.jobs)
        .map(|job| job.spec.paths.folder.clone());
    let mut common = folders.next().unwrap_or_default();
    for folder in folders {
        while !folder.starts_with(&common) && common.pop() {}
    }
    common
}

impl Task for Launcher<'_> {
    /// Lays out every stage, so that nothing is handed over while anything is wrong.
    fn check(&mut self, job: &Job<'_>) -> Result<()> {
        let config = job.config;
        // Sections that no stage of this command line reads may stay without values.
        let mut keys = Settings::KEYS.to_vec();
        let stages = stages::asked_for(&config.resolve_sections(&["stages"])?)?;
        keys.extend(stages.iter().map(|stage| stage.name()));
        let resolved = config.resolve_sections(&keys)?;
        stages::check(&resolved, config.choices(), &stages)?;
        let settings = Settings::read(&resolved)?;
        let plan = stages::plan(
            &resolved,
            config.choices(),
            &settings,
            &self.templates,
            &self.program,
        )?;
        if let Some(number) = job.number {
            self.sweep.add(number, job.overrides, &plan)?;
        }
        self.planned.push_back((plan, settings));
        Ok(())
    }

    fn run(&mut self, job: &Job<'_>, out: &mut dyn Write) -> Result<i32> {
        let (plan, settings) = self
            .planned
            .pop_front()
            .context("a job is run that was not checked")?;
        if self.dry_run {
            return self.dry_run(plan, settings, job, out);
        }
        self.hand_over(plan, settings, job, out)
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<()> {
        out.write_all(self.sweep.table().as_bytes())?;
        Ok(())
    }
}

impl Launcher<'_> {
    /// Shows the scripts, then what can be known about the jobs; 2 where something would stop one.
    fn dry_run(
        &mut self,
        plan: Plan,
        settings: Settings,
        job: &Job<'_>,
        out: &mut dyn Write,
    ) -> Result<i32> {
        let lists = dry_run::look(&plan, &settings)?;
        self.hand_over(plan, settings, job, out)?;
        out.flush()?;
        Ok(dry_run::show(&lists, job))
    }

    fn hand_over(
        &mut self,
        plan: Plan,
        settings: Settings,
        job: &Job<'_>,
        out: &mut dyn Write,
    ) -> Result<i32> {
        if job.number.is_some() && settings.cluster.cluster_type == ClusterType::Slurm {
            return self.gather(plan, settings, job, out);
        }
        stages::launch(
            plan,
            &settings,
            &Launched {
                dry_run: self.dry_run,
                command_line: self.command_line,
                choices: job.config.choices(),
                templates: &self.templates,
            },
            &mut super::warn,
            out,
        )
    }
}
