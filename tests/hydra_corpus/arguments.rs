//! Kind `arguments`: how a command line is taken apart. The rows come from `tests/differential/generate_arguments.py`.

use ptune::application::arguments::{Mode, parse};
use ptune::config::{ConfigPart, InfoPart};
use serde_json::{Value as Json, json};

/// What a command line asks for, or the code of what is wrong with it.
pub(crate) fn outcome(row: &Json) -> Result<Json, String> {
    let words: Vec<String> = row["argv"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|word| word.as_str().unwrap_or("").to_owned())
        .collect();
    let arguments = parse(&words, &[])
        .map_err(|error| format!("{}\n{error}", error.code.unwrap_or("no code")))?;
    let mode = match arguments.mode {
        Mode::Run => "run",
        Mode::Multirun => "multirun",
        Mode::Cfg(ConfigPart::Job) => "cfg job",
        Mode::Cfg(ConfigPart::Hydra) => "cfg hydra",
        Mode::Cfg(ConfigPart::All) => "cfg all",
        Mode::Info(InfoPart::All) => "info all",
        Mode::Info(InfoPart::Config) => "info config",
        Mode::Info(InfoPart::Defaults) => "info defaults",
        Mode::Info(InfoPart::DefaultsTree) => "info defaults-tree",
        Mode::Info(InfoPart::Plugins) => "info plugins",
        Mode::Info(InfoPart::SearchPath) => "info searchpath",
        Mode::ShellCompletion => "shell-completion",
        Mode::Help => "help",
        Mode::HydraHelp => "hydra-help",
        Mode::Version => "version",
    };
    Ok(json!({
        "mode": mode,
        "words": arguments.words,
        "config_path": arguments.config_path,
        "config_name": arguments.config_name,
        "config_dir": arguments.config_dir,
        "package": arguments.package,
        "resolve": arguments.resolve,
    }))
}
