//! The walk over the tree that `${…}` asks for, as OmegaConf walks it.
//!
//! A [`Graph`] is the tree with parents: relative keys, cycles and containers made by resolvers all need to know
//! where a value stands. Nodes are numbers into one table; resolving in place changes the table.

mod error;
mod evaluate;
mod functions;
mod in_place;
mod keys;

pub use error::{ResolveError, ResolveErrorKind};
pub(crate) use keys::split_key;

use indexmap::IndexMap;

use super::resolvers::{self, ResolverContext};
use crate::diag::source::Origin;
use crate::yaml::python_text::key_text;
use crate::yaml::{Key, Node, Value};

/// Chains of interpolations longer than this are endless.
const MAX_CHAIN: usize = 75;
/// Containers inside of containers that are resolved; more are endless.
const MAX_LEVELS: usize = 150;
/// Values inside of values, over all expressions that are being evaluated.
const MAX_NESTING: usize = 100;
/// Trees that need more are hostile: a few thousand values are usual.
const MAX_WORK: usize = 1_000_000;
/// Texts longer than this come only from texts that repeat each other.
const MAX_TEXT: usize = 16 << 20;

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
    /// A list or mapping that a function gave: a plain Python value to OmegaConf, which looks into it no further.
    plain: bool,
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
    /// Values that became `???` because they refer to one, each with that one.
    became_missing: Vec<(String, (String, Origin))>,
    /// Which value asked for which key, where somebody wants to know.
    followed: Option<Vec<(String, String)>>,
    /// Refuse what `OmegaConf.resolve` cannot put into a configuration.
    strict: bool,
    /// Expressions evaluated and values copied so far.
    work: usize,
    /// Values inside of the expressions that are being evaluated.
    nesting: usize,
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
            became_missing: vec![],
            followed: None,
            strict: false,
            work: 0,
            nesting: 0,
        };
        let id = graph.import(root, None, Step::Root);
        (graph, id)
    }

    /// Warnings of resolvers so far.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// From now on remembers which keys are asked for.
    pub(crate) fn follow(&mut self) {
        self.followed = Some(vec![]);
    }

    /// The keys of values whose `${…}` was evaluated, each with a dotted key that it asked for, in order.
    pub(crate) fn followed(&self) -> &[(String, String)] {
        self.followed.as_deref().unwrap_or_default()
    }

    /// Values that became `???` because they refer to one: dotted key, and the key and place of that one.
    pub(crate) fn became_missing(&self) -> &[(String, (String, Origin))] {
        &self.became_missing
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
            plain: false,
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
        let node = self.at(id);
        !node.plain && !matches!(node.content, Content::Scalar(_))
    }

    /// Counts work done; values that multiply without end are an error and not a full memory.
    fn spend(&mut self, work: usize) -> Resolve<()> {
        self.work += work;
        if self.work + self.nodes.len() > MAX_WORK {
            return fail(
                ResolveErrorKind::Resolution,
                "values refer to each other too many times",
            );
        }
        Ok(())
    }

    /// The keys of a mapping.
    pub(super) fn keys(&self, id: NodeId) -> Option<Vec<Key>> {
        match &self.at(id).content {
            Content::Map(mapping) if self.is_container(id) => {
                Some(mapping.keys().cloned().collect())
            }
            _ => None,
        }
    }

    /// Python's name of the type of a value.
    pub(super) fn type_name(&self, id: NodeId) -> &'static str {
        match &self.at(id).content {
            Content::Scalar(value) => resolvers::type_name(value),
            Content::List(_) if self.at(id).plain => "list",
            Content::Map(_) if self.at(id).plain => "dict",
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
}
