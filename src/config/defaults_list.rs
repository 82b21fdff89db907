//! The defaults list: which files make up a configuration, in which order, and where each is put.
//!
//! Follows `hydra/_internal/defaults_list.py` of Hydra 1.3: the tree is built depth first and each list in reverse, so
//! that an override in a later entry is known before an earlier one is expanded.

use indexmap::IndexMap;

use super::interpolation::{Graph, ResolverContext};
use super::override_grammar::{Element, Override, OverrideKind};
use super::repository::{ConfigRepository, SearchPathEntry, placed};
use crate::diag::Diagnostic;
use crate::diag::source::{Origin, SourceMap};
use crate::diag::suggest::did_you_mean;
use crate::yaml::python_text::{key_text, repr_of, str_of};
use crate::yaml::{Key, MISSING, Mapping, Node, Value};

/// Name of the primary file where none is asked for.
pub const EMPTY_CONFIG: &str = "_dummy_empty_config_";
/// Deeper trees include themselves.
const MAX_DEPTH: usize = 100;

/// One file of the final list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultDefault {
    /// Path of the file without `.yaml`.
    pub config_path: String,
    /// Where its content is put; empty for the root.
    pub package: String,
    /// The file whose list contains it; nothing at the root.
    pub parent: Option<String>,
    /// The file's own content, in a list of its own.
    pub is_self: bool,
    /// The primary file.
    pub primary: bool,
    /// `group@package`, for a choice of a group.
    pub override_key: Option<String>,
}

/// The final list and what is known about it.
#[derive(Debug, Default)]
pub struct DefaultsList {
    /// The files in the order of merging.
    pub defaults: Vec<ResultDefault>,
    /// The tree they were made from, for listings.
    pub tree: Vec<TreeLine>,
    /// Group to option, in the order in which Hydra records them.
    pub choices: IndexMap<String, Option<String>>,
    /// Words that are not about groups, by their number.
    pub value_overrides: Vec<usize>,
    /// Warnings.
    pub warnings: Vec<String>,
}

/// A line of `--info defaults-tree`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeLine {
    /// Depth, from 0 for the root.
    pub depth: usize,
    /// What the line says.
    pub label: String,
    /// Whether lines below belong to it.
    pub has_children: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Choice {
    Null,
    One(String),
    Several(Vec<String>),
}

#[derive(Clone, Debug)]
struct InputDefault {
    /// Group of a choice; nothing for a file, `_self_` included.
    group: Option<String>,
    /// Path of a file, or the option of a group.
    choice: Choice,
    /// After `@`, `_here_` and `_group_` replaced.
    package: Option<String>,
    header: Option<String>,
    parent_base: String,
    parent_package: String,
    optional: bool,
    is_override: bool,
    external_append: bool,
    deleted: bool,
    primary: bool,
    origin: Origin,
}

#[derive(Debug)]
struct TreeNode {
    node: InputDefault,
    children: Vec<TreeNode>,
    /// Whether the node has a list of its own, even an empty one.
    expanded: bool,
}

impl InputDefault {
    fn file(path: &str, origin: Origin) -> Self {
        Self {
            group: None,
            choice: Choice::One(path.to_owned()),
            package: None,
            header: None,
            parent_base: String::new(),
            parent_package: String::new(),
            optional: false,
            is_override: false,
            external_append: false,
            deleted: false,
            primary: false,
            origin,
        }
    }

    fn is_self(&self) -> bool {
        self.group.is_none() && self.choice == Choice::One("_self_".to_owned())
    }

    /// The option or the path.
    fn name(&self) -> Option<&str> {
        match &self.choice {
            Choice::One(name) => Some(name),
            Choice::Null | Choice::Several(_) => None,
        }
    }

    fn is_missing(&self) -> bool {
        self.name() == Some(MISSING)
    }

    fn is_interpolation(&self) -> bool {
        self.name().is_some_and(|name| name.contains("${"))
    }

    /// Folder part of the path as written.
    fn relative_group(&self) -> &str {
        if let Some(group) = &self.group {
            group.strip_prefix('/').unwrap_or(group)
        } else {
            let path = self.name().unwrap_or("");
            let path = path.strip_prefix('/').unwrap_or(path);
            path.rfind('/').map_or("", |index| &path[..index])
        }
    }

    fn is_absolute(&self) -> bool {
        match &self.group {
            Some(group) => group.starts_with('/'),
            None => self.name().is_some_and(|path| path.starts_with('/')),
        }
    }

