//! The defaults list: which files make up a configuration, in which order, and where each is put.
//!
//! Follows `hydra/_internal/defaults_list.py` of Hydra 1.3: the tree is built depth first and each list in reverse, so
//! that an override in a later entry is known before an earlier one is expanded.

mod choices;
mod entry;
mod expand;
mod flatten;
mod not_found;
mod parse;
mod words;

pub(crate) use not_found::shortened;

use indexmap::IndexMap;

use super::override_grammar::Override;
use super::report::Report;
use super::repository::{ConfigRepository, placed};
use crate::diag::Diagnostic;
use crate::diag::source::{Origin, SourceMap};
use entry::{Choice, InputDefault};
use flatten::{TreeNode, check_repeated, collect, draw};
use parse::parse_list;

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
    /// Choices that cannot be made, each left out of the tree.
    problems: Vec<Diagnostic>,
    /// Their packages.
    left_out: Vec<String>,
}

type Build<T> = Result<T, Diagnostic>;

/// What Hydra refuses in the list of the primary file as soon as it has read it.
///
/// # Errors
/// An entry that is none.
pub(crate) fn check_primary_list(
    repository: &ConfigRepository,
    config_name: Option<&str>,
) -> Result<(), Diagnostic> {
    let Some(name) = config_name else {
        return Ok(());
    };
    match repository
        .load(name)?
        .and_then(|file| file.defaults.clone())
    {
        Some(defaults) => parse_list(&defaults, name, repository.texts()).map(|_| ()),
        None => Ok(()),
    }
}

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
    report: &mut Report,
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
        problems: vec![],
        left_out: vec![],
    };
    builder.sort_words(report);
    let mut primary = InputDefault::file(config_name.unwrap_or(EMPTY_CONFIG), Origin::COMPUTED);
    primary.primary = true;
    let roots = builder.roots(primary, prepend_hydra);
    // A list is walked from its end; its mistakes are told from its start.
    report.add_all(std::mem::take(&mut builder.problems), true);
    for package in &builder.left_out {
        report.leave_out(package);
    }
    let roots = roots?;
    let mut defaults = vec![];
    for root in &roots {
        collect(root, None, None, prepend_hydra, &mut defaults);
    }
    check_repeated(&defaults)?;
    builder.check_used(report);
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
    /// The virtual root is walked from its last child to its first, as every list is.
    fn roots(&mut self, primary: InputDefault, prepend_hydra: bool) -> Build<Vec<TreeNode>> {
        let primary = self.expand(primary, None, true, false)?;
        if !prepend_hydra {
            return Ok(vec![primary]);
        }
        let hydra = InputDefault::file("hydra/config", Origin::COMPUTED);
        Ok(vec![self.expand(hydra, None, false, false)?, primary])
    }

    fn at_word(&self, index: usize, diagnostic: Diagnostic) -> Diagnostic {
        match self.words.get(index) {
            Some((_, origin)) => placed(diagnostic, *origin, self.texts),
            None => diagnostic,
        }
    }
}
