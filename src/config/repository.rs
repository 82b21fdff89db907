//! Configuration files: where they are looked for, and what has been read already.
//!
//! The first entry of the search path that has a file wins, as a whole. Only files that are reached are read, and each
//! of them once.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::hydra_conf;
use super::interpolation::grammar::{GrammarError, parse_text};
use crate::diag::source::{Origin, SourceId, SourceMap};
use crate::diag::{Diagnostic, excerpt};
use crate::yaml::python_text::key_text;
use crate::yaml::{Key, Mapping, Node, Value, YamlError, parse};

/// Where a part of the search path keeps its files.
#[derive(Clone, Debug)]
pub enum ConfigSource {
    /// A folder of YAML files.
    Folder(PathBuf),
    /// Files that are part of the binary: path relative to the root with its `.yaml`, and text.
    Embedded(&'static [(&'static str, &'static str)]),
}

/// One entry of the search path.
#[derive(Clone, Debug)]
pub struct SearchPathEntry {
    /// Who asked for it: `hydra`, `main`, `command-line`, `hydra.searchpath in main`, `schema`.
    pub provider: String,
    /// `file`, `pkg` or `structured`.
    pub scheme: &'static str,
    /// Path as listings show it.
    pub path: String,
    /// Where the files are.
    pub source: ConfigSource,
}

/// A file, split into its parts.
#[derive(Debug)]
pub struct ConfigFile {
    /// Content without `defaults`.
    pub content: Node,
    /// The `defaults` key, where there is one.
    pub defaults: Option<Node>,
    /// Package of the header, absolute (`_global_…`), or why the header is wrong.
    pub header: Result<Option<String>, String>,
    /// The text.
    pub source: SourceId,
}

type Loaded = Result<Option<Arc<ConfigFile>>, Diagnostic>;

/// The search path, first match wins, and a cache of what was read.
#[derive(Debug)]
pub struct ConfigRepository {
    entries: Vec<SearchPathEntry>,
    texts: SourceMap,
    files: Arc<Mutex<HashMap<(String, String), Loaded>>>,
}

impl ConfigSource {
    /// Whether there is anything to look into.
    pub fn is_available(&self) -> bool {
        match self {
            Self::Folder(folder) => folder.is_dir(),
            Self::Embedded(_) => true,
        }
    }

    fn read(&self, file: &str) -> Option<Result<String, std::io::Error>> {
        match self {
            Self::Folder(folder) => {
                let path = format!("{}/{file}", folder.display());
                Path::new(&path)
                    .is_file()
                    .then(|| fs_err::read_to_string(&path))
            }
            Self::Embedded(files) => files
                .iter()
                .find(|(path, _)| *path == file)
                .map(|(_, text)| Ok((*text).to_owned())),
        }
    }

    fn has_group(&self, group: &str) -> bool {
        match self {
            Self::Folder(folder) => Path::new(&format!("{}/{group}", folder.display())).is_dir(),
            Self::Embedded(files) => {
                group.is_empty() || files.iter().any(|(path, _)| below(path, group).is_some())
            }
        }
    }

    /// Names of files and folders in a folder, without order.
    fn list(&self, group: &str) -> Vec<(String, bool)> {
        match self {
            Self::Folder(folder) => {
                let path = format!("{}/{group}", folder.display());
                let Ok(entries) = fs_err::read_dir(&path) else {
                    return vec![];
                };
                entries
                    .flatten()
                    .filter_map(|entry| {
                        let name = entry.file_name().into_string().ok()?;
                        Some((name, entry.path().is_dir()))
                    })
                    .filter(|(name, _)| name != "__pycache__" && name != "__init__.py")
                    .collect()
            }
            Self::Embedded(files) => files
                .iter()
                .filter_map(|(path, _)| below(path, group))
                .map(|rest| match rest.split_once('/') {
                    Some((folder, _)) => (folder.to_owned(), true),
                    None => (rest.to_owned(), false),
                })
                .collect(),
        }
    }
}

/// The rest of a path below a group.
fn below<'a>(path: &'a str, group: &str) -> Option<&'a str> {
    let group = group.trim_matches('/');
    if group.is_empty() {
        return Some(path);
    }
    path.strip_prefix(group)?.strip_prefix('/')
}