    /// The group, or the folder of the file, from the root.
    fn group_path(&self) -> String {
        if self.is_self() {
            return self.parent_base.clone();
        }
        let relative = self.relative_group();
        if self.is_absolute() || self.parent_base.is_empty() {
            relative.to_owned()
        } else if relative.is_empty() {
            self.parent_base.clone()
        } else {
            format!("{}/{relative}", self.parent_base)
        }
    }

    fn config_path(&self) -> String {
        let name = self.name().unwrap_or("");
        let last = match &self.group {
            Some(_) => name,
            None => name.rfind('/').map_or(name, |index| &name[index + 1..]),
        };
        let group = self.group_path();
        // A name with slashes at its front keeps them: `training=/gpt3/5b` is a path with two.
        if group.is_empty() {
            last.to_owned()
        } else {
            format!("{group}/{last}")
        }
    }

    fn default_package(&self) -> String {
        self.group_path().replace('/', ".")
    }

    /// Own package: after `@`, else of the header, else of the path as written.
    fn own_package(&self, with_header: bool) -> String {
        if let Some(package) = &self.package {
            return package.clone();
        }
        match &self.header {
            Some(header) if with_header => header.clone(),
            _ => self.relative_group().replace('/', "."),
        }
    }

    fn final_package(&self, with_header: bool) -> String {
        let own = self.own_package(with_header);
        let joined = match (self.parent_package.is_empty(), own.is_empty()) {
            (true, _) => own,
            (false, true) => self.parent_package.clone(),
            (false, false) => format!("{}.{own}", self.parent_package),
        };
        match joined.rfind("_global_") {
            None => joined,
            Some(index) => {
                let rest = &joined[index + "_global_".len()..];
                rest.strip_prefix('.').unwrap_or(rest).to_owned()
            }
        }
    }

    fn override_key(&self) -> String {
        let key = self.group_path();
        let package = self.final_package(false);
        if package == self.default_package() {
            key
        } else if package.is_empty() {
            format!("{key}@_global_")
        } else {
            format!("{key}@{package}")
        }
    }

    fn set_parent(&mut self, base: &str, package: &str) {
        base.clone_into(&mut self.parent_base);
        package.clone_into(&mut self.parent_package);
        if let Some(own) = &self.package
            && own.contains("_group_")
        {
            let replaced = own.replace("_group_", &self.default_package());
            self.package = Some(format!("_global_.{replaced}"));
        }
    }
}

/// A change of a choice that somebody asked for.
struct ChoiceOverride {
    choice: Choice,
    /// The file that asked; nothing for the command line.
    asked_by: Option<String>,
    used: bool,
    origin: Origin,
}

struct Deletion {
    name: Option<String>,
    used: bool,
    word: usize,
}

struct Builder<'a> {
    repository: &'a ConfigRepository,
    texts: &'a SourceMap,
    words: &'a [(Override, Origin)],
    skip_missing: bool,
    overrides: IndexMap<String, ChoiceOverride>,
    appended: Vec<InputDefault>,
    deletions: IndexMap<String, Deletion>,
    choices: IndexMap<String, Option<String>>,
    keys_of_group: IndexMap<String, Vec<String>>,
    value_overrides: Vec<usize>,
    warnings: Vec<String>,
    depth: usize,
}

type Build<T> = Result<T, Diagnostic>;

fn refused(title: impl Into<String>) -> Diagnostic {
    Diagnostic::configuration(title).code("ConfigCompositionException")
}

