//! The files of the defaults list, merged in its order.

use crate::config::defaults_list::{DefaultsList, ResultDefault};
use crate::config::hydra_schema;
use crate::config::interpolation::ResolverContext;
use crate::config::interpolation::resolve::split_key;
use crate::config::merge::{MergeError, merge_at};
use crate::config::repository::{ConfigRepository, placed};
use crate::diag::Diagnostic;
use crate::diag::source::SourceMap;
use crate::yaml::{Key, Mapping, Node, Value};

pub(super) fn merge_files(
    list: &DefaultsList,
    repository: &ConfigRepository,
) -> Result<Node, Diagnostic> {
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
