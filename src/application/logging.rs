//! What `hydra.hydra_logging` and `hydra.job_logging` mean here: where the lines about a sweep go, how they look, and
//! which log files are made.
//!
//! Hydra hands the two sections to Python's `logging.config.dictConfig`. This follows its rules for levels, handlers,
//! propagation and formats as far as the lines of the launcher show them; classes of handlers that only Python has are
//! accepted and write nothing. Nothing of ptune's own log (`tracing`) goes through here.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::config::Config;
use crate::diag::Diagnostic;
use crate::sys::clock;
use crate::yaml::python_text::{key_text, repr_of, str_of};
use crate::yaml::{Node, Value};

/// Python's number of a level.
pub(super) const DEBUG: i64 = 10;
/// Python's number of a level.
pub(super) const INFO: i64 = 20;

/// The logger of the lines about jobs; configurations may name it or one above it.
const LOGGER: &str = "hydra._internal.core_plugins.basic_launcher";

#[derive(Clone, Debug)]
enum Target {
    Stdout,
    Stderr,
    File { path: PathBuf, truncate: bool },
    Nowhere,
}

#[derive(Clone, Debug)]
struct Handler {
    target: Target,
    level: i64,
    format: Format,
}

#[derive(Clone, Debug)]
struct Format {
    text: String,
    date: Option<String>,
    /// Of a formatter class that knows more fields than Python's own.
    lenient: bool,
}

#[derive(Clone, Debug, Default)]
struct Logger {
    level: Option<i64>,
    handlers: Vec<Handler>,
    /// Its lines do not go on to the loggers above it.
    stops: bool,
    disabled: bool,
}

/// The state of Python's `logging` module that our lines meet.
#[derive(Clone, Debug, Default)]
pub(super) struct Logging {
    root_level: Option<i64>,
    root_handlers: Vec<Handler>,
    loggers: BTreeMap<String, Logger>,
}

fn wrong(section: &str, problem: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::configuration(format!("`hydra.{section}`: {problem}")).code("ValueError")
}

impl Logging {
    /// Takes over `hydra.job_logging` or `hydra.hydra_logging`, then `hydra.verbose`. Log files are made at once, empty,
    /// as Python makes them.
    ///
    /// # Errors
    /// What `dictConfig` refuses, and a log file that cannot be made.
    pub(super) fn configure(&mut self, config: &Config, section: &str) -> Result<()> {
        let tree = config.select(&format!("hydra.{section}"))?;
        if let Some(tree) = tree.filter(|tree| tree.as_map().is_some()) {
            let Some(root) = tree.child("root") else {
                return Err(wrong(section, "there is no `root`").code("KeyError").into());
            };
            if !root.is_null() {
                self.apply(&tree, root, section)?;
            }
        }
        self.verbose(config)
    }

    fn apply(&mut self, tree: &Node, root: &Node, section: &str) -> Result<()> {
        match tree.child("version").map(|node| &node.value) {
            Some(Value::Int(version)) if version.to_string() == "1" => {}
            _ => return Err(wrong(section, "expected `version: 1`").into()),
        }
        let formats = formats(tree, section)?;
        let handlers = handlers(tree, &formats, section)?;
        let named = |node: &Node| -> Result<Vec<Handler>> {
            let Some(names) = node.child("handlers").and_then(Node::as_list) else {
                return Ok(vec![]);
            };
            names
                .iter()
                .map(|name| {
                    let name = str_of(name);
                    handlers.get(&name).cloned().ok_or_else(|| {
                        let known: Vec<&str> = handlers.keys().map(String::as_str).collect();
                        wrong(section, format!("there is no handler `{name}`"))
                            .note(format!("handlers: {}", known.join(", ")))
                            .into()
                    })
                })
                .collect()
        };
        let mut configured = BTreeMap::new();
        if let Some(loggers) = tree.child("loggers").and_then(Node::as_map) {
            for (name, node) in loggers {
                configured.insert(key_text(name), node);
            }
        }
        let disable = !matches!(
            tree.child("disable_existing_loggers")
                .map(|node| &node.value),
            Some(Value::Bool(false))
        );
        // Our logger is there before any configuration, like those that were named before.
        self.loggers.entry(LOGGER.to_owned()).or_default();
        for (name, logger) in &mut self.loggers {
            if configured.contains_key(name) {
                continue;
            }
            let is_below = configured
                .keys()
                .any(|other| name.starts_with(&format!("{other}.")));
            if is_below {
                logger.level = None;
                logger.stops = false;
                logger.handlers.clear();
            } else {
                logger.disabled = disable;
            }
        }
        for (name, node) in configured {
            let logger = Logger {
                level: level(node, section)?,
                handlers: named(node)?,
                stops: matches!(
                    node.child("propagate").map(|node| &node.value),
                    Some(Value::Bool(false))
                ),
                disabled: false,
            };
            self.loggers.insert(name, logger);
        }
        self.root_level = level(root, section)?.or(self.root_level);
        self.root_handlers = named(root)?;
        Ok(())
    }

