//! Keys, relative and absolute, followed through the tree.

use super::error::{ResolveError, ResolveErrorKind};
use super::{Content, Graph, NodeId, Resolve, fail};
use crate::diag::suggest::did_you_mean;
use crate::yaml::python_text::parse_int;
use crate::yaml::{Integer, Key};

impl Graph<'_> {
    /// The container that a key starts from and the key without its leading dots.
    fn start_of<'k>(&self, container: NodeId, key: &'k str) -> Resolve<(NodeId, &'k str)> {
        let Some(mut rest) = key.strip_prefix('.') else {
            return Ok((self.root_of(container), key));
        };
        let mut at = container;
        while let Some(further) = rest.strip_prefix('.') {
            let Some(parent) = self.at(at).parent else {
                return fail(
                    ResolveErrorKind::ConfigKey,
                    format!("`{key}` leads above the root"),
                );
            };
            at = parent;
            rest = further;
        }
        Ok((at, rest))
    }

    /// `${key}` at a node.
    pub(super) fn lookup(&mut self, id: NodeId, key: &str) -> Resolve<NodeId> {
        let container = self.parent_container(id);
        let (start, rest) = self.start_of(container, key).map_err(|error| {
            ResolveError::new(ResolveErrorKind::InterpolationKey, error.message)
        })?;
        if self.followed.is_some() {
            self.remember(id, start, rest);
        }
        let found = self.walk(start, rest, true).map_err(|mut error| {
            if error.kind == ResolveErrorKind::MissingMandatory {
                error.kind = ResolveErrorKind::InterpolationToMissing;
            }
            error
        })?;
        let Some(target) = found else {
            let mut error = ResolveError::new(
                ResolveErrorKind::InterpolationKey,
                format!("there is no `{rest}`"),
            );
            error.near = self.nearest(start, rest);
            return Err(error);
        };
        self.refuse_ancestor(container, target)?;
        Ok(target)
    }

    fn remember(&mut self, id: NodeId, start: NodeId, rest: &str) {
        let from = split_key(&self.full_key(id)).join(".");
        let mut to = split_key(&self.full_key(start));
        to.extend(split_key(rest));
        to.retain(|part| !part.is_empty());
        if let Some(followed) = &mut self.followed {
            followed.push((from, to.join(".")));
        }
    }

    /// A value cannot be a container that it stands in.
    pub(super) fn refuse_ancestor(&self, container: NodeId, target: NodeId) -> Resolve<()> {
        let mut ancestor = Some(container);
        while let Some(at) = ancestor {
            if at == target {
                return fail(
                    ResolveErrorKind::Resolution,
                    "it refers to a mapping that it is part of",
                );
            }
            ancestor = self.at(at).parent;
        }
        Ok(())
    }

    /// The value at a key below a container, interpolations on the way resolved.
    fn walk(&mut self, start: NodeId, key: &str, refuse_missing: bool) -> Resolve<Option<NodeId>> {
        if key.is_empty() {
            return Ok(Some(start));
        }
        let parts = split_key(key);
        let mut at = start;
        for (index, part) in parts.iter().enumerate() {
            let child = self.child(at, part)?;
            let Some(child) = child else { return Ok(None) };
            if refuse_missing && self.is_missing(child) {
                let key = split_key(&self.full_key(child)).join(".");
                let message = format!("`{key}` is still ???");
                let mut error = ResolveError::new(ResolveErrorKind::MissingMandatory, message);
                error.missing = Some((key, self.at(child).origin));
                return Err(error);
            }
            at = self.dereference(child)?;
            if index + 1 < parts.len() && !self.is_container(at) {
                if self.is_missing(at) {
                    return Ok(None);
                }
                return fail(
                    ResolveErrorKind::ConfigType,
                    format!(
                        "`{}` is not a mapping, so there is no `{}` in it",
                        parts[..=index].join("."),
                        parts[index + 1]
                    ),
                );
            }
        }
        Ok(Some(at))
    }

    pub(super) fn child(&self, id: NodeId, part: &str) -> Resolve<Option<NodeId>> {
        match &self.at(id).content {
            Content::Map(mapping) => Ok(mapping.get(part).copied()),
            Content::List(items) => match parse_int(part) {
                None => fail(
                    ResolveErrorKind::Type,
                    format!("the items of a list have numbers, not names such as `{part}`"),
                ),
                Some(Integer::Small(index)) => Ok(usize::try_from(index)
                    .ok()
                    .and_then(|index| items.get(index).copied())),
                Some(Integer::Large(_)) => Ok(None),
            },
            Content::Scalar(_) => Ok(None),
        }
    }

    /// A key near to one that does not exist.
    fn nearest(&self, start: NodeId, key: &str) -> Option<String> {
        let parts = split_key(key);
        let mut at = start;
        for (index, part) in parts.iter().enumerate() {
            if let Ok(Some(child)) = self.child(at, part) {
                at = child;
            } else {
                let keys = self.keys(at)?;
                let near = did_you_mean(part, keys.iter().filter_map(Key::as_str))?;
                let mut path: Vec<&str> = parts[..index].iter().map(String::as_str).collect();
                path.push(near);
                path.extend(parts[index + 1..].iter().map(String::as_str));
                return Some(path.join("."));
            }
        }
        None
    }

    /// As `OmegaConf.select` with an absolute or a relative key, from a container: nothing where the key is absent
    /// or the path leads through a scalar.
    pub(crate) fn select_from(
        &mut self,
        container: NodeId,
        key: &str,
        refuse_missing: bool,
    ) -> Resolve<Option<NodeId>> {
        let (start, rest) = self.start_of(container, key)?;
        match self.walk(start, rest, refuse_missing) {
            Err(error) if error.kind == ResolveErrorKind::ConfigType => Ok(None),
            other => other,
        }
    }

    /// The node at a dotted key as it stands, nothing resolved on the way.
    pub fn find(&self, root: NodeId, key: &str) -> Option<NodeId> {
        split_key(key)
            .iter()
            .try_fold(root, |at, part| self.child(at, part).ok().flatten())
    }

    /// As `OmegaConf.select(config, key)`: nothing where the value is absent or `???`.
    pub fn select(&mut self, root: NodeId, key: &str) -> Resolve<Option<NodeId>> {
        let found = match self.walk(root, key, false) {
            Err(error) if error.kind == ResolveErrorKind::ConfigType => None,
            Err(mut error) if error.kind == ResolveErrorKind::Type => {
                error.kind = ResolveErrorKind::ConfigType;
                return Err(error);
            }
            other => other?,
        };
        Ok(found.filter(|id| !self.is_missing(*id)))
    }
}

