//! What our own scripts ask for: beyond Hydra's candidates the verbs and options of the program with what they are for,
//! the options that the line itself gives (`--config-path`, `--config-name`), and the words of [`super::words`].

use super::candidates::Situation;
use super::line::{Line, named};
use super::words;
use crate::application::arguments::{Arguments, OwnOption, SPECS, Takes};
use crate::config::ConfigRepository;
use crate::sys::env_vars;
use crate::sys::shell_words::shell_words;

/// One thing that can follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The whole word as it will stand on the line, without the quotes of the shell.
    pub text: String,
    /// What it is, in a few words, or nothing.
    pub about: String,
    /// Whether the word ends there, and a blank can follow.
    pub is_whole: bool,
}

/// What can stand at a place of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expects {
    /// Words that choose and change the configuration.
    Configuration,
    /// A dotted key of the configuration.
    Key,
    /// The name of a primary file.
    ConfigName,
    /// One of these, each with what it is.
    OneOf(Vec<(String, String)>),
    /// A folder.
    Folder,
    /// A file.
    File,
    /// A file, or words of the configuration.
    FileOrConfiguration,
    /// Nothing that can be listed.
    Anything,
}

/// A program or one of its verbs.
#[derive(Clone, Debug, Default)]
pub struct Command {
    /// Its name.
    pub name: String,
    /// What it is for, on one line.
    pub about: String,
    /// Its options.
    pub options: Vec<CommandOption>,
    /// Its verbs.
    pub commands: Vec<Command>,
    /// What its words are, one after the other; the last goes for all that follow.
    pub words: Vec<Expects>,
}

/// An option of a [`Command`].
#[derive(Clone, Debug)]
pub struct CommandOption {
    /// `--name`
    pub long: String,
    /// `-n` or nothing.
    pub short: String,
    /// What it is for, on one line.
    pub about: String,
    /// What its value is; nothing where it takes none.
    pub expects: Option<Expects>,
    /// Whether the value may be left out.
    pub is_optional: bool,
}

/// What is being completed.
pub struct Asked<'a> {
    /// The program.
    pub command: &'a Command,
    /// Where the configuration of a line is; nothing where it is nowhere.
    pub repository: &'a dyn Fn(&Arguments) -> Option<ConfigRepository>,
    /// The primary file where the line names none.
    pub config_name: Option<&'a str>,
    /// Keys whose values are among a few, which the files do not tell.
    pub values: &'a [KnownValues<'a>],
}

/// The values that a key can have.
#[derive(Clone, Copy, Debug)]
pub struct KnownValues<'a> {
    /// The dotted key.
    pub key: &'a str,
    /// Its values, or the items of its list.
    pub values: &'a [&'a str],
    /// Whether it is a list of them.
    pub is_list: bool,
}

impl CommandOption {
    fn takes(&self) -> Takes {
        match self.expects {
            None => Takes::Nothing,
            Some(_) if self.is_optional => Takes::OneOrNothing,
            Some(_) => Takes::One,
        }
    }
}

impl Candidate {
    pub(super) fn whole(text: impl Into<String>, about: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            about: about.into(),
            is_whole: true,
        }
    }

    pub(super) fn open(text: impl Into<String>, about: impl Into<String>) -> Self {
        Self {
            is_whole: false,
            ..Self::whole(text, about)
        }
    }

    fn after(mut self, prefix: &str) -> Self {
        self.text.insert_str(0, prefix);
        self
    }
}

impl Command {
    fn expects(&self, position: usize) -> Option<&Expects> {
        self.words.get(position).or(self.words.last())
    }

    /// The words that choose and change the configuration; others may be a key or a folder.
    fn configuration_words(&self, words: &[String]) -> Vec<String> {
        let is_one = |position| self.expects(position) == Some(&Expects::Configuration);
        words
            .iter()
            .enumerate()
            .filter(|(position, _)| is_one(*position))
            .map(|(_, word)| word.clone())
            .collect()
    }
}

