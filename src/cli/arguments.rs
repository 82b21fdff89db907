//! What the command line may hold.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

#[cfg(feature = "worker")]
use super::generate::GenerateArguments;
#[cfg(feature = "worker")]
use super::inspect::InspectArguments;
#[cfg(feature = "worker")]
use super::prompts::{ExportArguments, ImportArguments, PromptArguments};
use super::report::ReportArguments;

/// The commands of ptune. Without one of them ptune is the launcher, which [`super::launch`] reads as Hydra would.
#[derive(Debug, Parser)]
#[command(name = "ptune", version, disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run one job; job scripts call this
    Worker(WorkerArguments),
    /// Start the ranks of a job on this machine; job scripts call this
    #[cfg(unix)]
    Ranks(RanksArguments),
    /// Look into the configuration
    Config(ConfigArguments),
    /// Say how jobs stand
    Status(FolderArguments),
    /// Show a job's log
    Logs(LogsArguments),
    /// Ask a job to end; one that trains saves first
    Cancel(FolderArguments),
    /// Make report.html of a run again
    Report(ReportArguments),
    /// Answer questions with a tuned prompt
    #[cfg(feature = "worker")]
    Generate(GenerateArguments),
    /// Write tuned prompts for PEFT, TensorRT-LLM, vLLM or T5X
    #[cfg(feature = "worker")]
    Export(ExportArguments),
    /// Make a prompt archive of another program's prompts
    #[cfg(feature = "worker")]
    Import(ImportArguments),
    /// List, rename, remove and merge the tasks of prompt archives
    #[cfg(feature = "worker")]
    Prompt(PromptArguments),
    /// Say what a checkpoint or a file of prompts holds
    #[cfg(feature = "worker")]
    Inspect(InspectArguments),
}

#[derive(Debug, Args)]
pub(super) struct FolderArguments {
    /// Results folder, or one above several; without it the last launch and what lies below ./results
    #[arg(value_name = "FOLDER")]
    pub(super) folder: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct LogsArguments {
    /// Results folder, or one above several; without it the last launch or what lies below ./results
    #[arg(value_name = "FOLDER")]
    pub(super) folder: Option<PathBuf>,
    /// Go on until the job ends
    #[arg(long, short)]
    pub(super) follow: bool,
}

#[derive(Debug, Args)]
pub(super) struct ComposeArguments {
    /// Words that choose and change the configuration
    #[arg(value_name = "WORDS")]
    pub(super) words: Vec<String>,
    /// Primary file, without .yaml [short as Hydra's: -cn]
    #[arg(long, value_name = "NAME", default_value = ComposeArguments::CONFIG_NAME)]
    pub(super) config_name: String,
    /// Folder that stands in for conf/ [-cp]
    #[arg(long, value_name = "FOLDER")]
    pub(super) config_path: Option<PathBuf>,
    /// A further folder, searched after conf/ [-cd]
    #[arg(long, value_name = "FOLDER")]
    pub(super) config_dir: Option<PathBuf>,
}

impl ComposeArguments {
    /// The primary file where none is named.
    pub(super) const CONFIG_NAME: &str = "config";
}

#[derive(Debug, Args)]
pub(super) struct WorkerArguments {
    /// data_preparation, conversion, prompt_learning or evaluation
    #[arg(value_name = "JOB")]
    pub(super) job: String,
    /// The resolved section of that job
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
}

#[derive(Debug, Args)]
#[cfg(unix)]
pub(super) struct RanksArguments {
    /// How many
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) count: u16,
    /// A file to which their output is written as well
    #[arg(long, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
    /// Seconds between asking the others to end, where one has failed, and killing them
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(super) grace: u64,
    /// What each of them runs
    #[arg(value_name = "COMMAND", last = true, required = true)]
    pub(super) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct ConfigArguments {
    #[command(subcommand)]
    pub(super) verb: ConfigVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Where a value comes from
    Explain {
        /// Its key, such as prompt_learning.model.optim.lr
        #[arg(value_name = "KEY")]
        key: String,
        #[command(flatten)]
        compose: ComposeArguments,
    },
    /// What differs between two configurations; exit status 1 where something does
    Diff(DiffArguments),
}

/// Each side is a YAML file, or one quoted argument with words and options as ptune takes them:
///
///   ptune config diff prompt_learning=t5/squad "prompt_learning=t5/squad prompt_learning.model.optim.lr=3e-5"
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct DiffArguments {
    /// A file, the name of a primary file, or words
    #[arg(value_name = "OLD")]
    pub(super) old: String,
    /// The same
    #[arg(value_name = "NEW")]
    pub(super) new: String,
    #[command(flatten)]
    pub(super) common: ComposeArguments,
    /// Compare only the part at this key
    #[arg(long, short = 'p', value_name = "KEY")]
    pub(super) package: Option<String>,
    /// Compare values without ${…} (as always against a file that has none)
    #[arg(long)]
    pub(super) resolve: bool,
    /// Print the differences as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// One side of a comparison, read like a command line of its own.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
pub(super) struct SideArguments {
    #[command(flatten)]
    pub(super) compose: ComposeArguments,
}

/// Names of the commands with their help, in the order of the help.
pub(super) fn verbs() -> Vec<(String, String)> {
    Arguments::command()
        .get_subcommands()
        .map(|verb| {
            let about = verb.get_about().map(ToString::to_string);
            (verb.get_name().to_owned(), about.unwrap_or_default())
        })
        .collect()
}

/// Hydra's short options have two letters, which clap does not know.
pub(super) fn with_long_options(words: &[String]) -> Vec<String> {
    words
        .iter()
        .map(|word| {
            for (short, long) in [
                ("-cn", "--config-name"),
                ("-cp", "--config-path"),
                ("-cd", "--config-dir"),
            ] {
                if word == short {
                    return long.to_owned();
                }
                if let Some(value) = word.strip_prefix(&format!("{short}=")) {
                    return format!("{long}={value}");
                }
            }
            word.clone()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn words_may_stand_on_both_sides_of_an_option() {
        let words: Vec<String> = [
            "ptune",
            "config",
            "explain",
            "key",
            "a=1",
            "-cn",
            "quickstart",
            "+b=2",
            "~c",
        ]
        .map(str::to_owned)
        .to_vec();
        let arguments = Arguments::try_parse_from(with_long_options(&words)).unwrap();
        let Verb::Config(ConfigArguments {
            verb: ConfigVerb::Explain { compose, .. },
        }) = arguments.verb
        else {
            panic!("not read as `config explain`");
        };
        assert_eq!(compose.config_name, "quickstart");
        assert_eq!(compose.words, ["a=1", "+b=2", "~c"]);
    }
}