/// `a.b[c]` to its parts.
pub(crate) fn split_key(key: &str) -> Vec<String> {
    if !key.contains('[') {
        return key.split('.').map(str::to_owned).collect();
    }
    let mut parts = vec![];
    let mut rest = key;
    if !rest.starts_with('[') {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        parts.push(rest[..end].to_owned());
        rest = &rest[end..];
    }
    // What stands between `]` and the next mark does not count, nor does a bracket that is never closed.
    while let Some(at) = rest.find(['.', '[']) {
        let inner = &rest[at + 1..];
        if rest[at..].starts_with('.') {
            let end = inner.find(['.', '[']).unwrap_or(inner.len());
            parts.push(inner[..end].to_owned());
            rest = &inner[end..];
        } else if let Some(end) = inner.find(']') {
            parts.push(inner[..end].to_owned());
            rest = &inner[end + 1..];
        } else {
            rest = inner;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::split_key;

    #[test]
    fn keys_are_split_at_dots_and_brackets_and_never_inside_of_a_character() {
        for (key, parts) in [
            ("a.b[c].d", vec!["a", "b", "c", "d"]),
            ("[a][b].c", vec!["a", "b", "c"]),
            ("a[b]\u{e9}.c", vec!["a", "b", "c"]),
            ("a[b", vec!["a"]),
            ("a..b", vec!["a", "", "b"]),
        ] {
            assert_eq!(split_key(key), parts, "{key}");
        }
    }
}