impl ConfigRepository {
    /// A repository over the application's sources, with Hydra's own files before them.
    pub fn new(sources: Vec<ConfigSource>) -> Self {
        let mut entries = vec![];
        for (index, source) in sources.into_iter().enumerate() {
            let provider = if index == 0 { "main" } else { "command-line" };
            entries.push(SearchPathEntry::new(provider, source));
        }
        Self::with_entries(entries)
    }

    /// A repository over entries of the search path, with Hydra's own files before and after them.
    pub fn with_entries(application: Vec<SearchPathEntry>) -> Self {
        let mut entries = vec![SearchPathEntry {
            provider: "hydra".to_owned(),
            scheme: "pkg",
            path: "hydra.conf".to_owned(),
            source: ConfigSource::Embedded(hydra_conf::PACKAGE),
        }];
        entries.extend(application);
        entries.push(SearchPathEntry {
            provider: "schema".to_owned(),
            scheme: "structured",
            path: String::new(),
            source: ConfigSource::Embedded(hydra_conf::STRUCTURED),
        });
        Self {
            entries,
            texts: SourceMap::new(),
            files: Arc::default(),
        }
    }

    /// The same with further entries before the last, for `hydra.searchpath`.
    pub(crate) fn with_further(&self, further: Vec<SearchPathEntry>) -> Self {
        let mut entries = self.entries.clone();
        let last = entries.len().saturating_sub(1);
        entries.splice(last..last, further);
        Self {
            entries,
            texts: self.texts.clone(),
            files: Arc::clone(&self.files),
        }
    }

    /// The search path.
    pub fn entries(&self) -> &[SearchPathEntry] {
        &self.entries
    }

    /// The texts that were read, for messages.
    pub fn texts(&self) -> &SourceMap {
        &self.texts
    }

    /// Whether a group exists anywhere.
    pub fn has_group(&self, group: &str) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.source.has_group(group))
    }

    /// Options of a group (files, without `.yaml`), sorted.
    pub fn options(&self, group: &str) -> Vec<String> {
        self.listing(group, false)
    }

    /// Groups in a group, sorted.
    pub fn groups(&self, group: &str) -> Vec<String> {
        self.listing(group, true)
    }

    fn listing(&self, group: &str, folders: bool) -> Vec<String> {
        let mut names = BTreeSet::new();
        for entry in &self.entries {
            for (name, is_folder) in entry.source.list(group) {
                if folders && is_folder {
                    names.insert(name);
                } else if !folders
                    && !is_folder
                    && let Some(stem) = name.strip_suffix(".yaml")
                {
                    names.insert(stem.to_owned());
                }
            }
        }
        names.into_iter().collect()
    }

    /// The file at a path such as `cluster/bcm`, or nothing where no entry has it.
    pub fn load(&self, path: &str) -> Loaded {
        let file = format!("{}.yaml", path.strip_suffix(".yaml").unwrap_or(path));
        for entry in &self.entries {
            let key = (format!("{}://{}", entry.scheme, entry.path), file.clone());
            let known = self
                .files
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&key)
                .cloned();
            let loaded = if let Some(loaded) = known {
                loaded
            } else {
                let loaded = self.read(entry, &file);
                self.files
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(key, loaded.clone());
                loaded
            };
            if !matches!(loaded, Ok(None)) {
                return loaded;
            }
        }
        Ok(None)
    }

    fn read(&self, entry: &SearchPathEntry, file: &str) -> Loaded {
        let Some(text) = entry.source.read(file) else {
            return Ok(None);
        };
        let name = match &entry.source {
            ConfigSource::Folder(folder) => format!("{}/{file}", folder.display()),
            ConfigSource::Embedded(_) if entry.scheme == "file" => format!("<built in>/{file}"),
            ConfigSource::Embedded(_) => format!("{}://{}/{file}", entry.scheme, entry.path),
        };
        let text = text.map_err(|error| {
            Diagnostic::configuration(format!("cannot read `{name}`: {error}")).code("OSError")
        })?;
        let source = self.texts.add(name, text.as_str());
        let mut content = self.content(&text, source).map_err(|mut diagnostic| {
            // What OmegaConf refuses (and not PyYAML) is a problem of the composition to Hydra.
            if let Some("GrammarParseError" | "KeyValidationError" | "UnsupportedValueType") =
                diagnostic.code
            {
                diagnostic.code = Some("ConfigCompositionException");
            }
            diagnostic
        })?;
        let defaults = content
            .as_map_mut()
            .and_then(|mapping| mapping.shift_remove("defaults"));
        Ok(Some(Arc::new(ConfigFile {
            content,
            defaults,
            header: package_header(&text),
            source,
        })))
    }

    fn content(&self, text: &str, source: SourceId) -> Result<Node, Diagnostic> {
        load_text(text, source, &self.texts)
    }
}