/// What can follow on a line that begins with the program's name, sorted.
pub fn helpful(asked: &Asked<'_>, line: &str) -> Vec<Candidate> {
    let mut words = shell_words(line);
    words.remove(0);
    // Only the name is there, or nothing.
    let Some(word) = words.pop() else {
        return vec![];
    };
    let mut words = words.as_slice();
    let mut command = asked.command;
    while let Some((first, rest)) = words.split_first()
        && let Some(verb) = command.commands.iter().find(|verb| verb.name == *first)
    {
        command = verb;
        words = rest;
    }
    let table: Vec<(&str, &str, Takes)> = command
        .options
        .iter()
        .map(|option| (option.long.as_str(), option.short.as_str(), option.takes()))
        .collect();
    let line = Line::of(words.iter().map(String::as_str), &table);
    let mut found = vec![];
    if let Some((option, takes)) = line.open.and_then(|open| named(open, &table)) {
        let expects = option_expects(command, option);
        found.extend(values(asked, command, &line, expects, &word));
        if takes == Takes::One {
            return sorted(found);
        }
    }
    if word.starts_with('-') && !line.only_words {
        found.extend(options(asked, command, &line, &table, &word));
        return sorted(found);
    }
    if line.words.is_empty() {
        found.extend(
            command
                .commands
                .iter()
                .filter(|verb| verb.name.starts_with(&word))
                .map(|verb| Candidate::whole(&verb.name, &verb.about)),
        );
    }
    if line.has("--shell-completion") {
        let shells = ["install", "uninstall"].into_iter().flat_map(|what| {
            ["bash", "fish", "zsh"].map(|shell| Candidate::whole(format!("{what}={shell}"), ""))
        });
        found.extend(shells.filter(|candidate| candidate.text.starts_with(&word)));
        return sorted(found);
    }
    let expects = command.words.get(line.words.len()).or(command.words.last());
    if let Some(expects) = expects {
        found.extend(values(asked, command, &line, Some(expects), &word));
    }
    sorted(found)
}

fn sorted(mut found: Vec<Candidate>) -> Vec<Candidate> {
    found.sort_by(|a, b| a.text.cmp(&b.text));
    found.dedup_by(|a, b| a.text == b.text);
    found
}

fn option_expects<'c>(command: &'c Command, long: &str) -> Option<&'c Expects> {
    let option = command.options.iter().find(|option| option.long == long)?;
    option.expects.as_ref()
}

/// Options that begin as the word does, or the values of the one before `=`.
fn options(
    asked: &Asked<'_>,
    command: &Command,
    line: &Line<'_>,
    table: &[(&str, &str, Takes)],
    word: &str,
) -> Vec<Candidate> {
    if let Some((name, value)) = word.split_once('=') {
        let Some((long, _)) = named(name, table) else {
            return vec![];
        };
        return values(asked, command, line, option_expects(command, long), value)
            .into_iter()
            .map(|candidate| candidate.after(&format!("{name}=")))
            .collect();
    }
    command
        .options
        .iter()
        .filter(|option| option.long.starts_with(word) || option.short == word)
        .map(|option| {
            let text = if option.short == word {
                word
            } else {
                &option.long
            };
            Candidate::whole(text, &option.about)
        })
        .collect()
}

