//! The walk down the tree: each file is read for its own list, the last entry first.

use super::entry::{Choice, InputDefault};
use super::flatten::TreeNode;
use super::parse::parse_list;
use super::{Build, Builder, ChoiceOverride, EMPTY_CONFIG, MAX_DEPTH, refused};
use crate::config::repository::placed;
use crate::diag::Diagnostic;
use crate::diag::source::Origin;

impl Builder<'_> {
    pub(super) fn expand(
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
            let problem = self.not_found(node, parent);
            if node.primary {
                return Err(problem);
            }
            self.leave_out(node, problem);
            node.deleted = true;
            return leaf;
        };
        let list = match &file.defaults {
            None => vec![],
            Some(defaults) => parse_list(defaults, &path, self.texts)?,
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
                let start = Origin {
                    source: file.source,
                    line: 1,
                    column: 1,
                    length: 1,
                };
                let problem = Diagnostic::configuration(format!("in `{path}`: {message}"));
                placed(problem, start, self.texts).code("ValueError")
            })?;
        }
        Ok(())
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
}
