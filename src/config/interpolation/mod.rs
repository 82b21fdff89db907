//! `${…}`: the language, the walk over the tree, and the functions that can be called in it.

pub mod grammar;
pub mod resolve;
pub mod resolvers;

pub use resolve::{Graph, NodeId, ResolveError, ResolveErrorKind};
pub use resolvers::{ResolverContext, Resolvers};
