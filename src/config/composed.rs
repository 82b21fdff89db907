//! From a request to a composed configuration: the pipeline of `hydra/_internal/config_loader_impl.py`.

use std::sync::Arc;

use indexmap::IndexMap;

use super::ResolvedConfig;
use super::apply::apply;
use super::defaults_list::{DefaultsList, ResultDefault, TreeLine, defaults_list};
use super::hydra_schema;
use super::interpolation::resolve::split_key;
use super::interpolation::resolvers::Times;
use super::interpolation::{Graph, ResolveError, ResolverContext, Resolvers};
use super::merge::{MergeError, merge_at};
use super::override_grammar::{Override, OverrideValue, parse_override};
use super::repository::{ConfigRepository, ConfigSource, SearchPathEntry, placed};
use crate::diag::source::{COMMAND_LINE, Origin, SourceId, SourceMap};
use crate::diag::{Diagnostic, Location};
use crate::yaml::python_text::repr_of;
use crate::yaml::{Integer, Key, Mapping, Node, Value, to_yaml};

/// What to compose.
#[derive(Clone, Copy, Debug)]
pub struct ComposeRequest<'a> {
    /// Where the files are.
    pub repository: &'a ConfigRepository,
    /// Primary file, without `.yaml`; nothing for an empty one.
    pub config_name: Option<&'a str>,
    /// Words of the command line, such as `+trainer.max_steps=10`.
    pub overrides: &'a [String],
}

/// How a composition is used.
#[derive(Clone, Debug, Default)]
pub struct ComposeOptions {
    /// The words may hold sweeps, which are left out, and groups that are `???` are left out too.
    pub multirun: bool,
    /// `hydra.job.name` where the configuration does not say it.
    pub job_name: Option<String>,
    /// Functions of `${…}` beyond the built-in ones.
    pub resolvers: Resolvers,
    /// Values of `${now:…}` that were given out already, so that the jobs of a sweep see one time.
    pub times: Times,
    /// Values that the program sets below `hydra`, such as `job.num`, before anything is resolved.
    pub hydra_values: Vec<(String, Node)>,
}

/// A composed configuration, in which `${…}` still stands.
#[derive(Clone, Debug)]
pub struct Config {
    /// The tree with its `hydra` key.
    full: Node,
    /// The tree without it.
    root: Node,
    choices: IndexMap<String, Option<String>>,
    defaults: Vec<ResultDefault>,
    tree: Vec<TreeLine>,
    warnings: Vec<String>,
    words: Vec<(Override, Origin)>,
    values: Vec<usize>,
    repository: Arc<ConfigRepository>,
    options: ComposeOptions,
}

/// Composes a configuration.
///
/// # Errors
/// A [`Diagnostic`] of class configuration; its code is the name of Hydra's exception.
pub fn compose(request: &ComposeRequest<'_>) -> Result<Config, Diagnostic> {
    compose_with(request, ComposeOptions::default())
}

/// Composes a configuration for a given use.
pub fn compose_with(
    request: &ComposeRequest<'_>,
    options: ComposeOptions,
) -> Result<Config, Diagnostic> {
    let texts = request.repository.texts().clone();
    check_main(request)?;
    let words = parse_words(request.overrides, &texts)?;
    let repository = with_search_path(request, &words)?;
    check_sweeps(&words, options.multirun, &texts)?;
    let list = defaults_list(
        &repository,
        request.config_name,
        &words,
        true,
        options.multirun,
    )?;
    let mut full = merge_files(&list, &repository)?;
    let values: Vec<(&Override, Origin)> = list
        .value_overrides
        .iter()
        .map(|index| (&words[*index].0, words[*index].1))
        .collect();
    apply(&mut full, &values, &texts)?;
    hydra_schema::check(&mut full, false, &texts)?;
    set_runtime(&mut full, request, &words, &list, &repository, &options)?;
    let mut root = full.clone();
    if let Some(mapping) = root.as_map_mut() {
        mapping.shift_remove("hydra");
    }
    Ok(Config {
        full,
        root,
        choices: list.choices,
        defaults: list.defaults,
        tree: list.tree,
        warnings: list.warnings,
        words,
        values: list.value_overrides,
        repository: Arc::new(repository),
        options,
    })
}

