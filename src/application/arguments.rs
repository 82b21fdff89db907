//! The options that every program composed by Hydra has, read from the command line by the rules of Python's argparse.
//!
//! People have these rules in their fingers and in their scripts: unique beginnings of long options, `-cjob`,
//! `--cfg=job`, an option whose value may be left out. One thing is wider: words may stand on both sides of an option,
//! where argparse wants them together.

use std::ffi::OsStr;
use std::path::Path;

use crate::config::{ConfigPart, InfoPart};
use crate::diag::Diagnostic;
use crate::diag::suggest::did_you_mean;

/// What the command line asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Compose and run the task; the configuration may turn it into a sweep.
    #[default]
    Run,
    /// One job for each combination of the words' values.
    Multirun,
    /// Print the composed configuration.
    Cfg(ConfigPart),
    /// Print how it was composed.
    Info(InfoPart),
    /// Write completion scripts, or answer one.
    ShellCompletion,
    /// Print the program's help.
    Help,
    /// Print the options of the composition.
    HydraHelp,
    /// Print the version.
    Version,
}

/// A command line, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// What is asked for.
    pub mode: Mode,
    /// Words such as `db=mysql`, in their order.
    pub words: Vec<String>,
    /// `--config-path`
    pub config_path: Option<String>,
    /// `--config-name`
    pub config_name: Option<String>,
    /// `--config-dir`
    pub config_dir: Option<String>,
    /// `--package`
    pub package: Option<String>,
    /// `--resolve`
    pub resolve: bool,
    /// The program's own options that were given, with their values.
    pub own: Vec<(&'static str, Option<String>)>,
}

impl Arguments {
    /// Whether the program's own option `name` was given.
    pub fn has(&self, name: &str) -> bool {
        self.own.iter().any(|(own, _)| *own == name)
    }

    /// The value of the program's own option `name`, the last where it was given twice.
    pub fn value(&self, name: &str) -> Option<&str> {
        let mut given = self.own.iter().rev();
        given.find(|(own, _)| *own == name)?.1.as_deref()
    }
}

/// An option that only this program has.
#[derive(Clone, Copy, Debug)]
pub struct OwnOption {
    /// Its name, with two dashes.
    pub name: &'static str,
    /// What its value is called in the help; nothing where it takes none.
    pub value: Option<&'static str>,
    /// A line of help.
    pub help: &'static str,
}

/// How many words an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    One,
    OneOrNothing,
}

/// One option, whoever's it is.
pub(super) struct Spec {
    pub(super) names: &'static [&'static str],
    pub(super) takes: Takes,
    /// Called so in the help.
    pub(super) value: &'static str,
    pub(super) choices: &'static [&'static str],
    pub(super) help: &'static str,
}

const INFO: &[&str] = &[
    "all",
    "config",
    "defaults",
    "defaults-tree",
    "plugins",
    "searchpath",
];
const CFG: &[&str] = &["job", "hydra", "all"];

/// Hydra's options. The first name is the one that messages use.
pub(super) const SPECS: &[Spec] = &[
    spec(&["--help", "-h"], "print this help"),
    spec(&["--hydra-help"], "print the help of the composition"),
    spec(&["--version"], "print the version"),
    Spec {
        value: "job|hydra|all",
        choices: CFG,
        ..with_value(
            &["--cfg", "-c"],
            "",
            "print the composed configuration and do nothing else",
        )
    },
    spec(
        &["--resolve"],
        "with --cfg: replace every ${…} by its value",
    ),
    with_value(
        &["--package", "-p"],
        "KEY",
        "with --cfg: only the part at this key",
    ),
    spec(&["--run", "-r"], "run, which is what happens anyhow"),
    spec(
        &["--multirun", "-m"],
        "one job for each combination of the words' values",
    ),
    spec(
        &["--shell-completion", "-sc"],
        "install=bash, install=zsh, install=fish: print the completion script",
    ),
    with_value(
        &["--config-path", "-cp"],
        "FOLDER",
        "folder that stands in for the program's own conf/",
    ),
    with_value(
        &["--config-name", "-cn"],
        "NAME",
        "primary file, without .yaml",
    ),
    with_value(
        &["--config-dir", "-cd"],
        "FOLDER",
        "a further folder, searched after the main one",
    ),
    with_value(
        &["--experimental-rerun"],
        "FILE",
        "not here: give the words of .hydra/overrides.yaml again",
    ),
    Spec {
        takes: Takes::OneOrNothing,
        value: "WHAT",
        choices: INFO,
        ..with_value(
            &["--info", "-i"],
            "",
            "print how the configuration was composed: all, config, defaults, defaults-tree, plugins, searchpath",
        )
    },
];

