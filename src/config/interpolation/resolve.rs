//! The walk over the tree that `${…}` asks for, as OmegaConf walks it.
//!
//! A [`Graph`] is the tree with parents: relative keys, cycles and containers made by resolvers all need to know
//! where a value stands. Nodes are numbers into one table; resolving in place changes the table.

use indexmap::IndexMap;

use super::grammar::{
    Argument, Element, Interpolation, KeyToken, Piece, PrimitiveKind, PrimitiveToken,
    parse_element, parse_text,
};
use super::resolvers::{self, ResolverContext};
use crate::config::lexemes::{float_value, int_value, unescape};
use crate::diag::source::Origin;
use crate::diag::suggest::did_you_mean;
use crate::yaml::python_text::{key_text, key_value, parse_int, repr_of, str_of};
use crate::yaml::{Integer, Key, Mapping, Node, Value};

/// Chains of interpolations longer than this are endless.
const MAX_CHAIN: usize = 200;

/// Which exception OmegaConf raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolveErrorKind {
    /// The key does not exist.
    InterpolationKey,
    /// The key exists and is `???`.
    InterpolationToMissing,
    /// Anything else that went wrong on the way.
    Resolution,
    /// No resolver of that name.
    UnsupportedType,
    /// The text is not in the language.
    Grammar,
    /// A key that a function was asked for does not exist.
    ConfigKey,
    /// A path leads through something that is not a container.
    ConfigType,
    /// A `???` where a value is needed.
    MissingMandatory,
    /// A value of the wrong type.
    Type,
    /// A value that cannot be.
    Value,
    /// A name that is not there.
    Key,
    /// Division by zero.
    ZeroDivision,
    /// A method that the value does not have.
    Attribute,
    /// A text that YAML refuses.
    Yaml,
    /// A value of a type that a configuration cannot have.
    UnsupportedValue,
    /// A key of a type that a configuration cannot have.
    KeyValidation,
}

impl ResolveErrorKind {
    /// The name of the exception.
    pub fn code(self) -> &'static str {
        match self {
            Self::InterpolationKey => "InterpolationKeyError",
            Self::InterpolationToMissing => "InterpolationToMissingValueError",
            Self::Resolution => "InterpolationResolutionError",
            Self::UnsupportedType => "UnsupportedInterpolationType",
            Self::Grammar => "GrammarParseError",
            Self::ConfigKey => "ConfigKeyError",
            Self::ConfigType => "ConfigTypeError",
            Self::MissingMandatory => "MissingMandatoryValue",
            Self::Type => "TypeError",
            Self::Value => "ValueError",
            Self::Key => "KeyError",
            Self::ZeroDivision => "ZeroDivisionError",
            Self::Attribute => "AttributeError",
            Self::Yaml => "YAMLError",
            Self::UnsupportedValue => "UnsupportedValueType",
            Self::KeyValidation => "KeyValidationError",
        }
    }

    /// Whether OmegaConf lets it pass through an interpolation unchanged.
    fn is_interpolation_error(self) -> bool {
        matches!(
            self,
            Self::InterpolationKey
                | Self::InterpolationToMissing
                | Self::Resolution
                | Self::UnsupportedType
        )
    }
}

/// An interpolation that has no value.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ResolveError {
    /// Which exception OmegaConf raises.
    pub kind: ResolveErrorKind,
    /// What is wrong.
    pub message: String,
    /// The values that were being resolved, innermost first: dotted key, place, text.
    pub chain: Vec<(String, Origin, String)>,
    /// An existing key that was probably meant.
    pub near: Option<String>,
}

impl ResolveError {
    /// An error of a kind.
    pub fn new(kind: ResolveErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            chain: vec![],
            near: None,
        }
    }
}

/// Number of a node in its [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(u32);

#[derive(Clone, Debug)]
enum Step {
    Root,
    Name(Key),
    Index(usize),
}

#[derive(Clone, Debug)]
enum Content {
    Scalar(Value),
    List(Vec<NodeId>),
    Map(IndexMap<Key, NodeId>),
}

#[derive(Clone, Debug)]
struct GraphNode {
    parent: Option<NodeId>,
    step: Step,
    content: Content,
    origin: Origin,
}