/// Builds the list of a primary file under the words of the command line.
///
/// `prepend_hydra` puts Hydra's own configuration first; `skip_missing` leaves groups that are `???` out instead of
/// refusing them.
pub(crate) fn defaults_list(
    repository: &ConfigRepository,
    config_name: Option<&str>,
    words: &[(Override, Origin)],
    prepend_hydra: bool,
    skip_missing: bool,
) -> Build<DefaultsList> {
    let mut builder = Builder {
        repository,
        texts: repository.texts(),
        words,
        skip_missing,
        overrides: IndexMap::new(),
        appended: vec![],
        deletions: IndexMap::new(),
        choices: IndexMap::new(),
        keys_of_group: IndexMap::new(),
        value_overrides: vec![],
        warnings: vec![],
        depth: 0,
    };
    builder.sort_words()?;
    let mut primary = InputDefault::file(config_name.unwrap_or(EMPTY_CONFIG), Origin::COMPUTED);
    primary.primary = true;
    // The virtual root is walked from its last child to its first, as every list is.
    let primary = builder.expand(primary, None, true, false)?;
    let mut roots = vec![primary];
    if prepend_hydra {
        let hydra = InputDefault::file("hydra/config", Origin::COMPUTED);
        roots.insert(0, builder.expand(hydra, None, false, false)?);
    }
    let mut defaults = vec![];
    for root in &roots {
        collect(root, None, None, prepend_hydra, &mut defaults);
    }
    check_repeated(&defaults)?;
    builder.check_used()?;
    let mut tree = vec![TreeLine {
        depth: 0,
        label: "<root>".to_owned(),
        has_children: true,
    }];
    for root in &roots {
        draw(root, 1, &mut tree);
    }
    Ok(DefaultsList {
        defaults,
        tree,
        choices: builder.choices,
        value_overrides: builder.value_overrides,
        warnings: builder.warnings,
    })
}