    /// `hydra.verbose`: true for everything, or names of loggers.
    fn verbose(&mut self, config: &Config) -> Result<()> {
        let Some(verbose) = config.select("hydra.verbose")? else {
            return Ok(());
        };
        let names = match &verbose.value {
            Value::Bool(true) => {
                self.root_level = Some(DEBUG);
                return Ok(());
            }
            Value::Bool(false) => return Ok(()),
            Value::Str(name) => vec![name.clone()],
            Value::List(names) => names.iter().map(str_of).collect(),
            _ => {
                return Err(Diagnostic::configuration(format!(
                    "`hydra.verbose` must be true, false or names of loggers, found `{}`",
                    str_of(&verbose)
                ))
                .code("AssertionError")
                .into());
            }
        };
        for name in names {
            self.loggers.entry(name).or_default().level = Some(DEBUG);
        }
        Ok(())
    }

    /// Our logger and those above it, without the root.
    fn chain(&self) -> impl Iterator<Item = &Logger> {
        let mut names = vec![];
        let mut name = LOGGER;
        loop {
            names.push(name);
            match name.rsplit_once('.') {
                Some((above, _)) => name = above,
                None => break,
            }
        }
        names.into_iter().filter_map(|name| self.loggers.get(name))
    }

    /// Whether a line of this level would be looked at.
    pub(super) fn is_enabled(&self, severity: i64) -> bool {
        let own_is_disabled = self
            .loggers
            .get(LOGGER)
            .is_some_and(|logger| logger.disabled);
        let level = self
            .chain()
            .find_map(|logger| logger.level.filter(|level| *level != 0))
            .or(self.root_level)
            // Python's root starts at WARNING.
            .unwrap_or(30);
        !own_is_disabled && severity >= level
    }

    /// Writes one line wherever the configuration wants it.
    pub(super) fn log(&mut self, severity: i64, message: &str, out: &mut dyn Write) -> Result<()> {
        if !self.is_enabled(severity) {
            return Ok(());
        }
        let mut handlers: Vec<Handler> = vec![];
        let mut stopped = false;
        for logger in self.chain() {
            handlers.extend(logger.handlers.iter().cloned());
            if logger.stops {
                stopped = true;
                break;
            }
        }
        if !stopped {
            handlers.extend(self.root_handlers.iter().cloned());
        }
        for handler in handlers {
            if severity < handler.level {
                continue;
            }
            let Some(mut line) = handler.format.line(severity, message) else {
                tracing::warn!(
                    "the format `{}` names an unknown field",
                    handler.format.text
                );
                continue;
            };
            line.push('\n');
            match &handler.target {
                Target::Stdout => out.write_all(line.as_bytes())?,
                Target::Stderr => std::io::stderr().write_all(line.as_bytes())?,
                Target::File { path, .. } => append(path, &line)?,
                Target::Nowhere => {}
            }
        }
        Ok(())
    }
}

fn append(path: &Path, line: &str) -> Result<()> {
    let mut file = fs_err::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?;
    Ok(file.write_all(line.as_bytes())?)
}

fn level(node: &Node, section: &str) -> Result<Option<i64>> {
    let Some(node) = node.child("level").filter(|node| !node.is_null()) else {
        return Ok(None);
    };
    if let Value::Int(number) = &node.value {
        return Ok(number.to_string().parse().ok());
    }
    Ok(Some(match str_of(node).as_str() {
        "NOTSET" => 0,
        "DEBUG" => DEBUG,
        "INFO" => INFO,
        "WARN" | "WARNING" => 30,
        "ERROR" => 40,
        "CRITICAL" | "FATAL" => 50,
        other => {
            return Err(wrong(section, format!("there is no level `{other}`"))
                .note("levels: DEBUG, INFO, WARNING, ERROR, CRITICAL")
                .into());
        }
    }))
}

fn level_name(severity: i64) -> String {
    match severity {
        DEBUG => "DEBUG".to_owned(),
        INFO => "INFO".to_owned(),
        other => format!("Level {other}"),
    }
}