/// A tree whose nodes know their parents.
pub struct Graph<'a> {
    nodes: Vec<GraphNode>,
    context: ResolverContext<'a>,
    /// Interpolations being resolved, outermost first.
    stack: Vec<NodeId>,
    /// Containers being resolved in place.
    depth: usize,
    hydra_root: Option<NodeId>,
    warnings: Vec<String>,
}

/// What an expression stands for.
enum Evaluated {
    Node(NodeId),
    Value(Value),
}

type Resolve<T> = Result<T, ResolveError>;

fn fail<T>(kind: ResolveErrorKind, message: impl Into<String>) -> Resolve<T> {
    Err(ResolveError::new(kind, message))
}

impl<'a> Graph<'a> {
    /// The graph of a tree, and its root.
    pub fn new(root: &Node, context: ResolverContext<'a>) -> (Self, NodeId) {
        let mut graph = Self {
            nodes: vec![],
            context,
            stack: vec![],
            depth: 0,
            hydra_root: None,
            warnings: vec![],
        };
        let id = graph.import(root, None, Step::Root);
        (graph, id)
    }

    /// Warnings of resolvers so far.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    pub(super) fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }

    fn at(&self, id: NodeId) -> &GraphNode {
        &self.nodes[id.0 as usize]
    }

    fn at_mut(&mut self, id: NodeId) -> &mut GraphNode {
        &mut self.nodes[id.0 as usize]
    }

