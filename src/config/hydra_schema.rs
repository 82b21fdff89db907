//! The types of the `hydra` part: Hydra refuses unknown keys and values of the wrong type in it, and so do we.

use super::repository::placed;
use crate::diag::Diagnostic;
use crate::diag::source::SourceMap;
use crate::diag::suggest::did_you_mean;
use crate::yaml::python_text::{key_text, parse_int, str_of};
use crate::yaml::{Node, Value};

enum Kind {
    /// A mapping with these keys and no others.
    Section(&'static [(&'static str, Kind)]),
    Text {
        nullable: bool,
    },
    Int,
    Bool,
    Mode,
    Texts,
    TextMap,
    OptionalInt,
    OptionalTextMap,
    Mapping,
    /// `hydra.runtime.config_sources`.
    Sources,
    /// The basic launcher has no settings, those of plugins are theirs.
    Launcher,
    /// The basic sweeper's settings have types, those of plugins are theirs.
    Sweeper,
    Any,
}

const TEXT: Kind = Kind::Text { nullable: false };
const OPTIONAL_TEXT: Kind = Kind::Text { nullable: true };

const LAUNCHER: &[(&str, Kind)] = &[("_target_", TEXT)];
const SWEEPER: &[(&str, Kind)] = &[
    ("_target_", TEXT),
    ("max_batch_size", Kind::OptionalInt),
    ("params", Kind::OptionalTextMap),
];

const HYDRA: &[(&str, Kind)] = &[
    ("run", Kind::Section(&[("dir", TEXT)])),
    ("sweep", Kind::Section(&[("dir", TEXT), ("subdir", TEXT)])),
    ("launcher", Kind::Launcher),
    ("sweeper", Kind::Sweeper),
    (
        "help",
        Kind::Section(&[
            ("app_name", TEXT),
            ("header", TEXT),
            ("footer", TEXT),
            ("template", TEXT),
        ]),
    ),
    (
        "hydra_help",
        Kind::Section(&[("template", TEXT), ("hydra_help", TEXT)]),
    ),
    ("hydra_logging", Kind::Mapping),
    ("job_logging", Kind::Mapping),
    ("env", Kind::Any),
    ("mode", Kind::Mode),
    ("searchpath", Kind::Texts),
    ("callbacks", Kind::Mapping),
    ("output_subdir", OPTIONAL_TEXT),
    (
        "overrides",
        Kind::Section(&[("hydra", Kind::Texts), ("task", Kind::Texts)]),
    ),
    (
        "job",
        Kind::Section(&[
            ("name", TEXT),
            ("chdir", Kind::Bool),
            ("override_dirname", TEXT),
            ("id", TEXT),
            ("num", Kind::Int),
            ("config_name", OPTIONAL_TEXT),
            ("env_set", Kind::TextMap),
            ("env_copy", Kind::Texts),
            (
                "config",
                Kind::Section(&[(
                    "override_dirname",
                    Kind::Section(&[
                        ("kv_sep", TEXT),
                        ("item_sep", TEXT),
                        ("exclude_keys", Kind::Texts),
                    ]),
                )]),
            ),
        ]),
    ),
    (
        "runtime",
        Kind::Section(&[
            ("version", TEXT),
            ("version_base", TEXT),
            ("cwd", TEXT),
            ("config_sources", Kind::Sources),
            ("output_dir", TEXT),
            ("choices", Kind::Mapping),
        ]),
    ),
    ("verbose", Kind::Any),
];

/// Whether a dotted key is one that cannot be deleted.
pub(crate) fn is_fixed(key: &str) -> bool {
    let mut parts = key.split('.');
    if parts.next() != Some("hydra") {
        return false;
    }
    let mut keys = HYDRA;
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        match keys.iter().find(|(name, _)| *name == part) {
            Some((_, Kind::Section(inner))) => keys = inner,
            found => return found.is_some() && parts.peek().is_none(),
        }
    }
    true
}

/// Checks the `hydra` part of a tree and converts its values (`3` to `'3'` where a text is meant).
pub(crate) fn check(root: &mut Node, texts: &SourceMap) -> Result<(), Diagnostic> {
    let Some(hydra) = root
        .as_map_mut()
        .and_then(|mapping| mapping.get_mut("hydra"))
    else {
        return Ok(());
    };
    check_section(hydra, HYDRA, "hydra", false, texts)
}

