//! What a run knows and a file does not: the values that the program sets below `hydra`.

use super::{ComposeOptions, ComposeRequest};
use crate::config::defaults_list::DefaultsList;
use crate::config::override_grammar::Override;
use crate::config::repository::ConfigRepository;
use crate::diag::Diagnostic;
use crate::diag::source::Origin;
use crate::yaml::{Integer, Key, Mapping, Node, Value};

/// The values below `hydra` that a run knows and a file does not.
pub(super) fn set_runtime(
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
        inputs
            .map(|(word, _)| Node::text(word.input.as_str()))
            .collect::<Vec<_>>()
    };
    let text = |value: &str| Node::text(value);
    append(full, "hydra.overrides.hydra", texts_of(true));
    append(full, "hydra.overrides.task", texts_of(false));
    let choices = list.choices.iter().map(|(key, name)| {
        let value = match name {
            Some(name) => Node::text(name.as_str()),
            None => Node::computed(Value::Null),
        };
        (Key::Str(key.clone()), value)
    });
    // What a user has set there stays.
    let mut known = full
        .descendant("hydra.runtime.choices")
        .and_then(Node::as_map)
        .cloned()
        .unwrap_or_default();
    known.extend(choices);
    set(
        full,
        "hydra.runtime.choices",
        Node::computed(Value::Map(known)),
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

/// Puts texts after those of a list.
fn append(root: &mut Node, key: &str, texts: Vec<Node>) {
    let mut list = root
        .descendant(key)
        .and_then(Node::as_list)
        .map(<[Node]>::to_vec)
        .unwrap_or_default();
    list.extend(texts);
    set(root, key, Node::computed(Value::List(list)));
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

/// The integer as a value, for `hydra_values`.
pub fn integer(value: i64) -> Node {
    Node::computed(Value::Int(Integer::from(value)))
}