fn formats(tree: &Node, section: &str) -> Result<BTreeMap<String, Format>> {
    let mut formats = BTreeMap::new();
    let Some(given) = tree.child("formatters").and_then(Node::as_map) else {
        return Ok(formats);
    };
    for (name, node) in given {
        let name = key_text(name);
        let text = |key: &str| node.child(key).filter(|node| !node.is_null()).map(str_of);
        let format = Format {
            text: text("format").unwrap_or_else(|| "%(message)s".to_owned()),
            date: text("datefmt"),
            lenient: node.child("()").is_some() || node.child("class").is_some(),
        };
        let style = text("style").unwrap_or_else(|| "%".to_owned());
        if style != "%" && !format.lenient {
            return Err(wrong(
                section,
                format!("formatter `{name}`: only the style `%` is known here, found `{style}`"),
            )
            .into());
        }
        if !format.lenient
            && pieces(&format.text)
                .iter()
                .all(|piece| piece.field.is_none())
        {
            return Err(wrong(
                section,
                format!(
                    "formatter `{name}`: the format `{}` names no field",
                    format.text
                ),
            )
            .hint("a format looks like `[%(asctime)s][%(levelname)s] %(message)s`")
            .into());
        }
        formats.insert(name, format);
    }
    Ok(formats)
}

/// Every handler, in the order of their names; those with files make them.
fn handlers(
    tree: &Node,
    formats: &BTreeMap<String, Format>,
    section: &str,
) -> Result<BTreeMap<String, Handler>> {
    let mut given = BTreeMap::new();
    if let Some(handlers) = tree.child("handlers").and_then(Node::as_map) {
        given.extend(handlers.iter().map(|(name, node)| (key_text(name), node)));
    }
    let mut handlers = BTreeMap::new();
    for (name, node) in given {
        let format = match node.child("formatter").filter(|node| !node.is_null()) {
            None => Format {
                text: "%(message)s".to_owned(),
                date: None,
                lenient: false,
            },
            Some(format) => formats.get(&str_of(format)).cloned().ok_or_else(|| {
                wrong(
                    section,
                    format!(
                        "handler `{name}`: there is no formatter `{}`",
                        str_of(format)
                    ),
                )
            })?,
        };
        let class = node.child("class").or_else(|| node.child("()"));
        let Some(class) = class.map(str_of) else {
            return Err(wrong(section, format!("handler `{name}` has no `class`")).into());
        };
        let target = match class.rsplit('.').next().unwrap_or_default() {
            "StreamHandler" => {
                let stream = node.child("stream").map(str_of).unwrap_or_default();
                if stream.ends_with("stdout") {
                    Target::Stdout
                } else {
                    Target::Stderr
                }
            }
            "FileHandler"
            | "RotatingFileHandler"
            | "TimedRotatingFileHandler"
            | "WatchedFileHandler" => {
                let Some(path) = node.child("filename").map(str_of) else {
                    return Err(
                        wrong(section, format!("handler `{name}` has no `filename`")).into(),
                    );
                };
                let target = Target::File {
                    path: std::path::absolute(&path).unwrap_or_else(|_| path.into()),
                    truncate: node.child("mode").map(str_of).as_deref() == Some("w"),
                };
                let is_late = matches!(
                    node.child("delay").map(|node| &node.value),
                    Some(Value::Bool(true))
                );
                if !is_late {
                    make_file(&target, &name, section)?;
                }
                target
            }
            _ => Target::Nowhere,
        };
        let level = level(node, section)?.unwrap_or(0);
        handlers.insert(
            name,
            Handler {
                target,
                level,
                format,
            },
        );
    }
    Ok(handlers)
}

fn make_file(target: &Target, name: &str, section: &str) -> Result<()> {
    let Target::File { path, truncate } = target else {
        return Ok(());
    };
    let made = fs_err::OpenOptions::new()
        .create(true)
        .append(!*truncate)
        .write(true)
        .truncate(*truncate)
        .open(path);
    match made {
        Ok(_) => Ok(()),
        Err(error) => Err(wrong(section, format!("handler `{name}`: {error}")).into()),
    }
}

/// A part of a format: text, then perhaps a field.
#[derive(Debug, Default, PartialEq)]
struct Piece {
    text: String,
    field: Option<Field>,
}

/// `%(name)-8.3s`
#[derive(Debug, Default, PartialEq)]
struct Field {
    name: String,
    left: bool,
    zeros: bool,
    width: usize,
    precision: Option<usize>,
    kind: char,
}

