//! The tree to the final list, and to the lines of its listing.

use super::entry::InputDefault;
use super::{Build, EMPTY_CONFIG, ResultDefault, TreeLine, refused};

#[derive(Debug)]
pub(super) struct TreeNode {
    pub(super) node: InputDefault,
    pub(super) children: Vec<TreeNode>,
    /// Whether the node has a list of its own, even an empty one.
    pub(super) expanded: bool,
}

pub(super) fn collect(
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

pub(super) fn check_repeated(defaults: &[ResultDefault]) -> Build<()> {
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

pub(super) fn draw(tree: &TreeNode, depth: usize, lines: &mut Vec<TreeLine>) {
    let node = &tree.node;
    let label = if node.group.is_some() {
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