/// The defaults list alone, without reading values; `prepend_hydra` puts Hydra's own files first.
///
/// # Errors
/// As [`compose`].
pub fn plan(
    request: &ComposeRequest<'_>,
    prepend_hydra: bool,
    skip_missing: bool,
) -> Result<DefaultsList, Diagnostic> {
    let words = parse_words(request.overrides, request.repository.texts())?;
    defaults_list(
        request.repository,
        request.config_name,
        &words,
        prepend_hydra,
        skip_missing,
    )
}

fn check_main(request: &ComposeRequest<'_>) -> Result<(), Diagnostic> {
    for entry in request.repository.entries() {
        if entry.provider == "main" && !entry.source.is_available() {
            return Err(Diagnostic::configuration(format!(
                "there is no configuration folder `{}`",
                entry.path
            ))
            .code("MissingConfigException"));
        }
    }
    Ok(())
}

/// Parses the words and gives them a text of their own, so that messages can underline them.
pub(crate) fn parse_words(
    words: &[String],
    texts: &SourceMap,
) -> Result<Vec<(Override, Origin)>, Diagnostic> {
    if words.is_empty() {
        return Ok(vec![]);
    }
    let one_line: Vec<String> = words
        .iter()
        .map(|word| word.replace(['\n', '\r'], " "))
        .collect();
    let source = texts.add(COMMAND_LINE, one_line.join(" "));
    let mut parsed = vec![];
    let mut column = 1;
    for word in words {
        let length = word.chars().count();
        match parse_override(word) {
            Ok(word) => parsed.push((word, origin(source, column, length))),
            Err(error) => {
                let before = word[..error.offset.min(word.len())].chars().count();
                let at = origin(source, column + before, 1);
                return Err(placed(
                    Diagnostic::configuration(format!("`{word}`: {}", error.message)),
                    at,
                    texts,
                )
                .code(error.code));
            }
        }
        column += length + 1;
    }
    Ok(parsed)
}

fn origin(source: SourceId, column: usize, length: usize) -> Origin {
    Origin {
        source,
        line: 1,
        column: column as u32,
        length: length as u32,
    }
}

/// `hydra.searchpath` of the command line, else of the primary file, puts entries before the last of the search path.
fn with_search_path(
    request: &ComposeRequest<'_>,
    words: &[(Override, Origin)],
) -> Result<ConfigRepository, Diagnostic> {
    let texts = request.repository.texts();
    let word = words
        .iter()
        .rev()
        .find(|(word, _)| word.key == "hydra.searchpath" && word.prefix().is_empty());
    let (node, provider) = if let Some((word, at)) = word {
        let mut node = word
            .element()
            .map_or_else(Node::empty_map, super::override_grammar::Element::to_node);
        node.origin = *at;
        (Some(node), "hydra.searchpath in command-line")
    } else {
        let primary = match request.config_name {
            Some(name) => request.repository.load(name)?,
            None => None,
        };
        let node = primary.and_then(|file| {
            let path = file.content.child("hydra")?.child("searchpath")?.clone();
            let (mut graph, id) = Graph::new(&file.content, ResolverContext::default());
            let resolved = graph
                .select(id, "hydra.searchpath")
                .ok()
                .flatten()
                .and_then(|id| graph.resolved_copy(id).ok());
            Some(resolved.unwrap_or(path))
        });
        (node, "hydra.searchpath in main")
    };
    let Some(node) = node else {
        return Ok(request.repository.with_further(vec![]));
    };
    let wrong = || {
        placed(
            Diagnostic::configuration(format!(
                "`hydra.searchpath` must be a list of texts, found {}",
                repr_of(&node)
            )),
            node.origin,
            texts,
        )
        .code("ConfigCompositionException")
    };
    let mut further = vec![];
    for item in node.as_list().ok_or_else(wrong)? {
        let path = item.as_str().ok_or_else(wrong)?;
        further.push(
            search_path_entry(provider, path)
                .map_err(|diagnostic| placed(diagnostic, item.origin, texts))?,
        );
    }
    Ok(request.repository.with_further(further))
}

/// An entry of the search path from the text of a user: a folder, `file://…`, `pkg://…`.
pub fn search_path_entry(provider: &str, path: &str) -> Result<SearchPathEntry, Diagnostic> {
    let (scheme, path) = path.split_once("://").unwrap_or(("file", path));
    let (scheme, source) = match scheme {
        "file" => ("file", ConfigSource::Folder(path.into())),
        "pkg" => ("pkg", ConfigSource::Folder("/nonexistent".into())),
        "structured" => ("structured", ConfigSource::Embedded(&[])),
        other => {
            return Err(Diagnostic::configuration(format!(
                "`{other}://` is not a kind of search path: there are file://, pkg:// and structured://"
            ))
            .code("ValueError"));
        }
    };
    Ok(SearchPathEntry {
        provider: provider.to_owned(),
        scheme,
        path: path.to_owned(),
        source,
    })
}

