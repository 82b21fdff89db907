//! From the text of a value to what it stands for.

use super::error::{ResolveError, ResolveErrorKind};
use super::{Evaluated, Graph, MAX_CHAIN, MAX_NESTING, MAX_TEXT, NodeId, Resolve, fail};
use crate::config::interpolation::grammar::{
    Argument, Element, Interpolation, KeyToken, Piece, PrimitiveKind, PrimitiveToken, parse_text,
};
use crate::config::lexemes::{float_value, int_value, unescape};
use crate::yaml::python_text::{repr_of, str_of};
use crate::yaml::{Key, Mapping, Node, Value};

impl Graph<'_> {
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
        self.spend(1)?;
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
        let plain = matches!(value, Value::List(_) | Value::Map(_));
        let id = self.import(&Node { value, origin }, parent, step);
        self.at_mut(id).plain = plain;
        id
    }

    fn evaluate_string(&mut self, id: NodeId, text: &str) -> Resolve<Evaluated> {
        let pieces = parse_text(text)
            .map_err(|error| ResolveError::new(ResolveErrorKind::Grammar, error.message))?;
        self.evaluate_pieces(id, &pieces)
            .map_err(Self::as_interpolation_error)
    }

    /// Errors that are not about interpolations are wrapped, as OmegaConf wraps them.
    pub(super) fn as_interpolation_error(mut error: ResolveError) -> ResolveError {
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
            if text.len() > MAX_TEXT {
                return fail(ResolveErrorKind::Resolution, "the text is too large");
            }
        }
        Ok(Evaluated::Value(Value::Str(text)))
    }

    pub(super) fn plain(&self, value: Evaluated) -> Value {
        match value {
            Evaluated::Node(id) => self.to_node(id).value,
            Evaluated::Value(value) => value,
        }
    }

    fn python_str(&self, value: &Evaluated) -> String {
        match value {
            // An enumeration to Hydra, whose members have a longer name in a text.
            Evaluated::Node(id)
                if matches!(self.text(*id), Some("RUN" | "MULTIRUN"))
                    && self.full_key(*id) == "hydra.mode" =>
            {
                format!("RunMode.{}", self.text(*id).unwrap_or_default())
            }
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

    pub(super) fn evaluate_element(&mut self, id: NodeId, element: &Element) -> Resolve<Evaluated> {
        // Counted over all expressions that are being evaluated: each may hold another.
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return fail(
                ResolveErrorKind::Resolution,
                format!("more than {MAX_NESTING} levels of nesting"),
            );
        }
        let value = self.element_value(id, element);
        self.nesting -= 1;
        value
    }

    fn element_value(&mut self, id: NodeId, element: &Element) -> Resolve<Evaluated> {
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

    /// Evaluates one expression of the value level at the root, for tests of the grammar.
    pub fn evaluate_expression(&mut self, root: NodeId, element: &Element) -> Resolve<Node> {
        let value = self.evaluate_element(root, element)?;
        self.shown(value)
    }

    /// Evaluates one text at the root, for tests of the grammar.
    pub fn evaluate_text(&mut self, root: NodeId, pieces: &[Piece]) -> Resolve<Node> {
        let value = self.evaluate_pieces(root, pieces)?;
        self.shown(value)
    }

    fn shown(&mut self, value: Evaluated) -> Resolve<Node> {
        match value {
            Evaluated::Node(id) if self.is_container(id) => self.resolved_copy(id),
            value => Ok(Node::computed(self.plain(value))),
        }
    }
}