impl Builder<'_> {
    /// Words about groups are taken here, the others are left for later.
    fn sort_words(&mut self) -> Build<()> {
        let words = self.words;
        for (index, (word, origin)) in words.iter().enumerate() {
            if word.is_sweep() {
                continue;
            }
            let value = word.element();
            if matches!(value, Some(Element::Dict(_))) || !self.repository.has_group(&word.key) {
                self.value_overrides.push(index);
                continue;
            }
            let key = word.key_and_package();
            if word.kind == OverrideKind::ForceAdd {
                return Err(self
                    .at_word(
                        index,
                        refused(format!(
                            "`{}`: `++` works on values, and `{}` is a group",
                            word.input, word.key
                        )),
                    )
                    .hint(format!(
                        "write `{key}={}` or `+{key}={}`",
                        written(value),
                        written(value)
                    )));
            }
            if word.kind == OverrideKind::Delete {
                let name = match value {
                    None | Some(Element::Null) => None,
                    Some(element) => match element.as_text() {
                        Some(text) => Some(text.to_owned()),
                        None => {
                            return Err(self.at_word(index, not_an_option(&word.key, element)));
                        }
                    },
                };
                self.deletions.insert(
                    key,
                    Deletion {
                        name,
                        used: false,
                        word: index,
                    },
                );
                continue;
            }
            let choice = match value {
                Some(Element::List(items)) => Choice::Several(
                    items
                        .iter()
                        .map(|item| match item.as_text() {
                            Some(text) => Ok(text.to_owned()),
                            None => Err(self.at_word(index, not_an_option(&word.key, item))),
                        })
                        .collect::<Build<_>>()?,
                ),
                Some(element) => match element.as_text() {
                    Some(text) => Choice::One(text.to_owned()),
                    None => return Err(self.at_word(index, not_an_option(&word.key, element))),
                },
                None => continue,
            };
            if word.kind == OverrideKind::Add {
                let mut appended = InputDefault::file("", *origin);
                appended.group = Some(word.key.clone());
                appended.choice = choice;
                appended.package.clone_from(&word.package);
                appended.external_append = true;
                self.appended.push(appended);
            } else {
                self.overrides.insert(
                    key,
                    ChoiceOverride {
                        choice,
                        asked_by: None,
                        used: false,
                        origin: *origin,
                    },
                );
            }
        }
        Ok(())
    }

    fn at_word(&self, index: usize, diagnostic: Diagnostic) -> Diagnostic {
        match self.words.get(index) {
            Some((_, origin)) => placed(diagnostic, *origin, self.texts),
            None => diagnostic,
        }
    }

    fn expand(
        &mut self,
        mut node: InputDefault,
        parent: Option<&str>,
        is_root: bool,
        interpolated: bool,
    ) -> Build<TreeNode> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Diagnostic::configuration(format!(
                "`{}` includes itself through its defaults list",
                node.config_path()
            ))
            .code("RecursionError"));
        }
        let tree = self.expand_node(&mut node, parent, is_root, interpolated);
        self.depth -= 1;
        let (children, expanded) = tree?;
        Ok(TreeNode {
            node,
            children,
            expanded,
        })
    }

    fn expand_node(
        &mut self,
        node: &mut InputDefault,
        parent: Option<&str>,
        is_root: bool,
        interpolated: bool,
    ) -> Build<(Vec<TreeNode>, bool)> {
        let leaf = Ok((vec![], false));
        if !node.is_missing() && node.name().is_some() {
            self.attach_header(node)?;
        }
        if node.group.is_some() {
            if let Some(deletion) = self.deletions.get_mut(&node.override_key())
                && deletion
                    .name
                    .as_deref()
                    .is_none_or(|name| Some(name) == node.name())
            {
                deletion.used = true;
                node.deleted = true;
                return leaf;
            }
            self.record_choice(node)?;
        }
        if node.name().is_none() {
            return leaf;
        }
        if node.is_missing() {
            return self.missing_choice(node).map(|()| (vec![], false));
        }
        let path = node.config_path();
        if node.primary && path == EMPTY_CONFIG {
            return self.expand_list(node, &path, vec![], false, is_root, interpolated);
        }
        let Some(file) = self.repository.load(&path)? else {
            if node.optional {
                node.deleted = true;
                return leaf;
            }
            return Err(self.not_found(node, parent));
        };
        let list = match &file.defaults {
            None => vec![],
            Some(defaults) => self.parse_list(defaults, &path)?,
        };
        let has_content = file
            .content
            .as_map()
            .is_some_and(|mapping| !mapping.is_empty());
        self.expand_list(node, &path, list, has_content, is_root, interpolated)
    }

    fn attach_header(&mut self, node: &mut InputDefault) -> Build<()> {
        let path = node.config_path();
        if node.is_interpolation() {
            return Ok(());
        }
        if let Some(file) = self.repository.load(&path)? {
            node.header = file.header.clone().map_err(|message| {
                Diagnostic::configuration(format!("in `{path}`: {message}")).code("ValueError")
            })?;
        }
        Ok(())
    }

    fn record_choice(&mut self, node: &InputDefault) -> Build<()> {
        let key = node.override_key();
        let name = node.name().map(str::to_owned);
        if let Some(before) = self.choices.get(&key) {
            if *before != name {
                let before = before.as_deref().unwrap_or("null");
                return Err(placed(
                    refused(format!("there are several values for `{key}`")),
                    node.origin,
                    self.texts,
                )
                .hint(format!(
                    "to replace a choice, write `- override {key}: {before}` at the end of the list"
                )));
            }
        } else {
            self.choices.insert(key.clone(), name);
        }
        let keys = self.keys_of_group.entry(node.group_path()).or_default();
        if !keys.contains(&key) {
            keys.push(key);
        }
        Ok(())
    }

    fn missing_choice(&self, node: &InputDefault) -> Build<()> {
        if node.group.is_none() {
            return Err(placed(
                Diagnostic::configuration("a file of a defaults list cannot be `???`"),
                node.origin,
                self.texts,
            )
            .code("ValueError"));
        }
        if self.skip_missing {
            return Ok(());
        }
        let key = node.override_key();
        let options = self.repository.options(&node.group_path());
        Err(placed(
            refused(format!("`{key}` must be chosen")),
            node.origin,
            self.texts,
        )
        .note(format!("options: {}", options.join(", ")))
        .hint(format!(
            "add `{key}={}` to the command line",
            options.first().map_or("…", String::as_str)
        )))
    }

    fn expand_list(
        &mut self,
        node: &InputDefault,
        path: &str,
        mut list: Vec<InputDefault>,
        has_content: bool,
        is_root: bool,
        interpolated: bool,
    ) -> Build<(Vec<TreeNode>, bool)> {
        let mut self_added = false;
        if !list.is_empty() || (is_root && !self.appended.is_empty()) {
            self_added = self.check_self(node, &mut list, has_content)?;
        }
        if is_root {
            list.append(&mut self.appended);
        }
        self.scan_overrides(node, path, &mut list, interpolated)?;
        let base = node.group_path();
        let package = node.final_package(true);
        // In reverse, and put back in order at the end.
        let mut children: Vec<TreeNode> = vec![];
        let mut deferred: Vec<usize> = vec![];
        for mut entry in list.iter().rev().cloned() {
            if entry.is_self() {
                entry.set_parent(&node.parent_base, &node.own_package(true));
                children.push(TreeNode {
                    node: entry,
                    children: vec![],
                    expanded: false,
                });
                continue;
            }
            if entry.is_override {
                continue;
            }
            entry.set_parent(&base, &package);
            if entry.group.is_some()
                && let Some(known) = self.overrides.get_mut(&entry.override_key())
            {
                known.used = true;
                entry.choice = known.choice.clone();
                entry.origin = known.origin;
            }
            if let (Some(group), Choice::Several(options)) = (&entry.group, &entry.choice) {
                for option in options.iter().rev() {
                    if option.contains("${") {
                        return Err(placed(
                            refused(format!(
                                "in `{path}`: an interpolation cannot stand in a list of options"
                            )),
                            entry.origin,
                            self.texts,
                        ));
                    }
                    let mut item = InputDefault::file(&format!("{group}/{option}"), entry.origin);
                    item.package.clone_from(&entry.package);
                    item.optional = entry.optional;
                    item.set_parent(&base, &package);
                    children.push(self.expand(item, Some(path), false, interpolated)?);
                }
                continue;
            }
            if entry.is_interpolation() {
                deferred.push(children.len());
                children.push(TreeNode {
                    node: entry,
                    children: vec![],
                    expanded: false,
                });
                continue;
            }
            children.push(self.expand(entry, Some(path), false, interpolated)?);
        }
        for index in deferred {
            let mut entry = children[index].node.clone();
            entry.choice = Choice::One(self.resolve_choice(&entry, &list, self_added)?);
            entry.set_parent(&base, &package);
            children[index] = self.expand(entry, Some(path), false, true)?;
        }
        children.reverse();
        let expanded = !children.is_empty();
        Ok((children, expanded))
    }

    /// `_self_` at most once; at the end where it is not given. Says whether it was added.
    fn check_self(
        &mut self,
        node: &InputDefault,
        list: &mut Vec<InputDefault>,
        has_content: bool,
    ) -> Build<bool> {
        let count = list.iter().filter(|entry| entry.is_self()).count();
        if count > 1 {
            let origin = list
                .iter()
                .rfind(|entry| entry.is_self())
                .map_or(node.origin, |entry| entry.origin);
            return Err(placed(
                refused(format!(
                    "`_self_` stands twice in the defaults list of `{}`",
                    node.config_path()
                )),
                origin,
                self.texts,
            ));
        }
        let has_other = list.iter().any(|entry| !entry.is_override);
        if (count == 0 && has_other) || list.is_empty() {
            if node.primary && has_content && has_other {
                self.warnings.push(format!(
                    "In '{}': Defaults list is missing `_self_`. See https://hydra.cc/docs/1.2/upgrades/1.0_to_1.1/default_composition_order for more information",
                    node.config_path()
                ));
            }
            list.push(InputDefault::file("_self_", Origin::COMPUTED));
            return Ok(true);
        }
        Ok(count == 0)
    }

    /// Registers `override` entries; the first to ask wins.
    fn scan_overrides(
        &mut self,
        node: &InputDefault,
        path: &str,
        list: &mut [InputDefault],
        interpolated: bool,
    ) -> Build<()> {
        let base = node.group_path();
        let package = node.final_package(true);
        let mut before: Option<String> = None;
        for entry in list.iter_mut() {
            if entry.is_self() {
                continue;
            }
            entry.set_parent(&base, &package);
            let shown = || match &entry.group {
                Some(_) => format!(
                    "{}: {}",
                    entry.override_key(),
                    entry.name().unwrap_or("null")
                ),
                None => entry.config_path(),
            };
            if let Some(before) = &before
                && !entry.is_override
                && !entry.external_append
            {
                return Err(placed(
                    refused(format!(
                        "in `{path}`: `override {before}` stands before `{}`",
                        shown()
                    )),
                    entry.origin,
                    self.texts,
                )
                .note("overrides must stand at the end of the defaults list"));
            }
            if !entry.is_override {
                continue;
            }
            before = Some(shown());
            if interpolated {
                return Err(placed(
                    refused(format!(
                        "in `{path}`: overrides are not allowed below a choice that is an interpolation"
                    )),
                    entry.origin,
                    self.texts,
                ));
            }
            self.overrides
                .entry(entry.override_key())
                .or_insert_with(|| ChoiceOverride {
                    choice: entry.choice.clone(),
                    asked_by: Some(path.to_owned()),
                    used: false,
                    origin: entry.origin,
                });
        }
        Ok(())
    }

    /// `${group}` in a list: among the choices made so far.
    fn resolve_choice(
        &self,
        entry: &InputDefault,
        list: &[InputDefault],
        self_added: bool,
    ) -> Build<String> {
        let text = entry.name().unwrap_or("").to_owned();
        if let Some(rest) = text.strip_prefix("${defaults.")
            && rest.starts_with(|c: char| c.is_ascii_digit())
        {
            return Err(placed(
                refused(format!("`{text}` in the defaults list has an old form")),
                entry.origin,
                self.texts,
            )
            .hint("write `${group}` instead of `${defaults.N.group}`"));
        }
        let mut root = Mapping::new();
        for (key, name) in &self.choices {
            let value = match name {
                Some(name) => Node::text(name.as_str()),
                None => Node::computed(Value::Null),
            };
            root.insert(Key::Str(key.clone()), value);
        }
        let known: Vec<String> = self
            .choices
            .iter()
            .filter(|(_, name)| name.as_deref() != Some(MISSING))
            .map(|(key, _)| key.clone())
            .collect();
        let mut defaults = vec![];
        for entry in list {
            if self_added && entry.is_self() {
                continue;
            }
            if entry.group.is_none() {
                defaults.push(Node::text(entry.config_path()));
                continue;
            }
            let value = match &entry.choice {
                Choice::Null => Node::computed(Value::Null),
                Choice::One(name) => Node::text(name.as_str()),
                Choice::Several(names) => Node::computed(Value::List(
                    names.iter().map(|name| Node::text(name.as_str())).collect(),
                )),
            };
            let pair = Mapping::from_iter([(Key::Str(entry.override_key()), value)]);
            defaults.push(Node::computed(Value::Map(pair)));
        }
        root.insert("defaults".into(), Node::computed(Value::List(defaults)));
        root.insert("_dummy_".into(), Node::text(text.as_str()));
        let root = Node::computed(Value::Map(root));
        let (mut graph, id) = Graph::new(&root, ResolverContext::default());
        let problem = match graph.select(id, "_dummy_") {
            Ok(Some(found)) => match graph.to_node(found).value {
                Value::Str(name) => return Ok(name),
                _ => "it is not a text".to_owned(),
            },
            Ok(None) => "it has no value".to_owned(),
            Err(error) => error.message,
        };
        let mut diagnostic = placed(
            refused(format!(
                "`{text}` in the defaults list cannot be resolved: {problem}"
            )),
            entry.origin,
            self.texts,
        );
        if !known.is_empty() {
            diagnostic = diagnostic.note(format!("choices known here: {}", known.join(", ")));
        }
        Err(diagnostic)
    }

    fn not_found(&self, node: &InputDefault, parent: Option<&str>) -> Diagnostic {
        let path = node.config_path();
        let refused = |title: String| {
            placed(
                Diagnostic::configuration(title).code("MissingConfigException"),
                node.origin,
                self.texts,
            )
        };
        if node.primary {
            let mut diagnostic = refused(format!("there is no primary configuration `{path}`"));
            let group = node.group_path();
            let options = self.repository.options(&group);
            let last = path.rsplit('/').next().unwrap_or(&path);
            if let Some(near) = did_you_mean(last, options.iter().map(String::as_str)) {
                diagnostic = diagnostic.hint(format!("did you mean `--config-name={near}`?"));
            }
            return self.with_search_path(diagnostic);
        }
        let Some(_) = &node.group else {
            let mut diagnostic = refused(format!(
                "there is no file `{path}`, which the defaults list of `{}` names",
                parent.unwrap_or("<root>")
            ));
            let (folder, last) = path.rsplit_once('/').unwrap_or(("", &path));
            let options = self.repository.options(folder);
            if !options.is_empty() {
                diagnostic = diagnostic.note(format!("there are: {}", options.join(", ")));
            }
            if let Some(near) = did_you_mean(last, options.iter().map(String::as_str)) {
                diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
            }
            return self.with_search_path(diagnostic);
        };
        let group = node.group_path();
        let name = node.name().unwrap_or("");
        let mut diagnostic = refused(format!("the group `{group}` has no option `{name}`"));
        let options = self.repository.options(&group);
        let deeper: Vec<String> = self
            .repository
            .groups(&group)
            .iter()
            .flat_map(|folder| {
                let options = self.repository.options(&format!("{group}/{folder}"));
                options
                    .into_iter()
                    .map(move |option| format!("{folder}/{option}"))
                    .collect::<Vec<_>>()
            })
            .collect();
        let all: Vec<&str> = options.iter().chain(&deeper).map(String::as_str).collect();
        if !all.is_empty() {
            diagnostic = diagnostic.note(format!("options of `{group}`: {}", shortened(&all)));
        }
        if let Some(near) = did_you_mean(name, all.iter().copied()) {
            diagnostic = diagnostic.hint(format!("did you mean `{group}={near}`?"));
        }
        self.with_search_path(diagnostic)
    }

    fn with_search_path(&self, diagnostic: Diagnostic) -> Diagnostic {
        let places: Vec<String> = self
            .repository
            .entries()
            .iter()
            .filter(|entry| entry.scheme == "file")
            .map(|entry: &SearchPathEntry| entry.path.clone())
            .collect();
        diagnostic.note(format!("looked in: {}", places.join(", ")))
    }

    fn check_used(&self) -> Build<()> {
        let mut problems = vec![];
        for (key, entry) in &self.overrides {
            if entry.used {
                continue;
            }
            let title = match &entry.asked_by {
                Some(path) => {
                    format!("in `{path}`: `override {key}` matches nothing in the defaults list")
                }
                None => format!("`{key}` is not in the defaults list"),
            };
            let mut diagnostic = placed(refused(title), entry.origin, self.texts);
            let group = key.split('@').next().unwrap_or(key);
            let mut near = self.keys_of_group.get(group).cloned().unwrap_or_default();
            near.sort();
            if !near.is_empty() {
                diagnostic = diagnostic.hint(format!(
                    "did you mean to override `{}`?",
                    near.join("` or `")
                ));
            }
            if entry.asked_by.is_none() {
                let value = match &entry.choice {
                    Choice::Null => "null".to_owned(),
                    Choice::One(name) => name.clone(),
                    Choice::Several(names) => format!("[{}]", names.join(",")),
                };
                diagnostic =
                    diagnostic.hint(format!("to add it to the list, write `+{key}={value}`"));
            }
            problems.push(diagnostic);
        }
        for (key, deletion) in &self.deletions {
            if !deletion.used {
                let key = match &deletion.name {
                    Some(name) => format!("{key}={name}"),
                    None => key.clone(),
                };
                problems.push(self.at_word(
                    deletion.word,
                    refused(format!("`~{key}` matches nothing in the defaults list")),
                ));
            }
        }
        match super::report::together(problems) {
            Some(diagnostic) => Err(diagnostic),
            None => Ok(()),
        }
    }

    // The `defaults:` key ------------------------------------------------------------------------------------

    fn parse_list(&self, defaults: &Node, path: &str) -> Build<Vec<InputDefault>> {
        let wrong = |node: &Node, title: String| {
            placed(Diagnostic::configuration(title), node.origin, self.texts).code("ValueError")
        };
        let Value::List(items) = &defaults.value else {
            return Err(wrong(
                defaults,
                format!("`defaults` of `{path}` must be a list"),
            ));
        };
        let mut list = vec![];
        for item in items {
            list.push(match &item.value {
                Value::Str(text) => parse_file_entry(text, item.origin)
                    .map_err(|message| wrong(item, format!("in `{path}`: {message}")))?,
                Value::Map(mapping) => {
                    let Some((key, value)) = mapping.first() else {
                        return Err(wrong(item, format!("in `{path}`: an entry of the defaults list is empty")));
                    };
                    if mapping.len() > 1 {
                        return Err(wrong(
                            item,
                            format!(
                                "in `{path}`: an entry of the defaults list has {} keys: {}",
                                mapping.len(),
                                repr_of(item)
                            ),
                        ));
                    }
                    let choice = match &value.value {
                        Value::Null => Choice::Null,
                        Value::Str(text) => Choice::One(text.clone()),
                        Value::List(options) => Choice::Several(
                            options
                                .iter()
                                .map(|option| match &option.value {
                                    Value::Str(text) => Ok(text.clone()),
                                    _ => Err(wrong(
                                        option,
                                        format!("in `{path}`: an option must be a text: quote `{}`", str_of(option)),
                                    )),
                                })
                                .collect::<Build<_>>()?,
                        ),
                        _ => {
                            return Err(wrong(
                                value,
                                format!("in `{path}`: an option must be a text, a list of texts, or null: quote `{}`", str_of(value)),
                            ));
                        }
                    };
                    parse_group_entry(&key_text(key), choice, value.origin)
                }
                _ => {
                    return Err(wrong(
                        item,
                        format!("in `{path}`: an entry of the defaults list must be a text or `group: option`"),
                    ));
                }
            });
        }
        Ok(list)
    }
}

