//! The built-in functions that look at the tree.

use super::error::{ResolveError, ResolveErrorKind};
use super::{Content, Evaluated, Graph, NodeId, Resolve, Step, fail};
use crate::config::interpolation::grammar::parse_element;
use crate::config::interpolation::resolvers::{self};
use crate::diag::suggest::did_you_mean;
use crate::yaml::python_text::{key_text, key_value};
use crate::yaml::{Node, Value};

impl Graph<'_> {
    pub(super) fn call(
        &mut self,
        id: NodeId,
        name: &str,
        arguments: Vec<Evaluated>,
    ) -> Resolve<Evaluated> {
        let container = self.parent_container(id);
        match name {
            "oc.select" => return self.oc_select(container, &arguments),
            "oc.decode" => return self.oc_decode(id, &arguments),
            "oc.create" => return self.oc_create(container, arguments),
            "oc.deprecated" => return self.oc_deprecated(id, container, &arguments),
            "oc.dict.keys" | "oc.dict.values" => return self.oc_dict(container, name, &arguments),
            "hydra" => return self.hydra(&arguments),
            "multiply" | "divide_ceil" | "divide_floor" => {
                self.refuse_containers(name, &arguments)?;
            }
            _ => {}
        }
        let arguments: Vec<Node> = arguments
            .into_iter()
            .map(|argument| Node::computed(self.plain(argument)))
            .collect();
        if let Some(value) = resolvers::call(name, &arguments, &self.context) {
            value.map(Evaluated::Value)
        } else {
            let known = resolvers::names(&self.context);
            let mut error = ResolveError::new(
                ResolveErrorKind::UnsupportedType,
                format!("there is no resolver `{name}`"),
            );
            error.near = did_you_mean(name, known.iter().map(String::as_str)).map(str::to_owned);
            Err(error)
        }
    }

    /// Python repeats a list that stands in the call, and not one of the configuration.
    fn refuse_containers(&self, of: &str, arguments: &[Evaluated]) -> Resolve<()> {
        for argument in arguments {
            if let Evaluated::Node(id) = argument
                && self.is_container(*id)
            {
                let name = self.type_name(*id);
                return fail(
                    ResolveErrorKind::Type,
                    format!("`{of}` needs numbers, not a {name}"),
                );
            }
        }
        Ok(())
    }

    /// One argument that must be a text.
    fn text_argument(&self, of: &str, argument: Option<&Evaluated>) -> Resolve<String> {
        let value = match argument {
            None => return fail(ResolveErrorKind::Type, format!("`{of}` needs an argument")),
            Some(Evaluated::Node(id)) => self.to_node(*id).value,
            Some(Evaluated::Value(value)) => value.clone(),
        };
        match value {
            Value::Str(text) => Ok(text),
            other => fail(
                ResolveErrorKind::Type,
                format!("`{of}` needs a text, not {}", resolvers::type_name(&other)),
            ),
        }
    }

    fn at_most(of: &str, arguments: &[Evaluated], most: usize) -> Resolve<()> {
        if arguments.len() > most {
            return fail(
                ResolveErrorKind::Type,
                format!(
                    "`{of}` takes at most {most} arguments, not {}",
                    arguments.len()
                ),
            );
        }
        Ok(())
    }

    fn oc_select(&mut self, container: NodeId, arguments: &[Evaluated]) -> Resolve<Evaluated> {
        Self::at_most("oc.select", arguments, 2)?;
        let key = self
            .text_argument("oc.select", arguments.first())
            .map_err(|mut error| {
                if !arguments.is_empty() {
                    error.kind = ResolveErrorKind::Attribute;
                }
                error
            })?;
        let found = self
            .select_from(container, &key, false)?
            .filter(|id| !self.is_missing(*id));
        if let Some(id) = found {
            self.refuse_ancestor(container, id)?;
        }
        Ok(match (found, arguments.get(1)) {
            (Some(id), _) => Evaluated::Node(id),
            (None, Some(Evaluated::Node(id))) => Evaluated::Node(*id),
            (None, Some(Evaluated::Value(value))) => Evaluated::Value(value.clone()),
            (None, None) => Evaluated::Value(Value::Null),
        })
    }

    fn oc_decode(&mut self, id: NodeId, arguments: &[Evaluated]) -> Resolve<Evaluated> {
        Self::at_most("oc.decode", arguments, 1)?;
        let is_null = match arguments.first() {
            Some(Evaluated::Value(Value::Null)) => true,
            Some(Evaluated::Node(node)) => {
                matches!(self.at(*node).content, Content::Scalar(Value::Null))
            }
            _ => false,
        };
        if is_null {
            return Ok(Evaluated::Value(Value::Null));
        }
        let text = self.text_argument("oc.decode", arguments.first())?;
        let element = parse_element(&text)
            .map_err(|error| ResolveError::new(ResolveErrorKind::Grammar, error.message))?;
        self.evaluate_element(id, &element)
            .map_err(Self::as_interpolation_error)
    }

    fn oc_create(&mut self, container: NodeId, arguments: Vec<Evaluated>) -> Resolve<Evaluated> {
        Self::at_most("oc.create", &arguments, 1)?;
        let Some(argument) = arguments.into_iter().next() else {
            return fail(ResolveErrorKind::Type, "`oc.create` needs an argument");
        };
        let node = resolvers::create(Node::computed(self.plain(argument)))?;
        if !node.is_container() {
            return Ok(Evaluated::Value(node.value));
        }
        Ok(Evaluated::Node(self.import(
            &node,
            Some(container),
            Step::Root,
        )))
    }

    fn oc_deprecated(
        &mut self,
        id: NodeId,
        container: NodeId,
        arguments: &[Evaluated],
    ) -> Resolve<Evaluated> {
        Self::at_most("oc.deprecated", arguments, 2)?;
        let key = self.text_argument("oc.deprecated", arguments.first())?;
        let message = match arguments.get(1) {
            Some(_) => self.text_argument("oc.deprecated", arguments.get(1))?,
            None => {
                "'$OLD_KEY' is deprecated. Change your code and config to use '$NEW_KEY'".to_owned()
            }
        };
        let Some(target) = self.select_from(container, &key, false)? else {
            return fail(ResolveErrorKind::ConfigKey, format!("there is no `{key}`"));
        };
        let text = message
            .replace("$OLD_KEY", &self.full_key(id))
            .replace("$NEW_KEY", &self.full_key(target));
        self.warn(text);
        Ok(Evaluated::Node(target))
    }

    fn oc_dict(
        &mut self,
        container: NodeId,
        name: &str,
        arguments: &[Evaluated],
    ) -> Resolve<Evaluated> {
        Self::at_most(name, arguments, 1)?;
        let key = self.text_argument(name, arguments.first())?;
        let Some(target) = self.select_from(container, &key, true)? else {
            return fail(ResolveErrorKind::ConfigKey, format!("there is no `{key}`"));
        };
        let Some(keys) = self.keys(target) else {
            return fail(
                ResolveErrorKind::Type,
                format!("`{name}` needs a mapping, not {}", self.type_name(target)),
            );
        };
        let items = if name == "oc.dict.keys" {
            keys.iter()
                .map(|key| Node::computed(key_value(key)))
                .collect()
        } else {
            // One level deeper than the caller, so a relative key needs one dot more.
            let prefix = if key.starts_with('.') {
                format!(".{key}")
            } else {
                key
            };
            keys.iter()
                .map(|key| Node::text(format!("${{{prefix}.{}}}", key_text(key))))
                .collect()
        };
        let list = Node::computed(Value::List(items));
        Ok(Evaluated::Node(self.import(
            &list,
            Some(container),
            Step::Root,
        )))
    }

    fn hydra(&mut self, arguments: &[Evaluated]) -> Resolve<Evaluated> {
        Self::at_most("hydra", arguments, 1)?;
        let path = self.text_argument("hydra", arguments.first())?;
        let Some(tree) = self.context.full_tree else {
            return fail(ResolveErrorKind::Value, "HydraConfig was not set");
        };
        let root = if let Some(root) = self.hydra_root {
            root
        } else {
            let root = self.import(tree, None, Step::Root);
            self.hydra_root = Some(root);
            root
        };
        let Some(hydra) = self.child(root, "hydra")? else {
            return Ok(Evaluated::Value(Value::Null));
        };
        Ok(match self.select(hydra, &path)? {
            Some(id) => Evaluated::Node(id),
            None => Evaluated::Value(Value::Null),
        })
    }
}