impl SearchPathEntry {
    /// An entry for a source.
    pub fn new(provider: impl Into<String>, source: ConfigSource) -> Self {
        let path = match &source {
            ConfigSource::Folder(folder) => folder.display().to_string(),
            ConfigSource::Embedded(_) => "<built in>".to_owned(),
        };
        Self {
            provider: provider.into(),
            scheme: "file",
            path,
            source,
        }
    }
}

/// Reads a text as `OmegaConf.load` does: a tree whose texts with `${` are in the language.
///
/// # Errors
/// A [`Diagnostic`] with the place in the text.
pub fn load_text(text: &str, source: SourceId, texts: &SourceMap) -> Result<Node, Diagnostic> {
    let node = parse(text, source).map_err(|error| yaml_diagnostic(&error, source, texts))?;
    let Some(node) = node else {
        return Ok(Node::empty_map());
    };
    let node = match &node.value {
        Value::Null => Node::empty_map(),
        Value::Str(text) => bare_text(text, node.origin, source, texts)?,
        Value::Map(_) | Value::List(_) => node,
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Bytes(_) => {
            return Err(placed(
                Diagnostic::configuration("expected a mapping, found a single value"),
                node.origin,
                texts,
            )
            .code("OSError"));
        }
    };
    check_interpolations(&node, "", texts)?;
    Ok(node)
}

/// A file that holds nothing but a text: OmegaConf reads the text as YAML once more, and makes a key of a plain one.
fn bare_text(
    text: &str,
    origin: Origin,
    source: SourceId,
    texts: &SourceMap,
) -> Result<Node, Diagnostic> {
    let again = parse(text, source).map_err(|error| {
        let message = format!("the text in this file is read as YAML again: {error}");
        placed(Diagnostic::configuration(message), origin, texts).code(error.kind.code())
    })?;
    let key = match again.map(|node| node.value) {
        None | Some(Value::Null) => return Ok(Node::empty_map()),
        Some(Value::Str(text)) => Key::Str(text),
        Some(value @ (Value::Map(_) | Value::List(_))) => return Ok(Node { value, origin }),
        Some(_) => {
            return Err(placed(
                Diagnostic::configuration("expected a mapping, found a single value"),
                origin,
                texts,
            )
            .code("AssertionError"));
        }
    };
    Ok(Node {
        value: Value::Map(Mapping::from_iter([(key, Node::computed(Value::Null))])),
        origin,
    })
}