fn written(value: Option<&Element>) -> String {
    value.map_or_else(|| "…".to_owned(), Element::to_word)
}

fn not_an_option(group: &str, element: &Element) -> Diagnostic {
    let shown = element.to_word();
    let diagnostic = Diagnostic::configuration(format!(
        "`{shown}` is not an option of the group `{group}`: options are texts"
    ))
    .code("ValueError");
    match element {
        Element::Null => diagnostic.hint(format!("to leave the group out, write `~{group}`")),
        _ => diagnostic.hint(format!("put quotes around it: `{group}='{shown}'`")),
    }
}

/// At most twelve names.
pub(crate) fn shortened(names: &[&str]) -> String {
    const SHOWN: usize = 12;
    if names.len() <= SHOWN {
        names.join(", ")
    } else {
        format!(
            "{}, … and {} more",
            names[..SHOWN].join(", "),
            names.len() - SHOWN
        )
    }
}

fn split_package(key: &str) -> (&str, Option<String>) {
    let Some((path, package)) = key.split_once('@') else {
        return (key, None);
    };
    // An old form, `@package:other`, renamed a package; the second part has no meaning now.
    let package = package.split(':').next().unwrap_or(package);
    let package = if package == "_here_" { "" } else { package };
    (path, Some(package.to_owned()))
}