fn values(
    asked: &Asked<'_>,
    command: &Command,
    line: &Line<'_>,
    expects: Option<&Expects>,
    word: &str,
) -> Vec<Candidate> {
    let text = |name: &str| line.value(name).map(str::to_owned);
    let place = Arguments {
        config_path: text("--config-path"),
        config_name: text("--config-name"),
        config_dir: text("--config-dir"),
        words: command.configuration_words(&line.words),
        ..Arguments::default()
    };
    let in_situation = |look: &dyn Fn(&Situation<'_>) -> Vec<Candidate>| {
        let Some(repository) = (asked.repository)(&place) else {
            return vec![];
        };
        let multirun = line.has("--multirun");
        look(&Situation::new(
            &repository,
            place.config_name.as_deref().or(asked.config_name),
            place.words.clone(),
            multirun,
        ))
    };
    match expects {
        None | Some(Expects::Anything) => vec![],
        Some(Expects::OneOf(names)) => names
            .iter()
            .filter(|(name, _)| name.starts_with(word))
            .map(|(name, about)| Candidate::whole(name, about))
            .collect(),
        Some(Expects::Folder) => paths(word, true),
        Some(Expects::File) => paths(word, false),
        Some(Expects::FileOrConfiguration) => {
            let words = in_situation(&|situation| words::of(situation, asked.values, word));
            [words, paths(word, false)].concat()
        }
        Some(Expects::Configuration) => {
            in_situation(&|situation| words::of(situation, asked.values, word))
        }
        Some(Expects::Key) => in_situation(&|situation| words::keys(situation, word)),
        Some(Expects::ConfigName) => in_situation(&|situation| {
            let names = situation.repository().options("");
            let names = names.into_iter().filter(|name| name.starts_with(word));
            names.map(|name| Candidate::whole(name, "")).collect()
        }),
    }
}

/// Files and folders whose path begins as the word does. Names with a dot in front are shown to those who type the dot.
pub(super) fn paths(word: &str, only_folders: bool) -> Vec<Candidate> {
    let (folder, prefix) = match word.rfind('/') {
        Some(slash) => word.split_at(slash + 1),
        None => ("", word),
    };
    let home = folder
        .strip_prefix("~/")
        .and_then(|rest| Some(format!("{}/{rest}", env_vars::get(env_vars::HOME)?)));
    let looked_at = home
        .as_deref()
        .unwrap_or(if folder.is_empty() { "." } else { folder });
    let Ok(entries) = fs_err::read_dir(looked_at) else {
        return vec![];
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let is_folder = entry.path().is_dir();
            let fits =
                name.starts_with(prefix) && (prefix.starts_with('.') || !name.starts_with('.'));
            let text = format!("{folder}{name}");
            match is_folder {
                _ if !fits => None,
                true => Some(Candidate::open(format!("{text}/"), "")),
                false => (!only_folders).then(|| Candidate::whole(text, "")),
            }
        })
        .collect()
}

/// The options of a program that is composed: Hydra's and its own.
pub fn launcher_options(own: &[OwnOption]) -> Vec<CommandOption> {
    let hydra = SPECS.iter().map(|spec| {
        let expects = match (spec.takes, spec.names[0]) {
            (Takes::Nothing, _) => None,
            _ if !spec.choices.is_empty() => Some(Expects::OneOf(
                spec.choices
                    .iter()
                    .map(|choice| ((*choice).to_owned(), String::new()))
                    .collect(),
            )),
            (_, "--config-name") => Some(Expects::ConfigName),
            (_, "--package") => Some(Expects::Key),
            _ => Some(value_of(spec.value)),
        };
        CommandOption {
            long: spec.names[0].to_owned(),
            short: spec.names.get(1).copied().unwrap_or_default().to_owned(),
            about: spec.help.to_owned(),
            expects,
            is_optional: spec.takes == Takes::OneOrNothing,
        }
    });
    let own = own.iter().map(|option| CommandOption {
        long: option.name.to_owned(),
        short: String::new(),
        about: option.help.to_owned(),
        expects: option.value.map(value_of),
        is_optional: false,
    });
    hydra.chain(own).collect()
}

/// What a value is, from what the help calls it.
fn value_of(name: &str) -> Expects {
    match name {
        "FOLDER" => Expects::Folder,
        "FILE" => Expects::File,
        "KEY" => Expects::Key,
        _ => Expects::Anything,
    }
}
