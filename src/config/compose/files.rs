//! The files of the defaults list, merged in its order.

use crate::config::defaults_list::{DefaultsList, ResultDefault};
use crate::config::hydra_schema;
use crate::config::interpolation::ResolverContext;
use crate::config::interpolation::resolve::split_key;
use crate::config::merge::{MergeError, find_mut, merge_at};
use crate::config::repository::{ConfigRepository, placed};
use crate::diag::Diagnostic;
use crate::diag::source::SourceMap;
use crate::yaml::{Key, Mapping, Node, Value};

/// Deeper packages are refused.
const MAX_LEVELS: usize = 100;

pub(super) fn merge_files(
    list: &DefaultsList,
    repository: &ConfigRepository,
) -> Result<Node, Diagnostic> {
    let texts = repository.texts();
    let mut root = Node::empty_map();
    let mut typed = false;
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
        if default.package.matches('.').count() > MAX_LEVELS {
            return Err(Diagnostic::configuration(format!(
                "`{}` would be put more than {MAX_LEVELS} levels deep",
                default.config_path
            ))
            .code("ConfigCompositionException"));
        }
        let result = if default.package.is_empty() {
            merge_at(
                &mut root,
                &[],
                &file.content,
                false,
                &ResolverContext::default(),
            )
        } else {
            merge_below(&mut root, &default.package, &file.content)
        };
        result.map_err(|error| merge_refused(default, error, texts))?;
        if default.package.starts_with("hydra") || file.content.child("hydra").is_some() {
            // The types come with this file; what was there before it may have keys of its own.
            if typed {
                let parts: Vec<Key> = split_key(&default.package)
                    .iter()
                    .filter(|part| !part.is_empty())
                    .map(|part| Key::from(part.as_str()))
                    .collect();
                let own = wrap(&parts, file.content.clone());
                hydra_schema::check_file(&own, &root, texts)?;
            }
            hydra_schema::check(&mut root, texts)?;
            typed |= default.config_path == "hydra/config";
        }
    }
    Ok(root)
}

/// Merges a content in at a package. Mappings that are there already are walked through, so that only what is new is
/// copied.
fn merge_below(root: &mut Node, package: &str, content: &Node) -> Result<(), MergeError> {
    let parts: Vec<Key> = split_key(package)
        .iter()
        .map(|part| Key::from(part.as_str()))
        .collect();
    let mut known = 0;
    let mut at = &*root;
    while let Some(child) = parts
        .get(known)
        .and_then(|part| at.as_map()?.get(part))
        .filter(|child| child.as_map().is_some())
    {
        at = child;
        known += 1;
    }
    let Some(next) = parts.get(known) else {
        return merge_at(root, &parts, content, false, &ResolverContext::default());
    };
    let wrapped = wrap(&parts[known + 1..], content.clone());
    if let Some(mapping) = find_mut(root, &parts[..known]).and_then(Node::as_map_mut)
        && !mapping.contains_key(next)
    {
        mapping.insert(next.clone(), wrapped);
        return Ok(());
    }
    let wrapped = wrap(&parts[known..=known], wrapped);
    let context = ResolverContext::default();
    merge_at(root, &parts[..known], &wrapped, false, &context)
}

fn wrap(parts: &[Key], content: Node) -> Node {
    parts.iter().rev().fold(content, |node, part| Node {
        origin: node.origin,
        value: Value::Map(Mapping::from_iter([(part.clone(), node)])),
    })
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