fn check_sweeps(
    words: &[(Override, Origin)],
    multirun: bool,
    texts: &SourceMap,
) -> Result<(), Diagnostic> {
    for (word, at) in words {
        if !word.is_sweep() {
            continue;
        }
        let is_hydra = word.key.starts_with("hydra.") || word.key.starts_with("hydra/");
        let diagnostic = if multirun {
            if !is_hydra {
                continue;
            }
            Diagnostic::configuration(format!(
                "`{}`: keys of `hydra` cannot be swept over",
                word.input
            ))
        } else if let Some(OverrideValue::Choice(choice)) = &word.value
            && choice.simple
        {
            let value = &word.input[word.value_offset..];
            let key = &word.input[..word.value_offset];
            Diagnostic::configuration(format!("`{}` has several values", word.input))
                .hint(format!("for a list, write `{key}[{value}]`"))
                .hint(format!("for a text, write `{key}'{value}'`"))
                .hint("for one job each, add `--multirun`")
        } else {
            Diagnostic::configuration(format!(
                "`{}` is a sweep, which needs `--multirun`",
                word.input
            ))
        };
        return Err(placed(diagnostic, *at, texts).code("ConfigCompositionException"));
    }
    Ok(())
}

fn merge_files(list: &DefaultsList, repository: &ConfigRepository) -> Result<Node, Diagnostic> {
    let texts = repository.texts();
    let mut root = Node::empty_map();
    for default in &list.defaults {
        let Some(file) = repository.load(&default.config_path)? else {
            continue;
        };
        if default.primary && file.content.as_map().is_none() {
            return Err(placed(
                Diagnostic::configuration(format!(
                    "`{}` is the primary configuration and must be a mapping",
                    default.config_path
                )),
                file.content.origin,
                texts,
            )
            .code("ConfigCompositionException"));
        }
        check_own_search_path(default, &file.content, texts)?;
        let result = if default.package.is_empty() {
            merge_at(
                &mut root,
                &[],
                &file.content,
                false,
                &ResolverContext::default(),
            )
        } else {
            let wrapped = wrap(&default.package, file.content.clone());
            merge_at(&mut root, &[], &wrapped, false, &ResolverContext::default())
        };
        result.map_err(|error| merge_refused(default, error, texts))?;
        if default.package.starts_with("hydra") || file.content.child("hydra").is_some() {
            hydra_schema::check(&mut root, true, texts)?;
        }
    }
    Ok(root)
}

fn wrap(package: &str, content: Node) -> Node {
    let mut node = content;
    for part in split_key(package).iter().rev() {
        let origin = node.origin;
        node = Node {
            value: Value::Map(Mapping::from_iter([(Key::from(part.as_str()), node)])),
            origin,
        };
    }
    node
}

/// Only the primary file may set `hydra.searchpath`.
fn check_own_search_path(
    default: &ResultDefault,
    content: &Node,
    texts: &SourceMap,
) -> Result<(), Diagnostic> {
    if default.primary || default.config_path == "hydra/config" {
        return Ok(());
    }
    let key = match default.package.as_str() {
        "" => "hydra.searchpath",
        "hydra" => "searchpath",
        _ => return Ok(()),
    };
    match content.descendant(key) {
        None => Ok(()),
        Some(node) => Err(placed(
            Diagnostic::configuration(format!(
                "in `{}`: only the primary configuration may set `hydra.searchpath`",
                default.config_path
            )),
            node.origin,
            texts,
        )
        .code("ConfigCompositionException")),
    }
}

fn merge_refused(default: &ResultDefault, error: MergeError, texts: &SourceMap) -> Diagnostic {
    let title = format!("in `{}`: {error}", default.config_path);
    let diagnostic = Diagnostic::configuration(title).code("ConfigCompositionException");
    match error {
        MergeError::Kinds {
            here_origin,
            there_origin,
            there,
            ..
        } => {
            let diagnostic = placed(diagnostic, here_origin, texts);
            match texts.location(there_origin) {
                Some(location) => diagnostic.note(format!("it is a {there} at {location}")),
                None => diagnostic,
            }
        }
        MergeError::NotInStruct { origin, .. } => placed(diagnostic, origin, texts),
    }
}

