//! What shell completion says of ptune itself: its commands and options, from what reads them, and the values of a few
//! keys.

use clap::CommandFactory;

use super::arguments::Arguments;
use crate::application::completion::{Command, CommandOption, Expects, KnownValues};

/// Keys of the launcher whose values are names that it knows.
pub(super) const KNOWN_VALUES: [KnownValues<'static>; 3] = [
    KnownValues {
        key: "stages",
        values: &[
            "data_preparation",
            "conversion",
            "prompt_learning",
            "evaluation",
        ],
        is_list: true,
    },
    KnownValues {
        key: "cluster_type",
        values: &["bcm", "bcp", "interactive"],
        is_list: false,
    },
    KnownValues {
        key: "stage_dependency",
        values: &["afterany", "afterok"],
        is_list: false,
    },
];

/// The commands as clap knows them.
pub(super) fn commands() -> Vec<Command> {
    Arguments::command()
        .get_subcommands()
        .map(described)
        .collect()
}

fn described(command: &clap::Command) -> Command {
    let about = |text: Option<&clap::builder::StyledStr>| {
        let text = text.map(ToString::to_string).unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    };
    Command {
        name: command.get_name().to_owned(),
        about: about(command.get_about()),
        options: command
            .get_arguments()
            .filter_map(|argument| {
                Some(CommandOption {
                    long: format!("--{}", argument.get_long()?),
                    short: argument
                        .get_short()
                        .map(|short| format!("-{short}"))
                        .unwrap_or_default(),
                    about: about(argument.get_help()),
                    expects: argument
                        .get_action()
                        .takes_values()
                        .then(|| expects(argument)),
                    is_optional: false,
                })
            })
            .collect(),
        commands: command.get_subcommands().map(described).collect(),
        words: command.get_positionals().map(expects).collect(),
    }
}

/// What an argument is, from what its help calls it.
fn expects(argument: &clap::Arg) -> Expects {
    let values = argument.get_possible_values();
    if !values.is_empty() && argument.get_action().takes_values() {
        let about = |value: &clap::builder::PossibleValue| {
            value
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default()
        };
        return Expects::OneOf(
            values
                .iter()
                .map(|value| (value.get_name().to_owned(), about(value)))
                .collect(),
        );
    }
    if argument.get_long() == Some("config-name") {
        return Expects::ConfigName;
    }
    let name = argument.get_value_names().and_then(<[_]>::first);
    match name.map(clap::builder::Str::as_str) {
        Some("WORDS") => Expects::Configuration,
        Some("KEY") => Expects::Key,
        Some("FOLDER") => Expects::Folder,
        Some("OLD" | "NEW") => Expects::FileOrConfiguration,
        Some("JOB") => Expects::OneOf(
            KNOWN_VALUES[0]
                .values
                .iter()
                .map(|job| ((*job).to_owned(), String::new()))
                .collect(),
        ),
        _ if argument.get_value_parser().type_id()
            == std::any::TypeId::of::<std::path::PathBuf>() =>
        {
            Expects::File
        }
        _ => Expects::Anything,
    }
}
