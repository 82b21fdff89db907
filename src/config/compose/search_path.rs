//! Where files are looked for: `hydra.searchpath` and the entries that it adds.

use super::ComposeRequest;
use super::words::parse_words;
use crate::config::interpolation::{Graph, ResolverContext};
use crate::config::override_grammar::Override;
use crate::config::python_package;
use crate::config::report::Report;
use crate::config::repository::{ConfigRepository, ConfigSource, SearchPathEntry, placed};
use crate::diag::Diagnostic;
use crate::diag::source::Origin;
use crate::yaml::Node;
use crate::yaml::python_text::repr_of;

/// The repository of a request with what `hydra.searchpath` of its words or of its primary file adds. Words that are not
/// in the language do not count.
///
/// # Errors
/// A primary file that cannot be read, or a search path that is none.
pub fn searched(request: &ComposeRequest<'_>) -> Result<ConfigRepository, Diagnostic> {
    let texts = request.repository.texts();
    let words = parse_words(request.overrides, texts, &mut Report::default());
    with_search_path(request, &words)
}

/// `hydra.searchpath` of the command line, else of the primary file, puts entries before the last of the search path.
pub(super) fn with_search_path(
    request: &ComposeRequest<'_>,
    words: &[(Override, Origin)],
) -> Result<ConfigRepository, Diagnostic> {
    let texts = request.repository.texts();
    let word = words
        .iter()
        .rev()
        .find(|(word, _)| word.key == "hydra.searchpath" && word.prefix().is_empty());
    let (node, provider) = if let Some((word, at)) = word {
        let mut node = word.element().map_or_else(
            Node::empty_map,
            crate::config::override_grammar::Element::to_node,
        );
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
    let Some(node) = node.filter(|node| !node.is_null()) else {
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
        "pkg" => {
            let folder = python_package::folder(path);
            let folder = folder.unwrap_or_else(|| "/nonexistent".into());
            ("pkg", ConfigSource::Folder(folder))
        }
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