fn parse_file_entry(text: &str, origin: Origin) -> Result<InputDefault, String> {
    let (path, package) = split_package(text);
    if path == "_self_" && package.is_some() {
        return Err("`_self_` cannot have a package".to_owned());
    }
    let mut entry = InputDefault::file(path, origin);
    entry.package = package;
    Ok(entry)
}

fn parse_group_entry(key: &str, choice: Choice, origin: Origin) -> InputDefault {
    let words: Vec<&str> = key.split(' ').collect();
    let mut entry = InputDefault::file("", origin);
    let last = words.len() - 1;
    for word in &words[..last] {
        match *word {
            "optional" => entry.optional = true,
            "override" => entry.is_override = true,
            _ => break,
        }
    }
    let (group, package) = split_package(words[last]);
    entry.group = Some(group.to_owned());
    entry.choice = choice;
    entry.package = package;
    entry
}

fn collect(
    tree: &TreeNode,
    container: Option<&TreeNode>,
    above: Option<&TreeNode>,
    has_root: bool,
    found: &mut Vec<ResultDefault>,
) {
    if tree.expanded {
        for child in &tree.children {
            collect(child, Some(tree), container, has_root, found);
        }
        return;
    }
    // Below the virtual root, which is there only with Hydra's own configuration.
    let parent = |tree: Option<&TreeNode>| match tree {
        Some(tree) => Some(tree.node.config_path()),
        None => has_root.then(|| "<root>".to_owned()),
    };
    let node = &tree.node;
    if node.deleted || node.name().is_none() || node.is_missing() {
        return;
    }
    let result = if node.is_self() {
        let Some(container) = container else { return };
        ResultDefault {
            config_path: container.node.config_path(),
            package: container.node.final_package(true),
            parent: parent(above),
            is_self: true,
            primary: container.node.primary,
            override_key: None,
        }
    } else {
        ResultDefault {
            config_path: node.config_path(),
            package: node.final_package(true),
            parent: parent(container),
            is_self: false,
            primary: node.primary,
            override_key: node.group.is_some().then(|| node.override_key()),
        }
    };
    if result.config_path != EMPTY_CONFIG {
        found.push(result);
    }
}

fn check_repeated(defaults: &[ResultDefault]) -> Build<()> {
    let mut seen: Vec<&str> = vec![];
    for key in defaults
        .iter()
        .filter_map(|default| default.override_key.as_deref())
    {
        if seen.contains(&key) {
            return Err(refused(format!(
                "`{key}` stands more than once in the final defaults list"
            ))
            .hint(format!(
                "to replace the choice, write `{key}=…` without `+`"
            )));
        }
        seen.push(key);
    }
    Ok(())
}

fn draw(tree: &TreeNode, depth: usize, lines: &mut Vec<TreeLine>) {
    let node = &tree.node;
    let label = if node.is_self() {
        "_self_".to_owned()
    } else if node.group.is_some() {
        format!("{}: {}", node.override_key(), node.name().unwrap_or("null"))
    } else {
        node.config_path()
    };
    lines.push(TreeLine {
        depth,
        label,
        has_children: tree.expanded,
    });
    for child in &tree.children {
        draw(child, depth + 1, lines);
    }
}
