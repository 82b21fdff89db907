//! What is chosen for each group: recorded, missing, or written as an interpolation.

use super::entry::{Choice, InputDefault};
use super::{Build, Builder, refused, shortened};
use crate::config::interpolation::{Graph, ResolverContext};
use crate::config::repository::placed;
use crate::diag::Diagnostic;
use crate::yaml::{Key, MISSING, Mapping, Node, Value};

impl Builder<'_> {
    pub(super) fn record_choice(&mut self, node: &InputDefault) -> Build<()> {
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

    pub(super) fn missing_choice(&mut self, node: &InputDefault) -> Build<()> {
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
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let problem = placed(
            refused(format!("`{key}` must be chosen")),
            node.origin,
            self.texts,
        )
        .note(format!("options: {}", shortened(&options)))
        .hint(format!(
            "add `{key}={}` to the command line",
            options.first().unwrap_or(&"…")
        ));
        self.leave_out(node, problem);
        Ok(())
    }

    /// Goes on without a choice that cannot be made, so that the others are looked at too.
    pub(super) fn leave_out(&mut self, node: &InputDefault, problem: Diagnostic) {
        let package = node.final_package(true);
        self.left_out.push(node.group_path());
        if !package.is_empty() {
            self.left_out.push(package);
        }
        self.problems.push(problem);
    }

    /// `${group}` in a list: among the choices made so far.
    pub(super) fn resolve_choice(
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
}