const fn spec(names: &'static [&'static str], help: &'static str) -> Spec {
    Spec {
        names,
        takes: Takes::Nothing,
        value: "",
        choices: &[],
        help,
    }
}

const fn with_value(
    names: &'static [&'static str],
    value: &'static str,
    help: &'static str,
) -> Spec {
    Spec {
        takes: Takes::One,
        value,
        ..spec(names, help)
    }
}

/// The options' help, one a line: Hydra's, then the program's own.
pub fn options_help(own: &[OwnOption]) -> String {
    let mut lines: Vec<(String, &str)> = SPECS
        .iter()
        .map(|spec| {
            let value = match (spec.takes, spec.value) {
                (Takes::Nothing, _) => String::new(),
                (Takes::One, value) => format!(" {value}"),
                (Takes::OneOrNothing, value) => format!(" [{value}]"),
            };
            (format!("{}{value}", spec.names.join(", ")), spec.help)
        })
        .collect();
    for option in own {
        let value = option.value.map(|value| format!(" {value}"));
        lines.push((
            format!("{}{}", option.name, value.unwrap_or_default()),
            option.help,
        ));
    }
    lines
        .iter()
        .map(|(names, help)| format!("  {names:34} {help}\n"))
        .collect()
}

/// An option that a word names: which, under what name, and the value behind `=` or behind one letter.
#[derive(Clone, Debug)]
struct Found<'a> {
    option: usize,
    name: String,
    value: Option<&'a str>,
}

/// What a word is. As argparse does, all words are looked at before the first one has an effect.
enum Word<'a> {
    Option(Found<'a>),
    Unknown,
    Plain,
}

struct Parser<'a> {
    own: &'a [OwnOption],
    words: &'a [String],
}

/// Takes the command line (without the program's name) apart.
///
/// # Errors
/// A [`Diagnostic`] of code `SystemExit` where argparse would print its usage, and of `ValueError` where Hydra raises one.
pub fn parse(words: &[String], own: &[OwnOption]) -> Result<Arguments, Diagnostic> {
    Parser { own, words }.parse()
}

impl<'a> Parser<'a> {
    fn parse(&self) -> Result<Arguments, Diagnostic> {
        let mut arguments = Arguments::default();
        let mut modes: Vec<Mode> = vec![];
        let mut unknown: Vec<&str> = vec![];
        let end = self.words.iter().position(|word| word == "--");
        let (before, after) = match end {
            Some(end) => (&self.words[..end], &self.words[end + 1..]),
            None => (self.words, &[][..]),
        };
        let kinds = before
            .iter()
            .map(|word| self.classify(word))
            .collect::<Result<Vec<_>, _>>()?;
        let mut at = 0;
        while at < before.len() {
            let word = before[at].as_str();
            let mut found = match &kinds[at] {
                Word::Plain => {
                    arguments.words.push(word.to_owned());
                    at += 1;
                    continue;
                }
                Word::Unknown => {
                    unknown.push(word);
                    at += 1;
                    continue;
                }
                Word::Option(found) => found.clone(),
            };
            at += 1;
            loop {
                let takes = self.takes(found.option);
                if takes == Takes::Nothing {
                    self.set(&mut arguments, &mut modes, &found, None)?;
                    // `-mr`: what follows one letter may be further letters.
                    let Some(rest) = found.value else { break };
                    found = self.next_letter(&found, rest)?;
                    continue;
                }
                let mut value = found.value;
                if value.is_none() && matches!(kinds.get(at), Some(Word::Plain)) {
                    value = Some(before[at].as_str());
                    at += 1;
                }
                if value.is_none() && takes == Takes::One {
                    return Err(
                        usage(format!("`{}` needs a value", self.shown(found.option)))
                            .hint(self.example(found.option)),
                    );
                }
                self.set(&mut arguments, &mut modes, &found, value)?;
                break;
            }
            if modes.last() == Some(&Mode::Version) {
                // Printed as soon as it is read, whatever follows.
                arguments.mode = Mode::Version;
                return Ok(arguments);
            }
        }
        arguments.words.extend_from_slice(after);
        if !unknown.is_empty() {
            return Err(self.unknown(&unknown));
        }
        decide(arguments, &modes)
    }

