//! Whole trees without interpolations: in place, as `OmegaConf.resolve`, and as a copy.

use super::error::{ResolveError, ResolveErrorKind};
use super::keys::split_key;
use super::{Content, Graph, MAX_LEVELS, NodeId, Resolve, fail};
use crate::config::interpolation::grammar::parse_text;
use crate::yaml::{Mapping, Node, Value};

impl Graph<'_> {
    /// Replaces every interpolation at and below a node by its value, in the order of the document, as
    /// `OmegaConf.resolve` does. What refers to a `???` becomes `???`.
    ///
    /// Lists and mappings that a function gave become part of the tree, as they are for a program that reads the
    /// value; [`Self::resolve_strictly`] refuses them.
    pub fn resolve_in_place(&mut self, id: NodeId) -> Resolve<()> {
        self.spend(1)?;
        self.depth += 1;
        if self.depth > MAX_LEVELS {
            return fail(
                ResolveErrorKind::Resolution,
                "values refer to each other without end",
            );
        }
        if self.text(id).is_some_and(|text| text.contains("${")) {
            self.resolve_one(id)?;
        } else {
            let children: Vec<NodeId> = match &self.at(id).content {
                Content::Scalar(_) => vec![],
                Content::List(items) => items.clone(),
                Content::Map(mapping) => mapping.values().copied().collect(),
            };
            for child in children {
                self.resolve_in_place(child)?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// As [`Self::resolve_in_place`], with the errors of `OmegaConf.resolve`.
    pub fn resolve_strictly(&mut self, id: NodeId) -> Resolve<()> {
        self.strict = true;
        let resolved = self.resolve_in_place(id);
        self.strict = false;
        resolved
    }

    /// As [`Self::resolve_all_in_place`], with the errors of `OmegaConf.resolve`: what `--resolve` prints.
    pub fn resolve_all_strictly(&mut self, id: NodeId) -> Vec<ResolveError> {
        self.strict = true;
        let errors = self.resolve_all_in_place(id);
        self.strict = false;
        errors
    }

    /// What OmegaConf does not assign to a node: plain containers, and texts that only look like interpolations.
    fn check_assigned(&self, id: NodeId) -> Resolve<()> {
        if self.at(id).plain {
            return fail(
                ResolveErrorKind::UnsupportedValue,
                format!(
                    "a function gave a {}, and a configuration holds lists and mappings of its own only: use `oc.create`",
                    self.type_name(id)
                ),
            );
        }
        match self.text(id).filter(|text| text.contains("${")) {
            Some(text) => parse_text(text)
                .map(|_| ())
                .map_err(|error| ResolveError::new(ResolveErrorKind::Grammar, error.message)),
            None => Ok(()),
        }
    }

    /// Like [`Self::resolve_in_place`], past values that cannot be resolved: they stay as they are, and what is wrong
    /// with each is returned.
    pub fn resolve_all_in_place(&mut self, id: NodeId) -> Vec<ResolveError> {
        let mut errors = vec![];
        let depth = self.depth;
        self.resolve_or_note(id, &mut errors);
        self.depth = depth;
        errors
    }

    fn resolve_or_note(&mut self, id: NodeId, errors: &mut Vec<ResolveError>) {
        if let Err(error) = self.spend(1) {
            if errors.is_empty() {
                errors.push(error);
            }
            return;
        }
        if self.text(id).is_some_and(|text| text.contains("${")) {
            let depth = self.depth;
            if let Err(error) = self.resolve_one(id) {
                self.depth = depth;
                errors.push(error);
            }
            return;
        }
        let children: Vec<NodeId> = match &self.at(id).content {
            Content::Scalar(_) => vec![],
            Content::List(items) => items.clone(),
            Content::Map(mapping) => mapping.values().copied().collect(),
        };
        for child in children {
            self.resolve_or_note(child, errors);
        }
    }

    fn resolve_one(&mut self, id: NodeId) -> Resolve<()> {
        let target = match self.dereference(id) {
            Ok(target) => target,
            Err(error) if error.kind == ResolveErrorKind::InterpolationToMissing => {
                if let Some(missing) = error.missing {
                    let key = split_key(&self.full_key(id)).join(".");
                    self.became_missing.push((key, missing));
                }
                self.at_mut(id).content =
                    Content::Scalar(Value::Str(crate::yaml::MISSING.to_owned()));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if self.strict {
            self.check_assigned(target)?;
        }
        if self.is_container(target) {
            self.resolve_in_place(target)?;
        }
        self.copy_content(target, id);
        Ok(())
    }

    /// Gives `to` the content of `from`; its place and its origin stay.
    fn copy_content(&mut self, from: NodeId, to: NodeId) {
        let content = match self.at(from).content.clone() {
            Content::Scalar(value) => Content::Scalar(value),
            Content::List(items) => Content::List(
                items
                    .into_iter()
                    .map(|item| self.copy_below(item, to))
                    .collect(),
            ),
            Content::Map(mapping) => Content::Map(
                mapping
                    .into_iter()
                    .map(|(key, item)| (key, self.copy_below(item, to)))
                    .collect(),
            ),
        };
        self.at_mut(to).content = content;
    }

    fn copy_below(&mut self, from: NodeId, parent: NodeId) -> NodeId {
        let mut node = self.at(from).clone();
        node.parent = Some(parent);
        node.plain = false;
        let id = self.push(node);
        self.copy_content(from, id);
        id
    }

    /// The tree at a node with all interpolations resolved, the graph left as it is; what refers to a `???` is an
    /// error (`OmegaConf.to_container(resolve=True)`).
    pub fn resolved_copy(&mut self, id: NodeId) -> Resolve<Node> {
        self.depth += 1;
        if self.depth > MAX_LEVELS {
            return fail(
                ResolveErrorKind::Resolution,
                "values refer to each other without end",
            );
        }
        self.spend(1)?;
        let target = self.dereference(id)?;
        let origin = self.at(id).origin;
        if self.at(target).plain {
            self.depth -= 1;
            let value = self.to_node(target).value;
            return Ok(Node { value, origin });
        }
        let value = match self.at(target).content.clone() {
            Content::Scalar(value) => value,
            Content::List(items) => {
                let items = items.into_iter().map(|item| self.resolved_copy(item));
                Value::List(items.collect::<Resolve<_>>()?)
            }
            Content::Map(mapping) => {
                let mut resolved = Mapping::with_capacity(mapping.len());
                for (key, item) in mapping {
                    resolved.insert(key, self.resolved_copy(item)?);
                }
                Value::Map(resolved)
            }
        };
        self.depth -= 1;
        Ok(Node { value, origin })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::interpolation::ResolverContext;
    use crate::diag::source::SourceId;
    use crate::yaml::{parse, to_yaml};

    fn resolved(text: &str) -> Result<String, String> {
        let root = parse(text, SourceId(0)).unwrap().unwrap();
        let (mut graph, id) = Graph::new(&root, ResolverContext::default());
        match graph.resolve_in_place(id) {
            Ok(()) => Ok(to_yaml(&graph.to_node(id))),
            Err(error) => Err(error.kind.code().to_owned()),
        }
    }

    #[test]
    fn relative_absolute_and_nested_keys_are_followed() {
        assert_eq!(
            resolved("a: {b: 1, c: '${.b}', d: '${a.c}'}\nk: b\ne: '${a.${k}}x'\n").unwrap(),
            "a:\n  b: 1\n  c: 1\n  d: 1\nk: b\ne: 1x\n"
        );
    }

    #[test]
    fn a_cycle_is_an_error_and_not_an_endless_loop() {
        assert_eq!(
            resolved("a: ${b}\nb: ${a}\n"),
            Err("InterpolationResolutionError".to_owned())
        );
        assert_eq!(
            resolved("a: {x: '${b}'}\nb: {y: '${a}'}\n"),
            Err("InterpolationResolutionError".to_owned())
        );
        assert_eq!(
            resolved("a: {b: '${a}'}\n"),
            Err("InterpolationResolutionError".to_owned())
        );
    }

    #[test]
    fn what_refers_to_a_missing_value_is_missing() {
        assert_eq!(resolved("a: ???\nb: x${a}\n").unwrap(), "a: ???\nb: ???\n");
    }
}
