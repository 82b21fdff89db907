//! Whether the configuration is right for the stages that are asked for: everything that is wrong with it is one
//! message, before anything is rendered or written.

use indexmap::IndexMap;

use super::Settings;
use super::plan::{local_ranks, require_choice};
use crate::config::{ResolvedConfig, together};
use crate::diag::Diagnostic;
use crate::launch::ClusterType;
use crate::schema::{
    Conversion, DataPreparation, Evaluation, PromptLearning, WorkerJob, section_problems,
};

/// Looks at the values that are still `???`, the settings and the sections of all stages.
///
/// # Errors
/// One [`Diagnostic`] with all problems and their places.
pub fn check(
    config: &ResolvedConfig,
    choices: &IndexMap<String, Option<String>>,
    stages: &[WorkerJob],
) -> Result<(), Diagnostic> {
    let mut problems = vec![];
    let mut sections = vec![];
    let read = Settings::KEYS
        .into_iter()
        .chain(stages.iter().map(|stage| stage.name()));
    let missing: Vec<String> = read.flat_map(|key| config.missing(key)).collect();
    if !missing.is_empty() {
        problems.push(config.missing_report(&missing));
        sections.push("values that must be given".to_owned());
    }
    let mut config = config.clone();
    let cluster_type = config.get_str("cluster_type").map(ClusterType::from_name);
    if cluster_type == Some(Some(ClusterType::Interactive)) {
        local_ranks(&mut config, stages);
    }
    for stage in stages {
        if let Err(problem) = require_choice(&config, choices, *stage) {
            problems.push(problem);
            sections.push("`stages`".to_owned());
            continue;
        }
        let key = stage.name();
        let found = match stage {
            WorkerJob::DataPreparation => section_problems::<DataPreparation>(&config, key),
            WorkerJob::Conversion => section_problems::<Conversion>(&config, key),
            WorkerJob::PromptLearning => section_problems::<PromptLearning>(&config, key),
            WorkerJob::Evaluation => section_problems::<Evaluation>(&config, key),
        };
        sections.push(format!("`{key}`"));
        let before = problems.len();
        problems.extend(found.into_diagnostics(&config));
        if problems.len() == before {
            sections.pop();
        }
    }
    let count = problems.len();
    match together(problems) {
        Some(mut diagnostic) if count > 1 => {
            diagnostic.title = format!("{count} problems in {}", sections.join(", "));
            Err(diagnostic)
        }
        Some(diagnostic) => Err(diagnostic),
        None => Ok(()),
    }
}