/// A format in Python's `%` style; what is not a field stays as it is.
fn pieces(format: &str) -> Vec<Piece> {
    let mut pieces = vec![];
    let mut piece = Piece::default();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        piece.text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            piece.text.push('%');
            rest = after;
        } else if let Some((field, after)) = field(rest) {
            piece.field = Some(field);
            pieces.push(std::mem::take(&mut piece));
            rest = after;
        } else {
            piece.text.push('%');
        }
    }
    piece.text.push_str(rest);
    if !piece.text.is_empty() {
        pieces.push(piece);
    }
    pieces
}

/// What follows a percent sign: `(name)`, flags, width, precision, kind.
fn field(text: &str) -> Option<(Field, &str)> {
    let (name, mut rest) = text.strip_prefix('(')?.split_once(')')?;
    let mut field = Field {
        name: name.to_owned(),
        ..Field::default()
    };
    while let Some(flag) = rest.chars().next().filter(|c| "#0+ -".contains(*c)) {
        field.left |= flag == '-';
        field.zeros |= flag == '0';
        rest = &rest[1..];
    }
    let number = |rest: &mut &str| -> Option<usize> {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let value = rest[..digits].parse().ok();
        *rest = &rest[digits..];
        value
    };
    field.width = number(&mut rest).unwrap_or(0).min(1000);
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        field.precision = Some(number(&mut rest).unwrap_or(0));
    }
    field.kind = rest
        .chars()
        .next()
        .filter(|c| "diouxefgcrsa".contains(*c))?;
    Some((field, &rest[1..]))
}

impl Format {
    /// A line, or nothing where the format names a field that no record has.
    fn line(&self, severity: i64, message: &str) -> Option<String> {
        let mut line = String::new();
        for piece in pieces(&self.text) {
            line.push_str(&piece.text);
            let Some(field) = &piece.field else {
                continue;
            };
            let value = match field.name.as_str() {
                "message" => message.to_owned(),
                "name" => LOGGER.to_owned(),
                "levelname" => level_name(severity),
                "levelno" => severity.to_string(),
                "asctime" => match &self.date {
                    Some(format) => clock::format_local_time(format),
                    None => {
                        let mut text = clock::format_local_time("%Y-%m-%d %H:%M:%S,%f");
                        text.truncate(text.len().saturating_sub(3));
                        text
                    }
                },
                "msecs" => clock::format_local_time("%f")[..3].to_owned(),
                "created" => clock::format_local_time("%s.%f"),
                "process" => std::process::id().to_string(),
                "processName" => "MainProcess".to_owned(),
                "threadName" => "MainThread".to_owned(),
                "module" => "basic_launcher".to_owned(),
                "filename" => "basic_launcher.py".to_owned(),
                "funcName" => "launch".to_owned(),
                // Places in Python's files.
                "pathname" | "lineno" | "thread" | "relativeCreated" | "taskName" => "-".to_owned(),
                _ if self.lenient => String::new(),
                _ => return None,
            };
            let value = match field.kind {
                'r' | 'a' => repr_of(&Node::text(value)),
                _ => value,
            };
            line.push_str(&field.aligned(&value));
        }
        Some(line)
    }
}

impl Field {
    fn aligned(&self, value: &str) -> String {
        let value: String = match self.precision {
            Some(precision) if "rsa".contains(self.kind) => value.chars().take(precision).collect(),
            _ => value.to_owned(),
        };
        let missing = self.width.saturating_sub(value.chars().count());
        let is_number = "diouxefg".contains(self.kind);
        if self.left {
            value + &" ".repeat(missing)
        } else if self.zeros && is_number {
            "0".repeat(missing) + &value
        } else {
            " ".repeat(missing) + &value
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: &str) -> Option<String> {
        Format {
            text: format.to_owned(),
            date: Some("%%".to_owned()),
            lenient: false,
        }
        .line(INFO, "hello")
    }

    #[test]
    fn a_line_is_laid_out_as_pythons_percent_format_does() {
        assert_eq!(
            line("[%(asctime)s]100%% %(levelname)-8s|%(levelname)8s|%(levelno)05d %(message).4s")
                .unwrap(),
            "[%]100% INFO    |    INFO|00020 hell"
        );
    }

    #[test]
    fn a_field_that_no_record_has_drops_the_line() {
        assert_eq!(line("%(massage)s"), None);
    }

    #[test]
    fn levels_are_those_of_the_nearest_logger_that_has_one() {
        let mut logging = Logging::default();
        assert!(!logging.is_enabled(INFO), "python's root starts at WARNING");
        logging.root_level = Some(INFO);
        assert!(logging.is_enabled(INFO));
        logging.loggers.insert(
            "hydra".to_owned(),
            Logger {
                level: Some(40),
                ..Logger::default()
            },
        );
        assert!(!logging.is_enabled(INFO));
    }
}