    fn names(&self) -> impl Iterator<Item = (usize, &'static str)> + '_ {
        let hydra = SPECS.iter().enumerate();
        let hydra =
            hydra.flat_map(|(index, spec)| spec.names.iter().map(move |name| (index, *name)));
        let own = self.own.iter().enumerate();
        hydra.chain(own.map(|(index, option)| (SPECS.len() + index, option.name)))
    }

    fn takes(&self, option: usize) -> Takes {
        match SPECS.get(option) {
            Some(spec) => spec.takes,
            None if self.own[option - SPECS.len()].value.is_some() => Takes::One,
            None => Takes::Nothing,
        }
    }

    /// The option as messages name it.
    fn shown(&self, option: usize) -> String {
        match SPECS.get(option) {
            Some(spec) => spec.names.join("/"),
            None => self.own[option - SPECS.len()].name.to_owned(),
        }
    }

    fn example(&self, option: usize) -> String {
        match SPECS.get(option) {
            Some(spec) => format!(
                "{} {}",
                spec.names[0],
                spec.choices.first().unwrap_or(&spec.value)
            ),
            None => {
                let option = self.own[option - SPECS.len()];
                format!("{} {}", option.name, option.value.unwrap_or(""))
            }
        }
    }

    fn exact(&self, name: &str) -> Option<usize> {
        let mut names = self.names();
        names
            .find(|(_, known)| *known == name)
            .map(|(option, _)| option)
    }

    /// As argparse's `_parse_optional`: what a word is.
    fn classify(&self, word: &'a str) -> Result<Word<'a>, Diagnostic> {
        if !word.starts_with('-') || word.len() == 1 {
            return Ok(Word::Plain);
        }
        let found = |option, name: &str, value| {
            Ok(Word::Option(Found {
                option,
                name: name.to_owned(),
                value,
            }))
        };
        if let Some(option) = self.exact(word) {
            return found(option, word, None);
        }
        let split = word.split_once('=');
        if let Some((name, value)) = split
            && let Some(option) = self.exact(name)
        {
            return found(option, name, Some(value));
        }
        let mut matches: Vec<(usize, &str, Option<&'a str>)> = vec![];
        if word.starts_with("--") {
            let (prefix, value) = split.map_or((word, None), |(name, value)| (name, Some(value)));
            let long = self.names().filter(|(_, name)| name.starts_with(prefix));
            matches.extend(long.map(|(option, name)| (option, name, value)));
        } else {
            // One letter and its value, or the beginning of a name of several letters.
            let letter_end = word
                .char_indices()
                .nth(2)
                .map_or(word.len(), |(end, _)| end);
            let (letter, value) = word.split_at(letter_end);
            for (option, name) in self.names() {
                if name == letter {
                    matches.push((option, name, Some(value)));
                } else if name.starts_with(word) {
                    matches.push((option, name, None));
                }
            }
        }
        match matches[..] {
            [(option, name, value)] => return found(option, name, value),
            [] => {}
            _ => {
                let names: Vec<&str> = matches.iter().map(|(_, name, _)| *name).collect();
                return Err(
                    usage(format!("`{word}` may be any of {}", names.join(", ")))
                        .hint(names[0].to_owned()),
                );
            }
        }
        if is_negative_number(word) || word.contains(' ') {
            return Ok(Word::Plain);
        }
        Ok(Word::Unknown)
    }

    /// `rest` stands behind an option that takes no value: further one-letter options, or a mistake.
    fn next_letter(&self, found: &Found<'a>, rest: &'a str) -> Result<Found<'a>, Diagnostic> {
        let refused = || {
            usage(format!(
                "`{}` takes no value, found `{rest}`",
                self.shown(found.option)
            ))
            .hint(found.name.clone())
        };
        if found.name.starts_with("--") {
            return Err(refused());
        }
        let end = rest
            .char_indices()
            .nth(1)
            .map_or(rest.len(), |(end, _)| end);
        let name = format!("-{}", &rest[..end]);
        let option = self.exact(&name).ok_or_else(refused)?;
        let value = Some(&rest[end..]).filter(|value| !value.is_empty());
        Ok(Found {
            option,
            name,
            value,
        })
    }

    fn set(
        &self,
        arguments: &mut Arguments,
        modes: &mut Vec<Mode>,
        found: &Found<'_>,
        value: Option<&str>,
    ) -> Result<(), Diagnostic> {
        let Some(spec) = SPECS.get(found.option) else {
            let name = self.own[found.option - SPECS.len()].name;
            arguments.own.push((name, value.map(str::to_owned)));
            return Ok(());
        };
        if let Some(value) = value
            && !spec.choices.is_empty()
            && !spec.choices.contains(&value)
        {
            return Err(wrong_choice(spec, value));
        }
        let text = || value.map(str::to_owned);
        match spec.names[0] {
            "--help" => modes.push(Mode::Help),
            "--hydra-help" => modes.push(Mode::HydraHelp),
            "--version" => modes.push(Mode::Version),
            "--cfg" => {
                modes.retain(|mode| !matches!(mode, Mode::Cfg(_)));
                modes.push(Mode::Cfg(match value {
                    Some("hydra") => ConfigPart::Hydra,
                    Some("all") => ConfigPart::All,
                    _ => ConfigPart::Job,
                }));
            }
            "--info" => {
                modes.retain(|mode| !matches!(mode, Mode::Info(_)));
                modes.push(Mode::Info(match value {
                    Some("config") => InfoPart::Config,
                    Some("defaults") => InfoPart::Defaults,
                    Some("defaults-tree") => InfoPart::DefaultsTree,
                    Some("plugins") => InfoPart::Plugins,
                    Some("searchpath") => InfoPart::SearchPath,
                    _ => InfoPart::All,
                }));
            }
            "--run" => modes.push(Mode::Run),
            "--multirun" => modes.push(Mode::Multirun),
            "--shell-completion" => modes.push(Mode::ShellCompletion),
            "--resolve" => arguments.resolve = true,
            "--package" => arguments.package = text(),
            "--config-path" => arguments.config_path = text(),
            "--config-name" => arguments.config_name = text(),
            "--config-dir" => arguments.config_dir = text(),
            _ => {
                return Err(usage(
                    "`--experimental-rerun` reads a pickle of Python, which is not done here",
                )
                .hint("give the words of the run's .hydra/overrides.yaml again"));
            }
        }
        Ok(())
    }

    fn unknown(&self, words: &[&str]) -> Diagnostic {
        let all: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        let diagnostic = usage(format!("there is no option {}", all.join(", ")));
        let names = self.names().map(|(_, name)| name);
        let typed = words[0].split('=').next().unwrap_or(words[0]);
        let bare = words[0].trim_start_matches('-');
        match did_you_mean(typed, names) {
            Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
            // Other launchers have their keys as options.
            None if bare.contains('=') => diagnostic
                .note("keys of the configuration have no dashes in front")
                .hint(bare),
            None => diagnostic.hint("--help lists the options"),
        }
    }
}

/// Which of the modes counts; Hydra's order of checks.
fn decide(mut arguments: Arguments, modes: &[Mode]) -> Result<Arguments, Diagnostic> {
    if let Some(path) = &arguments.config_path
        && let Some("yaml" | "yml") = Path::new(path).extension().and_then(OsStr::to_str)
    {
        return Err(
            Diagnostic::configuration("`--config-path` is a folder, found a file")
                .code("ValueError")
                .hint(split_path(path)),
        );
    }
    if modes.contains(&Mode::Help) {
        arguments.mode = Mode::Help;
        return Ok(arguments);
    }
    let shows = modes.iter().any(|mode| matches!(mode, Mode::Cfg(_)));
    if arguments.resolve && !shows {
        return Err(
            Diagnostic::configuration("`--resolve` goes with `--cfg` or `--help`")
                .code("ValueError")
                .hint("--cfg job --resolve"),
        );
    }
    if modes.contains(&Mode::HydraHelp) {
        arguments.mode = Mode::HydraHelp;
        return Ok(arguments);
    }
    let mut asked: Vec<Mode> = vec![];
    for mode in modes {
        if !asked.contains(mode) {
            asked.push(*mode);
        }
    }
    if asked.len() > 1 {
        return Err(Diagnostic::configuration(
            "only one of `--run`, `--multirun`, `--cfg`, `--info` and `--shell-completion` at a time",
        )
        .code("ValueError"));
    }
    arguments.mode = asked.first().copied().unwrap_or_default();
    Ok(arguments)
}

fn usage(title: impl Into<String>) -> Diagnostic {
    Diagnostic::configuration(title).code("SystemExit")
}

fn wrong_choice(spec: &Spec, value: &str) -> Diagnostic {
    let diagnostic = usage(format!("`{}` cannot be `{value}`", spec.names.join("/")))
        .note(format!("expected one of: {}", spec.choices.join(", ")));
    if spec.takes == Takes::OneOrNothing && value.contains('=') {
        // The word was meant for the configuration.
        return diagnostic.hint(format!("{value} {}", spec.names[0]));
    }
    match did_you_mean(value, spec.choices.iter().copied()) {
        Some(near) => diagnostic.hint(format!("{} {near}", spec.names[0])),
        None => diagnostic,
    }
}

/// `--config-path DIR --config-name NAME` for the path of a file.
fn split_path(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    format!("--config-path {folder} --config-name {stem}")
}

/// argparse takes `-1` and `-.5` for values, since no option looks like them.
fn is_negative_number(word: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some(number) = word.strip_prefix('-') else {
        return false;
    };
    match number.split_once('.') {
        None => digits(number),
        Some((whole, fraction)) => (whole.is_empty() || digits(whole)) && digits(fraction),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &[OwnOption] = &[
        OwnOption {
            name: "--dry-run",
            value: None,
            help: "",
        },
        OwnOption {
            name: "--templates-dir",
            value: Some("FOLDER"),
            help: "",
        },
    ];

    fn parsed(line: &[&str]) -> Result<Arguments, Diagnostic> {
        let words: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        parse(&words, OWN)
    }

    #[test]
    fn options_are_known_by_their_letters_and_by_unique_beginnings() {
        for line in [
            &["--cfg", "job"][..],
            &["--cfg=job"],
            &["-cjob"],
            &["-c", "job"],
            &["-c=job"],
            &["--cf", "job"],
        ] {
            assert_eq!(
                parsed(line).unwrap().mode,
                Mode::Cfg(ConfigPart::Job),
                "{line:?}"
            );
        }
        let arguments =
            parsed(&["--config-na", "types", "-cd=x", "--pack", "app", "-cjob"]).unwrap();
        assert_eq!(arguments.config_name.as_deref(), Some("types"));
        assert_eq!(arguments.config_dir.as_deref(), Some("x"));
        assert_eq!(arguments.package.as_deref(), Some("app"));
        let arguments = parsed(&["--dry", "--templates-dir=t", "a=1"]).unwrap();
        assert!(arguments.has("--dry-run"));
        assert_eq!(arguments.value("--templates-dir"), Some("t"));
        assert_eq!(arguments.words, ["a=1"]);
    }

    #[test]
    fn words_may_stand_anywhere_and_behind_two_dashes_everything_is_a_word() {
        let arguments = parsed(&["a=1", "--cfg", "job", "b=2", "--", "--c=3"]).unwrap();
        assert_eq!(arguments.words, ["a=1", "b=2", "--c=3"]);
        assert_eq!(parsed(&["-1", "-x y"]).unwrap().words, ["-1", "-x y"]);
        assert_eq!(
            parsed(&["-p", "-.5", "--cfg", "job"])
                .unwrap()
                .package
                .as_deref(),
            Some("-.5")
        );
    }

    #[test]
    fn the_value_of_info_may_be_left_out_and_swallows_a_word_that_follows() {
        assert_eq!(
            parsed(&["a=1", "--info"]).unwrap().mode,
            Mode::Info(InfoPart::All)
        );
        assert_eq!(
            parsed(&["--info", "defaults-tree", "a=1"]).unwrap().mode,
            Mode::Info(InfoPart::DefaultsTree)
        );
        let swallowed = parsed(&["--info", "db=pg"]).unwrap_err();
        assert_eq!(swallowed.hints, ["db=pg --info"]);
    }

    #[test]
    fn what_argparse_refuses_is_a_usage_error_and_what_hydra_refuses_a_value_error() {
        for (line, code) in [
            (&["--conf", "job"][..], "SystemExit"),
            (&["-cnfoo"], "SystemExit"),
            (&["--cfg", "nope"], "SystemExit"),
            (&["--cfg"], "SystemExit"),
            (&["--cfg", "--resolve"], "SystemExit"),
            (&["-x=1"], "SystemExit"),
            (&["--multirun=1"], "SystemExit"),
            (&["-mx"], "SystemExit"),
            (&["--cfg", "job", "--multirun"], "ValueError"),
            (&["--resolve"], "ValueError"),
            (&["-cp", "conf/config.yaml", "--help"], "ValueError"),
        ] {
            assert_eq!(parsed(line).unwrap_err().code, Some(code), "{line:?}");
        }
        assert_eq!(
            parsed(&["--mutlirun"]).unwrap_err().hints,
            ["did you mean `--multirun`?"]
        );
        assert_eq!(
            parsed(&["--trainer.devices=2"]).unwrap_err().hints,
            ["trainer.devices=2"]
        );
    }

    #[test]
    fn help_comes_before_what_else_is_asked_and_the_version_before_everything() {
        assert_eq!(
            parsed(&["--help", "--cfg", "job", "-m"]).unwrap().mode,
            Mode::Help
        );
        assert_eq!(
            parsed(&["--version", "--nonsense"]).unwrap().mode,
            Mode::Version
        );
        assert_eq!(parsed(&["-mr"]).unwrap_err().code, Some("ValueError"));
        assert_eq!(parsed(&["-m", "-m"]).unwrap().mode, Mode::Multirun);
    }
}