/// The values below `hydra` that a run knows and a file does not.
fn set_runtime(
    full: &mut Node,
    request: &ComposeRequest<'_>,
    words: &[(Override, Origin)],
    list: &DefaultsList,
    repository: &ConfigRepository,
    options: &ComposeOptions,
) -> Result<(), Diagnostic> {
    let is_hydra =
        |word: &Override| word.key.starts_with("hydra.") || word.key.starts_with("hydra/");
    let texts_of = |hydra: bool| {
        let inputs = words.iter().filter(|(word, _)| is_hydra(word) == hydra);
        Node::computed(Value::List(
            inputs
                .map(|(word, _)| Node::text(word.input.as_str()))
                .collect(),
        ))
    };
    let text = |value: &str| Node::text(value);
    set(full, "hydra.overrides.hydra", texts_of(true));
    set(full, "hydra.overrides.task", texts_of(false));
    let choices = list.choices.iter().map(|(key, name)| {
        let value = match name {
            Some(name) => Node::text(name.as_str()),
            None => Node::computed(Value::Null),
        };
        (Key::Str(key.clone()), value)
    });
    set(
        full,
        "hydra.runtime.choices",
        Node::computed(Value::Map(choices.collect())),
    );
    set(full, "hydra.runtime.version", text("1.3.8"));
    set(full, "hydra.runtime.version_base", text("1.3"));
    let cwd = std::env::current_dir().unwrap_or_default();
    set(full, "hydra.runtime.cwd", text(&cwd.display().to_string()));
    let sources = repository.entries().iter().map(|entry| {
        Node::computed(Value::Map(Mapping::from_iter([
            ("path".into(), text(&entry.path)),
            ("schema".into(), text(entry.scheme)),
            ("provider".into(), text(&entry.provider)),
        ])))
    });
    set(
        full,
        "hydra.runtime.config_sources",
        Node::computed(Value::List(sources.collect())),
    );
    if full
        .descendant("hydra.job.name")
        .is_none_or(Node::is_missing)
    {
        set(
            full,
            "hydra.job.name",
            text(options.job_name.as_deref().unwrap_or("app")),
        );
    }
    let dirname = override_dirname(full, words, is_hydra);
    set(full, "hydra.job.override_dirname", text(&dirname));
    let name = match request.config_name {
        Some(name) => text(name),
        None => Node::computed(Value::Null),
    };
    set(full, "hydra.job.config_name", name);
    copy_environment(full)?;
    for (key, node) in &options.hydra_values {
        set(full, &format!("hydra.{key}"), node.clone());
    }
    Ok(())
}

fn copy_environment(full: &mut Node) -> Result<(), Diagnostic> {
    let names: Vec<String> = full
        .descendant("hydra.job.env_copy")
        .and_then(Node::as_list)
        .map(|items| {
            items
                .iter()
                .filter_map(|item| item.as_str().map(str::to_owned))
                .collect()
        })
        .unwrap_or_default();
    for name in names {
        let Some(value) = crate::sys::env_vars::get(&name) else {
            return Err(Diagnostic::configuration(format!(
                "`hydra.job.env_copy` names `{name}`, and that environment variable is not set"
            ))
            .code("KeyError"));
        };
        if let Some(mapping) = full
            .as_map_mut()
            .and_then(|mapping| mapping.get_mut("hydra"))
            .and_then(Node::as_map_mut)
            .and_then(|mapping| mapping.get_mut("job"))
            .and_then(Node::as_map_mut)
            .and_then(|mapping| mapping.get_mut("env_set"))
            .and_then(Node::as_map_mut)
        {
            mapping.insert(Key::Str(name), Node::text(value));
        }
    }
    Ok(())
}

/// The task's words as one name for a folder.
fn override_dirname(
    full: &Node,
    words: &[(Override, Origin)],
    is_hydra: impl Fn(&Override) -> bool,
) -> String {
    let part = |key: &str| full.descendant(&format!("hydra.job.config.override_dirname.{key}"));
    let separator = |key: &str, default: &str| {
        part(key)
            .and_then(Node::as_str)
            .unwrap_or(default)
            .to_owned()
    };
    let excluded: Vec<&str> = part("exclude_keys")
        .and_then(Node::as_list)
        .map(|items| items.iter().filter_map(Node::as_str).collect())
        .unwrap_or_default();
    let mut inputs: Vec<&str> = words
        .iter()
        .filter(|(word, _)| !is_hydra(word) && !excluded.contains(&word.key.as_str()))
        .map(|(word, _)| word.input.as_str())
        .collect();
    inputs.sort_unstable();
    inputs
        .join(&separator("item_sep", ","))
        .replace('=', &separator("kv_sep", "="))
}

