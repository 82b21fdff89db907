//! From a resolved configuration to the jobs of its stages, nothing written yet.

use std::path::Path;

use anyhow::Result;
use indexmap::IndexMap;

use super::{Devices, Input, Settings, Stage};
use crate::config::ResolvedConfig;
use crate::diag::Diagnostic;
use crate::diag::source::COMMAND_LINE;
use crate::launch::job::Command;
use crate::launch::paths::absolute;
use crate::launch::{ClusterType, CommandGroup, Dependency, JobPaths, JobSpec, Script, Templates};
use crate::schema::{
    Conversion, DataPreparation, Evaluation, PromptLearning, WorkerJob, read_section,
};
use crate::sys::env_vars;

/// Every stage of a command line.
#[derive(Debug)]
pub struct Plan {
    /// In order.
    pub jobs: Vec<PlannedJob>,
    /// What is odd and not wrong.
    pub warnings: Vec<Diagnostic>,
}

/// One stage, ready to be written.
#[derive(Debug)]
pub struct PlannedJob {
    /// The job.
    pub spec: JobSpec,
    /// The section that its worker reads.
    pub section: ResolvedConfig,
    /// Its script; a job that waits for another has a placeholder for that one's number.
    pub script: Script,
    /// What it reads.
    pub inputs: Vec<Input>,
    /// What it writes.
    pub outputs: Vec<std::path::PathBuf>,
}

impl PlannedJob {
    /// The name of its section.
    pub fn key(&self) -> &'static str {
        self.spec.stage.name()
    }

    /// Sets what the job waits for, in the job and in the section saved beside it.
    pub fn set_dependency(&mut self, dependency: Dependency) {
        self.section
            .set_text("run.dependency", dependency.to_string());
        self.spec.dependency = Some(dependency);
    }
}

