//! What the command line may hold.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

#[cfg(feature = "worker")]
use super::prompts::{ExportArguments, ImportArguments, PromptArguments};

/// Tune virtual tokens over a frozen GPT, T5 or mT5: on Slurm, on BCP or on this machine.
///
/// Without a command ptune is the launcher: its words choose and change the configuration, as Hydra's do.
#[derive(Debug, Parser)]
#[command(
    name = "ptune",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    after_help = "\
Words:
  group=option         choose a file of conf/:     prompt_learning=t5/squad
  key=value            change a value:             prompt_learning.trainer.devices=4
  +key=value           add one                     ++key=value   add or change
  ~key                 remove one

Examples:
  ptune --config-name=quickstart
  ptune stages=[prompt_learning,evaluation] prompt_learning=t5/squad evaluation=prompt_t5/squad \\
      cluster_type=interactive prompt_learning.model.language_model_path=t5-small
  ptune prompt_learning=gpt3/squad cluster.partition=gpu --dry-run
  ptune --cfg job -p prompt_learning.model

Exit status: 0 done, 1 a job failed, 2 the command line or configuration is wrong,
75 stopped by a signal after saving."
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) verb: Option<Verb>,
    #[command(flatten)]
    pub(super) launch: LaunchArguments,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run one job; job scripts call this
    Worker(WorkerArguments),
    /// Look into the configuration
    Config(ConfigArguments),
    /// Say how jobs stand
    Status(FolderArguments),
    /// Show a job's log
    Logs(LogsArguments),
    /// Ask a job to end; one that trains saves first
    Cancel(FolderArguments),
    /// Write tuned prompts for PEFT, TensorRT-LLM, vLLM or T5X
    #[cfg(feature = "worker")]
    Export(ExportArguments),
    /// Make a prompt archive of another program's prompts
    #[cfg(feature = "worker")]
    Import(ImportArguments),
    /// List, rename, remove and merge the tasks of prompt archives
    #[cfg(feature = "worker")]
    Prompt(PromptArguments),
}

#[derive(Debug, Args)]
pub(super) struct FolderArguments {
    /// Results folder of the job; below ./results where it is not given
    #[arg(value_name = "FOLDER")]
    pub(super) folder: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct LogsArguments {
    /// Results folder of the job; the newest below ./results where it is not given
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
    /// Folder that is searched before conf/ [-cd]
    #[arg(long, value_name = "FOLDER")]
    pub(super) config_dir: Option<PathBuf>,
}

impl ComposeArguments {
    /// The primary file where none is named.
    pub(super) const CONFIG_NAME: &str = "config";
}

#[derive(Debug, Args)]
pub(super) struct LaunchArguments {
    #[command(flatten)]
    pub(super) compose: ComposeArguments,
    /// Print the composed configuration and do nothing else
    #[arg(long, value_name = "WHAT", value_enum)]
    pub(super) cfg: Option<Cfg>,
    /// Print how the configuration was composed and do nothing else
    #[arg(long, value_name = "WHAT", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    pub(super) info: Option<Info>,
    /// With --cfg: replace every ${…} by its value
    #[arg(long, requires = "cfg")]
    pub(super) resolve: bool,
    /// With --cfg: only the part at this key
    #[arg(long, short = 'p', value_name = "KEY", requires = "cfg")]
    pub(super) package: Option<String>,
    /// Write and show every file, hand nothing over (as NEMO_LAUNCHER_DEBUG=1)
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Folder with job script templates that replace the program's own
    #[arg(long, value_name = "FOLDER")]
    pub(super) templates_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Cfg {
    /// The configuration
    Job,
    /// What Hydra keeps below `hydra`
    Hydra,
    /// Both
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Info {
    /// All that follows
    All,
    /// Search path, defaults and configuration
    Config,
    /// The defaults list, in the order of merging
    Defaults,
    /// The defaults lists of all files
    DefaultsTree,
    /// Where files are looked for
    Searchpath,
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
            // Hydra's short form of --cfg.
            if word == "-c" {
                return "--cfg".to_owned();
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
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn words_may_stand_on_both_sides_of_an_option() {
        let words: Vec<String> = ["ptune", "a=1", "-cn", "quickstart", "+b=2", "~c"]
            .map(str::to_owned)
            .to_vec();
        let arguments = Arguments::try_parse_from(with_long_options(&words)).unwrap();
        assert_eq!(arguments.launch.compose.config_name, "quickstart");
        assert_eq!(arguments.launch.compose.words, ["a=1", "+b=2", "~c"]);
    }
}