/// Checks what one file puts into the `hydra` part of a tree: it may not add keys. Words with `+` may.
pub(crate) fn check_file(content: &Node, tree: &Node, texts: &SourceMap) -> Result<(), Diagnostic> {
    let Some(mut hydra) = content.child("hydra").cloned() else {
        return Ok(());
    };
    // Launcher and sweeper have the types of the class that they have by now.
    for plugin in ["launcher", "sweeper"] {
        let class = tree.descendant(&format!("hydra.{plugin}._target_"));
        if let Some(settings) = hydra.as_map_mut().and_then(|map| map.get_mut(plugin))
            && let Some(settings) = settings.as_map_mut()
            && let Some(class) = class
        {
            settings
                .entry("_target_".into())
                .or_insert_with(|| class.clone());
        }
    }
    check_section(&mut hydra, HYDRA, "hydra", true, texts)
}

fn refused(title: String, node: &Node, texts: &SourceMap) -> Diagnostic {
    placed(
        Diagnostic::configuration(title).code("ConfigCompositionException"),
        node.origin,
        texts,
    )
}

fn check_section(
    node: &mut Node,
    keys: &[(&'static str, Kind)],
    path: &str,
    closed: bool,
    texts: &SourceMap,
) -> Result<(), Diagnostic> {
    if node.is_missing() || (node.is_interpolation() && !closed) {
        return Ok(());
    }
    if node.as_map().is_none() {
        let title = format!("`{path}` is a section and cannot be `{}`", str_of(node));
        return Err(refused(title, node, texts));
    }
    let Value::Map(mapping) = &mut node.value else {
        return Ok(());
    };
    for (key, child) in mapping {
        let key = key_text(key);
        let Some((_, kind)) = keys.iter().find(|(name, _)| *name == key) else {
            if !closed {
                continue;
            }
            let mut diagnostic = refused(format!("`{path}` has no key `{key}`"), child, texts);
            if let Some(near) = did_you_mean(&key, keys.iter().map(|(name, _)| *name)) {
                diagnostic = diagnostic.hint(format!("did you mean `{path}.{near}`?"));
            }
            return Err(diagnostic);
        };
        check_value(child, kind, &format!("{path}.{key}"), closed, texts)?;
    }
    Ok(())
}

fn is_of_class(node: &Node, class: &str) -> bool {
    node.child("_target_")
        .is_some_and(|target| str_of(target).ends_with(class))
}

/// Launcher and sweeper: the settings of the basic ones have types, those of plugins are theirs.
fn check_plugin(
    node: &mut Node,
    keys: &[(&'static str, Kind)],
    class: &str,
    path: &str,
    closed: bool,
    texts: &SourceMap,
) -> Result<(), Diagnostic> {
    if let Some(target) = node
        .as_map_mut()
        .and_then(|map| map.get_mut("_target_"))
        .filter(|target| !target.is_null())
    {
        check_value(target, &TEXT, &format!("{path}._target_"), closed, texts)?;
    }
    // Hydra's own files come first: what is no mapping here replaced one that has a type.
    if closed && !node.is_missing() && !node.is_null() && node.as_map().is_none() {
        let title = format!("`{path}` is a section and cannot be `{}`", str_of(node));
        return Err(refused(title, node, texts));
    }
    if is_of_class(node, class) {
        return check_section(node, keys, path, closed, texts);
    }
    Ok(())
}

/// Checks what a word sets: a mapping that is merged may not add keys, though one key alone can be added with `+`.
pub(crate) fn check_word(
    key: &str,
    value: &Node,
    tree: &Node,
    texts: &SourceMap,
) -> Result<(), Diagnostic> {
    let mut parts = key.split('.');
    if parts.next() != Some("hydra") || !value.is_container() {
        return Ok(());
    }
    let mut keys = HYDRA;
    for part in parts {
        match keys.iter().find(|(name, _)| *name == part) {
            Some((_, Kind::Section(inner))) => keys = inner,
            Some((_, Kind::Launcher)) if is_of_class_at(tree, key, ".BasicLauncher") => {
                keys = LAUNCHER;
            }
            Some((_, Kind::Sweeper)) if is_of_class_at(tree, key, ".BasicSweeper") => {
                keys = SWEEPER;
            }
            Some((name, Kind::TextMap)) if !key.ends_with(name) => {
                let title = format!("`{key}` must be a text, found `{}`", str_of(value));
                return Err(refused(title, value, texts));
            }
            _ => return Ok(()),
        }
    }
    if value.as_map().is_none() {
        return Ok(());
    }
    check_section(&mut value.clone(), keys, key, true, texts)
}

fn is_of_class_at(tree: &Node, key: &str, class: &str) -> bool {
    tree.descendant(key)
        .is_some_and(|node| is_of_class(node, class))
}

fn check_value(
    node: &mut Node,
    kind: &Kind,
    path: &str,
    closed: bool,
    texts: &SourceMap,
) -> Result<(), Diagnostic> {
    match kind {
        Kind::Section(keys) => return check_section(node, keys, path, closed, texts),
        Kind::Launcher => {
            return check_plugin(node, LAUNCHER, ".BasicLauncher", path, closed, texts);
        }
        Kind::Sweeper => return check_plugin(node, SWEEPER, ".BasicSweeper", path, closed, texts),
        _ => {}
    }
    if node.is_missing() || node.is_interpolation() {
        return Ok(());
    }
    let expected = match kind {
        Kind::Any | Kind::Section(_) | Kind::Launcher | Kind::Sweeper => return Ok(()),
        Kind::Sources => match &mut node.value {
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    let keys = &[("path", TEXT), ("schema", TEXT), ("provider", TEXT)];
                    check_section(item, keys, &format!("{path}.{index}"), true, texts)?;
                }
                return Ok(());
            }
            _ => "a list of sources",
        },
        Kind::Text { nullable } => match &node.value {
            Value::Str(_) => return Ok(()),
            Value::Null if *nullable => return Ok(()),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                node.value = Value::Str(str_of(node));
                return Ok(());
            }
            _ => "a text",
        },
        Kind::OptionalInt | Kind::OptionalTextMap if node.is_null() => return Ok(()),
        Kind::Int | Kind::OptionalInt => match &node.value {
            Value::Int(_) => return Ok(()),
            Value::Str(text) if parse_int(text).is_some() => {
                if let Some(value) = parse_int(text) {
                    node.value = Value::Int(value);
                }
                return Ok(());
            }
            _ => "an integer",
        },
        Kind::Bool => match &node.value {
            Value::Null | Value::Bool(_) => return Ok(()),
            Value::Int(value) => {
                node.value = Value::Bool(value.to_f64() != 0.0);
                return Ok(());
            }
            Value::Str(text) => match text.to_lowercase().as_str() {
                "yes" | "y" | "on" | "true" | "1" => {
                    node.value = Value::Bool(true);
                    return Ok(());
                }
                "no" | "n" | "off" | "false" | "0" => {
                    node.value = Value::Bool(false);
                    return Ok(());
                }
                _ => match parse_int(text) {
                    Some(value) => {
                        node.value = Value::Bool(value.to_f64() != 0.0);
                        return Ok(());
                    }
                    None => "true or false",
                },
            },
            _ => "true or false",
        },
        Kind::Mode => match &node.value {
            Value::Null => return Ok(()),
            Value::Str(text) if text == "RUN" || text == "MULTIRUN" => return Ok(()),
            Value::Int(value) if (1.0..=2.0).contains(&value.to_f64()) => {
                let name = if value.to_f64() > 1.0 {
                    "MULTIRUN"
                } else {
                    "RUN"
                };
                node.value = Value::Str(name.to_owned());
                return Ok(());
            }
            _ => "RUN or MULTIRUN",
        },
        Kind::Texts => match &mut node.value {
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    // Hydra does not look at what is a container there.
                    if item.is_container() {
                        continue;
                    }
                    check_value(item, &TEXT, &format!("{path}.{index}"), closed, texts)?;
                }
                return Ok(());
            }
            _ => "a list of texts",
        },
        Kind::TextMap | Kind::OptionalTextMap => match &mut node.value {
            Value::Map(mapping) => {
                for (key, child) in mapping {
                    // Hydra does not look at what is a container there.
                    if child.is_container() {
                        continue;
                    }
                    check_value(
                        child,
                        &TEXT,
                        &format!("{path}.{}", key_text(key)),
                        closed,
                        texts,
                    )?;
                }
                return Ok(());
            }
            _ => "a mapping of texts",
        },
        Kind::Mapping => match &node.value {
            Value::Map(_) => return Ok(()),
            _ => "a mapping",
        },
    };
    let title = format!("`{path}` must be {expected}, found `{}`", str_of(node));
    Err(refused(title, node, texts))
}