/// The message for a text that YAML refuses.
pub(crate) fn yaml_diagnostic(
    error: &YamlError,
    source: SourceId,
    texts: &SourceMap,
) -> Diagnostic {
    let origin = |line: usize, column: usize| Origin {
        source,
        line: line as u32,
        column: column as u32,
        length: 1,
    };
    let mut diagnostic = placed(
        Diagnostic::configuration(error.message.clone()),
        origin(error.line, error.column),
        texts,
    )
    .code(error.kind.code());
    if let Some((what, line, column)) = &error.related
        && let Some(location) = texts.location(origin(*line, *column))
    {
        diagnostic = diagnostic.note(format!("{what}: {location}"));
    }
    diagnostic
}

/// Adds a place and its line.
pub(crate) fn placed(diagnostic: Diagnostic, origin: Origin, texts: &SourceMap) -> Diagnostic {
    let Some(location) = texts.location(origin) else {
        return diagnostic;
    };
    let mut diagnostic = diagnostic.at(location);
    if diagnostic.excerpt.is_none() {
        diagnostic.excerpt = excerpt::draw(texts, origin);
    }
    diagnostic
}

/// Whether every text with `${` of a tree that no file holds is in the language of interpolations.
///
/// # Errors
/// A [`Diagnostic`] for the first that is not.
pub fn check_texts(node: &Node) -> Result<(), Diagnostic> {
    check_interpolations(node, "", &SourceMap::new())
}

/// Every text with `${` must be in the language of interpolations.
pub(crate) fn check_interpolations(
    node: &Node,
    path: &str,
    texts: &SourceMap,
) -> Result<(), Diagnostic> {
    let Err((steps, node, error)) = check_below(node) else {
        return Ok(());
    };
    let mut path = path.to_owned();
    for step in steps.iter().rev() {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(step);
    }
    let text = node.as_str().unwrap_or("");
    let diagnostic = Diagnostic::configuration(format!(
        "`{path}`: the interpolation cannot be read: {}",
        error.message
    ))
    .note(format!("the text is `{text}`"));
    Err(placed(diagnostic, node.origin, texts).code("GrammarParseError"))
}

/// The first text that is not in the language, with its path from the last step to the first: paths are made only for
/// messages.
fn check_below(node: &Node) -> Result<(), (Vec<String>, &Node, GrammarError)> {
    match &node.value {
        Value::Str(text) if text.contains("${") => {
            parse_text(text).map_err(|error| (vec![], node, error))?;
        }
        Value::Map(mapping) => {
            for (key, child) in mapping {
                check_below(child).map_err(|mut found| {
                    found.0.push(key_text(key));
                    found
                })?;
            }
        }
        Value::List(items) => {
            for (index, child) in items.iter().enumerate() {
                check_below(child).map_err(|mut found| {
                    found.0.push(index.to_string());
                    found
                })?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The package of the header, made absolute. Only the first 512 characters are looked at, and an ordinary comment
/// ends the header, as in Hydra.
fn package_header(text: &str) -> Result<Option<String>, String> {
    let end = text
        .char_indices()
        .nth(512)
        .map_or(text.len(), |(index, _)| index);
    let mut package = None;
    for line in text[..end].lines() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let Some(comment) = line.strip_prefix('#') else {
            break;
        };
        if !comment.trim_start().starts_with('@') {
            break;
        }
        let header = line.trim_start_matches('#').trim();
        let words: Vec<&str> = header.split(' ').filter(|word| !word.is_empty()).collect();
        match words[..] {
            [key, value] => {
                if key == "@package" {
                    package = Some(value.to_owned());
                }
            }
            [_] => {
                return Err(format!(
                    "expected a header like `# @package a.b`, found `{header}`"
                ));
            }
            _ => return Err(format!("too many words in the header `{header}`")),
        }
    }
    Ok(package.map(|package| {
        if package.is_empty() || package == "_global_" {
            "_global_".to_owned()
        } else if package.starts_with("_global_.") {
            package
        } else {
            format!("_global_.{package}")
        }
    }))
}