/// Reads, checks and lays out every stage.
///
/// # Errors
/// The first stage whose section is wrong, with all that is wrong in it.
pub fn plan(
    config: &ResolvedConfig,
    choices: &IndexMap<String, Option<String>>,
    settings: &Settings,
    templates: &Templates,
    program: &Path,
) -> Result<Plan> {
    let mut config = config.clone();
    let mut warnings = vec![];
    if settings.cluster.cluster_type == ClusterType::Interactive {
        local_ranks(&mut config, &settings.stages);
    }
    let mut jobs: Vec<PlannedJob> = vec![];
    for stage in settings.stages.iter().copied() {
        require_choice(&config, choices, stage)?;
        let key = stage.name();
        let typed: Box<dyn Stage> = match stage {
            WorkerJob::DataPreparation => Box::new(read_section::<DataPreparation>(&config, key)?),
            WorkerJob::Conversion => Box::new(read_section::<Conversion>(&config, key)?),
            WorkerJob::PromptLearning => {
                let section = read_section::<PromptLearning>(&config, key)?;
                warn_about(&section, &mut warnings);
                Box::new(section)
            }
            WorkerJob::Evaluation => Box::new(read_section::<Evaluation>(&config, key)?),
        };
        let spec = specify(typed.as_ref(), settings, program)?;
        let section = config.select_subtree(key).ok_or_else(|| {
            Diagnostic::configuration(format!("the configuration has no `{key}`"))
        })?;
        let mut job = PlannedJob {
            inputs: typed.inputs(),
            outputs: typed.outputs(),
            script: Script {
                text: String::new(),
            },
            spec,
            section,
        };
        if settings.cluster.cluster_type == ClusterType::Slurm
            && let Some(before) = jobs.last()
        {
            let placeholder = format!("JOB_ID_OF_{}", before.spec.name);
            job.set_dependency(after(settings, placeholder));
        }
        let (script, odd) = settings.cluster.render(&job.spec, templates)?;
        for warning in odd {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        job.script = script;
        if let Some(other) = jobs.iter().find(|other| other.spec.paths == job.spec.paths) {
            return Err(Diagnostic::configuration(format!(
                "`{key}` and `{}` would write the same files in `{}`",
                other.key(),
                job.spec.paths.folder.display()
            ))
            .hint(format!("{key}.run.results_dir=FOLDER"))
            .into());
        }
        jobs.push(job);
    }
    Ok(Plan { jobs, warnings })
}

/// A stage waits for the job with number `id`.
pub(super) fn after(settings: &Settings, id: String) -> Dependency {
    if settings.after_ok {
        Dependency::AfterOk(id)
    } else {
        Dependency::AfterAny(id)
    }
}

/// `prompt_learning: null` in the defaults list leaves the section out altogether.
pub(super) fn require_choice(
    config: &ResolvedConfig,
    choices: &IndexMap<String, Option<String>>,
    stage: WorkerJob,
) -> Result<(), Diagnostic> {
    let key = stage.name();
    if config.get(key).is_some_and(|node| !node.is_null()) {
        return Ok(());
    }
    let mut diagnostic = Diagnostic::configuration(format!(
        "stage `{key}` is asked for, and nothing is chosen for it"
    ));
    if let Some(location) = config.location("stages") {
        diagnostic = diagnostic.at(location);
    }
    if choices.get(key).is_some_and(Option::is_none) {
        diagnostic = diagnostic.note(format!("the defaults list has `{key}: null`"));
    }
    let example = match stage {
        WorkerJob::DataPreparation => "squad/prepare_squad",
        WorkerJob::Conversion => "gpt3/convert_gpt3",
        WorkerJob::PromptLearning => "gpt3/squad",
        WorkerJob::Evaluation => "prompt_gpt3/squad",
    };
    Err(diagnostic.hint(format!("{key}={example}")))
}

/// This machine runs one rank, unless the command line itself asks for more: what a file says was made for a cluster.
pub(super) fn local_ranks(config: &mut ResolvedConfig, stages: &[WorkerJob]) {
    for stage in stages {
        for keys in [
            ["trainer.devices", "run.ntasks_per_node"],
            ["trainer.num_nodes", "run.nodes"],
        ] {
            let keys = keys.map(|key| format!("{}.{key}", stage.name()));
            let given = |key: &String| {
                let place = config.location(key)?;
                let number = config.value(key)?.as_i64()?;
                (place.source == COMMAND_LINE).then_some(number)
            };
            let given = keys.each_ref().map(given);
            let number = given[1].or(given[0]).unwrap_or(1);
            for (key, given) in keys.iter().zip(given) {
                if given.is_none() && config.get(key).is_some_and(|node| !node.is_null()) {
                    config.set_integer(key, number);
                }
            }
        }
    }
}

fn warn_about(section: &PromptLearning, warnings: &mut Vec<Diagnostic>) {
    if section.model.sequence_sequence_parallel.is_some() {
        warnings.push(
            Diagnostic::configuration(
                "`prompt_learning.model.sequence_sequence_parallel` is the user guide's slip for \
                 `sequence_parallel`; it is taken for that",
            )
            .hint("prompt_learning.model.sequence_parallel=True"),
        );
    }
}

fn specify(stage: &dyn Stage, settings: &Settings, program: &Path) -> Result<JobSpec> {
    let cluster_type = settings.cluster.cluster_type;
    let prefix = match cluster_type {
        ClusterType::Slurm => settings.cluster.section.job_name_prefix.as_str(),
        ClusterType::Bcp | ClusterType::Interactive => "",
    };
    let name = format!("{prefix}{}", stage.name());
    let paths = JobPaths::new(stage.results_dir(), &name)?;
    let resources = stage.resources();

    let mut environment = settings.environment.clone();
    let mut command_environment = vec![];
    if let Some(devices) = stage.devices() {
        let variables = cuda_variables(devices, resources.ntasks_per_node);
        match cluster_type {
            ClusterType::Slurm => command_environment = variables,
            ClusterType::Bcp => {
                environment.push((
                    "SLURM_NTASKS_PER_NODE".into(),
                    devices.trainer_devices.to_string(),
                ));
                environment.extend(variables);
            }
            // Whoever sits at this machine has chosen a GPU already, or there is none.
            ClusterType::Interactive => {}
        }
    }
    let log_file = (cluster_type != ClusterType::Slurm)
        .then(|| paths.log_file(&crate::sys::clock::log_stamp(), "out"));
    let own_program = program.display().to_string();
    let mut lines: Vec<Vec<String>> = vec![];
    if let (ClusterType::Interactive, Some(log)) = (cluster_type, &log_file) {
        let log = log.display().to_string();
        if resources.ntasks_per_node > 1 {
            let count = resources.ntasks_per_node.to_string();
            lines.push(words(&[
                &own_program,
                "ranks",
                "--count",
                &count,
                "--log",
                &log,
                "--",
            ]));
        } else {
            // One rank has the terminal for itself, and writes its log by itself.
            environment.push((env_vars::PTUNE_LOG_FILE.into(), log));
        }
    }

    let program = settings.program.clone().unwrap_or_else(|| {
        if cluster_type == ClusterType::Slurm && settings.cluster.container.is_some() {
            "ptune".to_owned()
        } else {
            own_program
        }
    });
    let config_file = paths.config_file().display().to_string();
    lines.push(words(&[&program, "worker", stage.job().name()]));
    lines.push(words(&["--config", &config_file]));
    let command = Command {
        environment: command_environment,
        lines,
    };
    Ok(JobSpec {
        stage: stage.job(),
        name,
        log_file,
        state_folder: absolute(&stage.state_folder())?,
        groups: vec![CommandGroup {
            commands: vec![command],
        }],
        resources,
        dependency: stage
            .dependency()
            .map(|text| Dependency::Text(text.to_owned())),
        environment,
        paths,
    })
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn cuda_variables(devices: Devices, tasks: usize) -> Vec<(String, String)> {
    let mut variables = vec![];
    if devices.tensor_parallel > 1 {
        variables.push(("CUDA_DEVICE_MAX_CONNECTIONS".to_owned(), "1".to_owned()));
    }
    let list: Vec<String> = (0..tasks).map(|index| index.to_string()).collect();
    variables.push(("CUDA_VISIBLE_DEVICES".to_owned(), list.join(",")));
    variables
}
