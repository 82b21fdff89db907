//! A composed configuration, and what can be asked of it.

use std::sync::Arc;

use indexmap::IndexMap;

use super::ComposeOptions;
use super::runtime::set;
use crate::config::ResolvedConfig;
use crate::config::defaults_list::shortened;
use crate::config::defaults_list::{ResultDefault, TreeLine};
use crate::config::interpolation::{Graph, ResolveError, ResolverContext};
use crate::config::override_grammar::Override;
use crate::config::report::together;
use crate::config::repository::{ConfigRepository, placed};
use crate::diag::source::{Origin, SourceMap};
use crate::diag::{Diagnostic, Location};
use crate::yaml::python_text::key_text;
use crate::yaml::{Key, Node, Value, to_yaml};

/// A composed configuration, in which `${…}` still stands.
#[derive(Clone, Debug)]
pub struct Config {
    /// The tree with its `hydra` key.
    pub(super) full: Node,
    /// The tree without it.
    pub(super) root: Node,
    pub(super) choices: IndexMap<String, Option<String>>,
    pub(super) defaults: Vec<ResultDefault>,
    pub(super) tree: Vec<TreeLine>,
    pub(super) warnings: Vec<String>,
    pub(super) words: Vec<(Override, Origin)>,
    pub(super) values: Vec<usize>,
    pub(super) repository: Arc<ConfigRepository>,
    pub(super) options: ComposeOptions,
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

    /// Sets a value below `hydra` that only a run knows, such as `runtime.output_dir`.
    pub(crate) fn set_hydra_value(&mut self, key: &str, node: Node) {
        set(&mut self.full, &format!("hydra.{key}"), node);
    }

    /// Chooses the mode where nobody did, as if `hydra.mode=…` stood at the end of the command line.
    pub(crate) fn set_mode(&mut self, mode: &str) {
        let mut words = self
            .full
            .descendant("hydra.overrides.hydra")
            .and_then(Node::as_list)
            .map(<[Node]>::to_vec)
            .unwrap_or_default();
        words.push(Node::text(format!("hydra.mode={mode}")));
        self.set_hydra_value("overrides.hydra", Node::computed(Value::List(words)));
        self.set_hydra_value("mode", Node::text(mode));
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
    /// All interpolations that have no value, each with the chain of values that need it.
    pub fn resolve(&self) -> Result<ResolvedConfig, Diagnostic> {
        let keys: Vec<String> = self
            .root
            .as_map()
            .map(|mapping| mapping.keys().map(key_text).collect())
            .unwrap_or_default();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.resolve_sections(&keys)
    }

    /// Replaces `${…}` in some sections only, so that an unused section whose environment is not set does no harm; the
    /// others are left out.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn resolve_sections(&self, keys: &[&str]) -> Result<ResolvedConfig, Diagnostic> {
        let (mut graph, root) = Graph::new(&self.root, self.context());
        let mut resolved = Node::empty_map();
        let mut errors: Vec<ResolveError> = vec![];
        for key in keys {
            let Some(id) = graph.find(root, key) else {
                continue;
            };
            errors.extend(graph.resolve_all_in_place(id));
            set(&mut resolved, key, graph.to_node(id));
        }
        match together(all_unresolved(&errors, self.texts())) {
            Some(diagnostic) => Err(diagnostic),
            None => Ok(ResolvedConfig::new(
                resolved,
                self.texts().clone(),
                graph.became_missing().to_vec(),
            )),
        }
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
        let package = package.filter(|package| *package != "_global_");
        if !resolve && package.is_none() {
            match part {
                ConfigPart::Job => return Ok(to_yaml(&self.root)),
                ConfigPart::All => return Ok(to_yaml(&self.full)),
                ConfigPart::Hydra => {}
            }
        }
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
            let errors = graph.resolve_all_strictly(id);
            if let Some(diagnostic) = together(all_unresolved(&errors, self.texts())) {
                return Err(diagnostic);
            }
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

/// One message for each value that has none; a value that several others need is told of once, with all of them.
fn all_unresolved(errors: &[ResolveError], texts: &SourceMap) -> Vec<Diagnostic> {
    let mut found: Vec<(ResolveError, Vec<String>)> = vec![];
    for error in errors {
        let innermost = error.chain.first().map(|(key, _, _)| key);
        let known = found.iter_mut().find(|(other, _)| {
            innermost.is_some() && other.chain.first().map(|(key, _, _)| key) == innermost
        });
        match known {
            Some((_, also)) => also.extend(error.chain.last().map(|(key, _, _)| key.clone())),
            None => found.push((error.clone(), vec![])),
        }
    }
    found
        .iter()
        .map(|(error, also)| {
            let diagnostic = unresolved(error, texts);
            if also.is_empty() {
                return diagnostic;
            }
            let also: Vec<String> = also.iter().map(|key| format!("`{key}`")).collect();
            let also: Vec<&str> = also.iter().map(String::as_str).collect();
            diagnostic.note(format!("also needed by {}", shortened(&also)))
        })
        .collect()
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