/// Sets a value at a dotted key, making mappings on the way.
pub(crate) fn set(root: &mut Node, key: &str, node: Node) {
    let mut at = root;
    for part in key.split('.') {
        if at.as_map().is_none() {
            *at = Node::empty_map();
        }
        let Some(mapping) = at.as_map_mut() else {
            return;
        };
        at = mapping
            .entry(Key::from(part))
            .or_insert_with(|| Node::computed(Value::Null));
    }
    *at = node;
}

impl Config {
    /// The tree without the `hydra` key.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// The tree with the `hydra` key.
    pub fn full(&self) -> &Node {
        &self.full
    }

    /// Group to chosen option, as `hydra:runtime.choices` shows it.
    pub fn choices(&self) -> &IndexMap<String, Option<String>> {
        &self.choices
    }

    /// The option of a group, where one is chosen.
    pub fn choice(&self, group: &str) -> Option<&str> {
        self.choices.get(group)?.as_deref()
    }

    /// The files in the order of merging.
    pub fn defaults_list(&self) -> &[ResultDefault] {
        &self.defaults
    }

    /// The lines of `--info defaults-tree`.
    pub fn defaults_tree(&self) -> &[TreeLine] {
        &self.tree
    }

    /// Things to tell the user that are no errors.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where the files are, with what `hydra.searchpath` added.
    pub fn repository(&self) -> &ConfigRepository {
        &self.repository
    }

    /// The texts that places point into.
    pub fn texts(&self) -> &SourceMap {
        self.repository.texts()
    }

    /// The parsed words of the command line with their places.
    pub fn words(&self) -> &[(Override, Origin)] {
        &self.words
    }

    /// The words that change values, in their order.
    pub(crate) fn value_words(&self) -> impl Iterator<Item = &(Override, Origin)> {
        self.values.iter().map(|index| &self.words[*index])
    }

    /// `file:line:column` of the value at a dotted key.
    pub fn location(&self, key: &str) -> Option<Location> {
        self.texts().location(self.full.descendant(key)?.origin)
    }