    fn push(&mut self, node: GraphNode) -> NodeId {
        self.nodes.push(node);
        NodeId(u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX))
    }

    fn import(&mut self, node: &Node, parent: Option<NodeId>, step: Step) -> NodeId {
        let id = self.push(GraphNode {
            parent,
            step,
            content: Content::Scalar(Value::Null),
            origin: node.origin,
        });
        let content = match &node.value {
            Value::Map(mapping) => Content::Map(
                mapping
                    .iter()
                    .map(|(key, child)| {
                        (
                            key.clone(),
                            self.import(child, Some(id), Step::Name(key.clone())),
                        )
                    })
                    .collect(),
            ),
            Value::List(items) => Content::List(
                items
                    .iter()
                    .enumerate()
                    .map(|(index, child)| self.import(child, Some(id), Step::Index(index)))
                    .collect(),
            ),
            value => Content::Scalar(value.clone()),
        };
        self.at_mut(id).content = content;
        id
    }

    /// The tree at a node, as it stands.
    pub fn to_node(&self, id: NodeId) -> Node {
        let node = self.at(id);
        let value = match &node.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => {
                Value::List(items.iter().map(|item| self.to_node(*item)).collect())
            }
            Content::Map(mapping) => Value::Map(
                mapping
                    .iter()
                    .map(|(key, item)| (key.clone(), self.to_node(*item)))
                    .collect(),
            ),
        };
        Node {
            value,
            origin: node.origin,
        }
    }

    fn text(&self, id: NodeId) -> Option<&str> {
        match &self.at(id).content {
            Content::Scalar(Value::Str(text)) => Some(text),
            _ => None,
        }
    }

    fn is_missing(&self, id: NodeId) -> bool {
        self.text(id) == Some(crate::yaml::MISSING)
    }

    pub(super) fn is_container(&self, id: NodeId) -> bool {
        !matches!(self.at(id).content, Content::Scalar(_))
    }

    /// The keys of a mapping.
    pub(super) fn keys(&self, id: NodeId) -> Option<Vec<Key>> {
        match &self.at(id).content {
            Content::Map(mapping) => Some(mapping.keys().cloned().collect()),
            _ => None,
        }
    }

    /// Python's name of the type of a value.
    pub(super) fn type_name(&self, id: NodeId) -> &'static str {
        match &self.at(id).content {
            Content::Scalar(value) => resolvers::type_name(value),
            Content::List(_) => "ListConfig",
            Content::Map(_) => "DictConfig",
        }
    }

    /// `a.b[0]`: the place of a node as OmegaConf writes it.
    pub fn full_key(&self, id: NodeId) -> String {
        let mut steps = vec![];
        let mut at = Some(id);
        while let Some(id) = at {
            let node = self.at(id);
            steps.push(&node.step);
            at = node.parent;
        }
        let mut key = String::new();
        for step in steps.into_iter().rev() {
            match step {
                Step::Root => {}
                Step::Index(index) => key.extend(["[", &index.to_string(), "]"]),
                Step::Name(name) => {
                    if !key.is_empty() {
                        key.push('.');
                    }
                    key.push_str(&key_text(name));
                }
            }
        }
        key
    }

    fn root_of(&self, id: NodeId) -> NodeId {
        let mut at = id;
        while let Some(parent) = self.at(at).parent {
            at = parent;
        }
        at
    }

    /// The nearest container at or above a node.
    fn parent_container(&self, id: NodeId) -> NodeId {
        self.at(id).parent.unwrap_or(id)
    }

    /// The node that a node stands for: itself, or the target of its interpolation.
    pub fn dereference(&mut self, id: NodeId) -> Resolve<NodeId> {
        let Some(text) = self.text(id).filter(|text| text.contains("${")) else {
            return Ok(id);
        };
        let text = text.to_owned();
        if self.stack.contains(&id) {
            return fail(ResolveErrorKind::Resolution, "it refers to itself");
        }
        if self.stack.len() > MAX_CHAIN {
            return fail(
                ResolveErrorKind::Resolution,
                "it refers to itself without end",
            );
        }
        self.stack.push(id);
        let evaluated = self.evaluate_string(id, &text);
        self.stack.pop();
        match evaluated {
            Ok(Evaluated::Node(target)) => Ok(target),
            Ok(Evaluated::Value(value)) => Ok(self.attach(value, id)),
            Err(mut error) => {
                error
                    .chain
                    .push((self.full_key(id), self.at(id).origin, text));
                Err(error)
            }
        }
    }

    /// A computed value that stands where `id` stands.
    fn attach(&mut self, value: Value, id: NodeId) -> NodeId {
        let (parent, step, origin) = {
            let node = self.at(id);
            (node.parent, node.step.clone(), node.origin)
        };
        self.import(&Node { value, origin }, parent, step)
    }

    fn evaluate_string(&mut self, id: NodeId, text: &str) -> Resolve<Evaluated> {
        let pieces = parse_text(text)
            .map_err(|error| ResolveError::new(ResolveErrorKind::Grammar, error.message))?;
        self.evaluate_pieces(id, &pieces)
            .map_err(Self::as_interpolation_error)
    }

    /// Errors that are not about interpolations are wrapped, as OmegaConf wraps them.
    fn as_interpolation_error(mut error: ResolveError) -> ResolveError {
        if !error.kind.is_interpolation_error() {
            error.message = match error.kind {
                ResolveErrorKind::MissingMandatory
                | ResolveErrorKind::ConfigKey
                | ResolveErrorKind::ConfigType
                | ResolveErrorKind::Grammar
                | ResolveErrorKind::Yaml => error.message,
                kind => format!("{} ({})", error.message, kind.code()),
            };
            error.kind = ResolveErrorKind::Resolution;
        }
        error
    }

    fn evaluate_pieces(&mut self, id: NodeId, pieces: &[Piece]) -> Resolve<Evaluated> {
        if let [Piece::Interpolation(interpolation)] = pieces {
            return self.evaluate(id, interpolation);
        }
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Interpolation(interpolation) => {
                    let value = self.evaluate(id, interpolation)?;
                    text.push_str(&self.python_str(&value));
                }
            }
        }
        Ok(Evaluated::Value(Value::Str(text)))
    }

    fn plain(&self, value: Evaluated) -> Value {
        match value {
            Evaluated::Node(id) => self.to_node(id).value,
            Evaluated::Value(value) => value,
        }
    }

    fn python_str(&self, value: &Evaluated) -> String {
        match value {
            Evaluated::Node(id) => str_of(&self.to_node(*id)),
            Evaluated::Value(value) => str_of(&Node::computed(value.clone())),
        }
    }

    fn evaluate(&mut self, id: NodeId, interpolation: &Interpolation) -> Resolve<Evaluated> {
        match interpolation {
            Interpolation::Node(tokens) => {
                let key = self.key_of(id, tokens)?;
                self.lookup(id, &key).map(Evaluated::Node)
            }
            Interpolation::Resolver { name, arguments } => {
                let mut parts = vec![];
                for token in name {
                    parts.push(self.token_text(id, token, "the name of a resolver")?);
                }
                let arguments = self.evaluate_arguments(id, arguments)?;
                self.call(id, &parts.join("."), arguments)
            }
        }
    }

    fn key_of(&mut self, id: NodeId, tokens: &[KeyToken]) -> Resolve<String> {
        let mut key = String::new();
        for token in tokens {
            key.push_str(&self.token_text(id, token, "a key")?);
        }
        Ok(key)
    }

    fn token_text(&mut self, id: NodeId, token: &KeyToken, what: &str) -> Resolve<String> {
        match token {
            KeyToken::Text(text) => Ok(text.clone()),
            KeyToken::Interpolation(interpolation, source) => {
                let value = self.evaluate(id, interpolation)?;
                match self.plain(value) {
                    Value::Str(text) => Ok(text),
                    other => fail(
                        ResolveErrorKind::Resolution,
                        format!(
                            "`{source}` is used as {what} and must be a text, but it is {}",
                            repr_of(&Node::computed(other))
                        ),
                    ),
                }
            }
        }
    }

    fn evaluate_arguments(
        &mut self,
        id: NodeId,
        arguments: &[Argument],
    ) -> Resolve<Vec<Evaluated>> {
        let mut values = vec![];
        for argument in arguments {
            values.push(if let Some(element) = &argument.element {
                self.evaluate_element(id, element)?
            } else {
                self.warn(
                    "an argument of a resolver is left out: write '' for an empty text".to_owned(),
                );
                Evaluated::Value(Value::Str(String::new()))
            });
        }
        Ok(values)
    }

    fn evaluate_element(&mut self, id: NodeId, element: &Element) -> Resolve<Evaluated> {
        Ok(match element {
            Element::Primitive(tokens) => self.evaluate_primitive(id, tokens)?,
            Element::Quoted(pieces) => {
                // A quoted value is a text, even where it is one interpolation.
                let value = self.evaluate_pieces(id, pieces)?;
                Evaluated::Value(Value::Str(self.python_str(&value)))
            }
            Element::List(items) => {
                let values = self.evaluate_arguments(id, items)?;
                let items = values
                    .into_iter()
                    .map(|value| Node::computed(self.plain(value)));
                Evaluated::Value(Value::List(items.collect()))
            }
            Element::Dict(pairs) => {
                let mut mapping = Mapping::new();
                for (key, element) in pairs {
                    let key = self.evaluate_primitive(id, key)?;
                    let key = match self.plain(key) {
                        Value::Str(text) => Key::Str(text),
                        Value::Int(value) => Key::Int(value),
                        Value::Float(value) => Key::Float(value),
                        Value::Bool(value) => Key::Bool(value),
                        Value::Bytes(bytes) => Key::Bytes(bytes),
                        Value::Null | Value::List(_) | Value::Map(_) => Key::Null,
                    };
                    let value = self.evaluate_element(id, element)?;
                    mapping.insert(key, Node::computed(self.plain(value)));
                }
                Evaluated::Value(Value::Map(mapping))
            }
        })
    }

    fn evaluate_primitive(&mut self, id: NodeId, tokens: &[PrimitiveToken]) -> Resolve<Evaluated> {
        match tokens {
            [PrimitiveToken::Interpolation(interpolation)] => self.evaluate(id, interpolation),
            [PrimitiveToken::Token(kind, text)] => Ok(Evaluated::Value(match kind {
                PrimitiveKind::Text => Value::Str(text.clone()),
                PrimitiveKind::Null => Value::Null,
                PrimitiveKind::Int => Value::Int(int_value(text)),
                PrimitiveKind::Float => Value::Float(float_value(text)),
                PrimitiveKind::Bool => Value::Bool(text.eq_ignore_ascii_case("true")),
                PrimitiveKind::Escape => Value::Str(unescape(text)),
            })),
            _ => {
                let mut joined = String::new();
                for token in tokens {
                    match token {
                        PrimitiveToken::Token(PrimitiveKind::Escape, text) => {
                            joined.push_str(&unescape(text));
                        }
                        PrimitiveToken::Token(_, text) => joined.push_str(text),
                        PrimitiveToken::Interpolation(interpolation) => {
                            let value = self.evaluate(id, interpolation)?;
                            joined.push_str(&self.python_str(&value));
                        }
                    }
                }
                Ok(Evaluated::Value(Value::Str(joined)))
            }
        }
    }

    // Keys ---------------------------------------------------------------------------------------------------

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
    fn lookup(&mut self, id: NodeId, key: &str) -> Resolve<NodeId> {
        let container = self.parent_container(id);
        let (start, rest) = self.start_of(container, key).map_err(|error| {
            ResolveError::new(ResolveErrorKind::InterpolationKey, error.message)
        })?;
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

    /// A value cannot be a container that it stands in.
    fn refuse_ancestor(&self, container: NodeId, target: NodeId) -> Resolve<()> {
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
                return fail(
                    ResolveErrorKind::MissingMandatory,
                    format!("`{}` is still ???", self.full_key(child)),
                );
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

    fn child(&self, id: NodeId, part: &str) -> Resolve<Option<NodeId>> {
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
    pub(super) fn select_from(
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
            other => other?,
        };
        Ok(found.filter(|id| !self.is_missing(*id)))
    }

    // Functions ----------------------------------------------------------------------------------------------

    fn call(&mut self, id: NodeId, name: &str, arguments: Vec<Evaluated>) -> Resolve<Evaluated> {
        let container = self.parent_container(id);
        match name {
            "oc.select" => return self.oc_select(container, &arguments),
            "oc.decode" => return self.oc_decode(id, &arguments),
            "oc.create" => return self.oc_create(container, arguments),
            "oc.deprecated" => return self.oc_deprecated(id, container, &arguments),
            "oc.dict.keys" | "oc.dict.values" => return self.oc_dict(container, name, &arguments),
            "hydra" => return self.hydra(&arguments),
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
                error.kind = ResolveErrorKind::Attribute;
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

    // In place -----------------------------------------------------------------------------------------------

    /// Replaces every interpolation at and below a node by its value, in the order of the document, as
    /// `OmegaConf.resolve` does. What refers to a `???` becomes `???`.
    pub fn resolve_in_place(&mut self, id: NodeId) -> Resolve<()> {
        self.depth += 1;
        if self.depth > MAX_CHAIN {
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

    fn resolve_one(&mut self, id: NodeId) -> Resolve<()> {
        let target = match self.dereference(id) {
            Ok(target) => target,
            Err(error) if error.kind == ResolveErrorKind::InterpolationToMissing => {
                self.at_mut(id).content =
                    Content::Scalar(Value::Str(crate::yaml::MISSING.to_owned()));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
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
        let id = self.push(node);
        self.copy_content(from, id);
        id
    }

    /// The tree at a node with all interpolations resolved, the graph left as it is; what refers to a `???` is an
    /// error (`OmegaConf.to_container(resolve=True)`).
    pub fn resolved_copy(&mut self, id: NodeId) -> Resolve<Node> {
        self.depth += 1;
        if self.depth > MAX_CHAIN {
            return fail(
                ResolveErrorKind::Resolution,
                "values refer to each other without end",
            );
        }
        let target = self.dereference(id)?;
        let origin = self.at(id).origin;
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

    /// Evaluates one expression of the value level at the root, for tests of the grammar.
    pub fn evaluate_expression(&mut self, root: NodeId, element: &Element) -> Resolve<Node> {
        let value = self.evaluate_element(root, element)?;
        Ok(Node::computed(self.plain(value)))
    }

    /// Evaluates one text at the root, for tests of the grammar.
    pub fn evaluate_text(&mut self, root: NodeId, pieces: &[Piece]) -> Resolve<Node> {
        let value = self.evaluate_pieces(root, pieces)?;
        Ok(Node::computed(self.plain(value)))
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
    while let Some(mark) = rest.chars().next() {
        rest = &rest[1..];
        let end = if mark == '[' {
            rest.find(']')
        } else {
            rest.find(['.', '['])
        };
        let end = end.unwrap_or(rest.len());
        parts.push(rest[..end].to_owned());
        rest = &rest[end..];
        if mark == '[' {
            rest = rest.strip_prefix(']').unwrap_or(rest);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
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