    /// What `${…}` may look at.
    pub(crate) fn context(&self) -> ResolverContext<'_> {
        ResolverContext {
            full_tree: Some(&self.full),
            extra: Some(&self.options.resolvers),
            times: self.options.times.clone(),
        }
    }

    /// The resolved value at a dotted key of the tree with the `hydra` key; nothing where it is absent or `???`.
    pub fn select(&self, key: &str) -> Result<Option<Node>, Diagnostic> {
        let (mut graph, id) = Graph::new(&self.full, self.context());
        let found = graph
            .select(id, key)
            .map_err(|error| unresolved(&error, self.texts()))?;
        found
            .map(|id| {
                graph
                    .resolved_copy(id)
                    .map_err(|error| unresolved(&error, self.texts()))
            })
            .transpose()
    }

    /// Replaces every `${…}` by its value; `???` stays and is reported by [`ResolvedConfig::extract`].
    ///
    /// # Errors
    /// The first interpolation that has no value, with the chain of values that need it.
    pub fn resolve(&self) -> Result<ResolvedConfig, Diagnostic> {
        let (mut graph, id) = Graph::new(&self.root, self.context());
        graph
            .resolve_in_place(id)
            .map_err(|error| unresolved(&error, self.texts()))?;
        Ok(ResolvedConfig::new(graph.to_node(id), self.texts().clone()))
    }

    /// Replaces `${…}` in some sections only, so that an unused section whose environment is not set does no harm; the
    /// others are left out.
    pub fn resolve_sections(&self, keys: &[&str]) -> Result<ResolvedConfig, Diagnostic> {
        let (mut graph, root) = Graph::new(&self.root, self.context());
        let mut resolved = Node::empty_map();
        for key in keys {
            let Some(id) = graph.find(root, key) else {
                continue;
            };
            graph
                .resolve_in_place(id)
                .map_err(|error| unresolved(&error, self.texts()))?;
            set(&mut resolved, key, graph.to_node(id));
        }
        Ok(ResolvedConfig::new(resolved, self.texts().clone()))
    }

    /// As `--cfg job` prints it, with `resolve` as `--resolve` does: the whole, or the part at a dotted key.
    pub fn to_yaml(&self, package: Option<&str>) -> Result<String, Diagnostic> {
        self.print(ConfigPart::Job, package, false)
    }

    /// As `--cfg PART [--resolve] [--package PACKAGE]` prints it.
    ///
    /// # Errors
    /// A package that does not exist, or an interpolation that has no value.
    pub fn print(
        &self,
        part: ConfigPart,
        package: Option<&str>,
        resolve: bool,
    ) -> Result<String, Diagnostic> {
        let mut tree = match part {
            ConfigPart::Job => self.root.clone(),
            ConfigPart::All => self.full.clone(),
            ConfigPart::Hydra => {
                let mut tree = self.full.clone();
                if let Some(mapping) = tree.as_map_mut() {
                    mapping.retain(|key, _| key.as_str() == Some("hydra"));
                    if let Some(hydra) = mapping.get_mut("hydra").and_then(Node::as_map_mut) {
                        hydra.shift_remove("help");
                        hydra.shift_remove("hydra_help");
                    }
                }
                tree
            }
        };
        let package = package.filter(|package| *package != "_global_");
        if !resolve && package.is_none() {
            return Ok(to_yaml(&tree));
        }
        let (mut graph, root) = Graph::new(&tree, self.context());
        let id = match package {
            None => root,
            Some(package) => {
                let found = graph
                    .select(root, package)
                    .map_err(|error| unresolved(&error, self.texts()))?;
                let found = found.filter(|id| !graph.to_node(*id).is_null());
                found.ok_or_else(|| no_package(&tree, package))?
            }
        };
        if resolve {
            graph
                .resolve_in_place(id)
                .map_err(|error| unresolved(&error, self.texts()))?;
        }
        tree = graph.to_node(id);
        Ok(match package {
            None => to_yaml(&tree),
            Some(package) if tree.is_container() => {
                format!("# @package {package}\n{}", to_yaml(&tree))
            }
            // The mode is an enumeration to Hydra, which prints its full name.
            Some("hydra.mode") => format!("RunMode.{}\n", crate::yaml::python_text::str_of(&tree)),
            Some(_) => format!("{}\n", crate::yaml::python_text::str_of(&tree)),
        })
    }
}

fn no_package(tree: &Node, package: &str) -> Diagnostic {
    let mut diagnostic = Diagnostic::configuration(format!("the configuration has no `{package}`"))
        .code("SystemExit");
    let (parent, last) = package.rsplit_once('.').unwrap_or(("", package));
    if let Some(mapping) = tree.descendant(parent).and_then(Node::as_map)
        && let Some(near) =
            crate::diag::suggest::did_you_mean(last, mapping.keys().filter_map(Key::as_str))
    {
        let dot = if parent.is_empty() { "" } else { "." };
        diagnostic = diagnostic.hint(format!("did you mean `{parent}{dot}{near}`?"));
    }
    diagnostic
}

/// Which part of a configuration `--cfg` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigPart {
    /// Everything but `hydra`.
    Job,
    /// `hydra` alone.
    Hydra,
    /// Everything.
    All,
}

/// The message for an interpolation that has no value: innermost place first, then the values that need it.
pub(crate) fn unresolved(error: &ResolveError, texts: &SourceMap) -> Diagnostic {
    let mut chain = error.chain.iter();
    let mut diagnostic = match chain.next() {
        Some((key, origin, text)) => {
            let title = format!("`{key}` cannot be resolved: {}", error.message);
            placed(
                Diagnostic::configuration(title).note(format!("its text is `{text}`")),
                *origin,
                texts,
            )
        }
        None => Diagnostic::configuration(error.message.clone()),
    };
    diagnostic.code = Some(error.kind.code());
    for (key, origin, _) in chain.take(10) {
        let place = texts.short_place(*origin).unwrap_or_default();
        diagnostic = diagnostic.note(format!("needed by `{key}` ({place})"));
    }
    match &error.near {
        Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
        None => diagnostic,
    }
}

/// The integer as a value, for `hydra_values`.
pub fn integer(value: i64) -> Node {
    Node::computed(Value::Int(Integer::from(value)))
}
