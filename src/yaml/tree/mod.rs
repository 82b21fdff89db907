//! Tokens to a tree of [`Node`]s: PyYAML's parser, composer and constructor in one pass each.
//!
//! Errors come in PyYAML's order: what is wrong with the structure before what is wrong with a tag or a key.

mod collections;
mod construct;
mod merge_keys;
mod nodes;
mod parser;

use std::collections::{BTreeMap, HashMap};

use super::YamlError;
use super::error::YamlErrorKind as Kind;
use super::node::Node;
use super::scalar::ScalarTag;
use super::scanner::{Mark, scan};
use crate::diag::source::SourceId;
use construct::Constructor;
use parser::Parser;

/// Deeper texts are refused; Python gives up at about the same depth.
const MAX_DEPTH: usize = 100;
/// More values than this come only from aliases of aliases.
const MAX_VALUES: usize = 500_000;

/// Reads a text with one document; nothing for an empty one.
///
/// # Errors
/// Whatever PyYAML with OmegaConf's loader refuses.
pub fn parse(text: &str, source: SourceId) -> Result<Option<Node>, YamlError> {
    check_characters(text)?;
    let scanned = scan(text);
    let mut parser = Parser {
        tokens: scanned.tokens.into_iter().peekable(),
        error: scanned.error,
        nodes: vec![],
        anchors: HashMap::new(),
        handles: default_handles(),
        depth: 0,
        last: Mark::default(),
    };
    let Some(root) = parser.document()? else {
        return Ok(None);
    };
    Constructor::new(parser.nodes, source)
        .document(root)
        .map(Some)
}

fn check_characters(text: &str) -> Result<(), YamlError> {
    let mut mark = Mark::default();
    for c in text.chars() {
        let printable = matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}'
            | '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}');
        if !printable {
            return Err(YamlError::new(
                Kind::Reader,
                format!("the character U+{:04X} is not allowed in YAML", c as u32),
                mark,
            ));
        }
        if c == '\n' {
            mark.line += 1;
            mark.column = 0;
        } else {
            mark.column += 1;
        }
    }
    Ok(())
}

/// The type of a value: by its text, or by a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tag {
    Scalar(ScalarTag),
    Sequence,
    Mapping,
    Binary,
    OrderedMap,
    Pairs,
    /// Known to YAML, and refused by a configuration.
    Set,
    /// Known to YAML, and refused by a configuration.
    Timestamp,
    Unknown(String),
}

enum Content {
    Scalar(String),
    Sequence(Vec<usize>),
    Mapping(Vec<(usize, usize)>),
}

struct Composed {
    tag: Tag,
    content: Content,
    start: Mark,
    length: usize,
    in_progress: bool,
}

fn default_handles() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("!".to_owned(), "!".to_owned()),
        ("!!".to_owned(), "tag:yaml.org,2002:".to_owned()),
    ])
}

fn scalar_tag(tag: &str) -> Tag {
    match tag.strip_prefix("tag:yaml.org,2002:") {
        Some("null") => Tag::Scalar(ScalarTag::Null),
        Some("bool") => Tag::Scalar(ScalarTag::Bool),
        Some("int") => Tag::Scalar(ScalarTag::Int),
        Some("float") => Tag::Scalar(ScalarTag::Float),
        Some("str") => Tag::Scalar(ScalarTag::Str),
        Some("merge") => Tag::Scalar(ScalarTag::Merge),
        Some("seq") => Tag::Sequence,
        Some("map") => Tag::Mapping,
        Some("binary") => Tag::Binary,
        Some("omap") => Tag::OrderedMap,
        Some("pairs") => Tag::Pairs,
        Some("value") => Tag::Scalar(ScalarTag::ValueKey),
        Some("set") => Tag::Set,
        Some("timestamp") => Tag::Timestamp,
        _ => Tag::Unknown(tag.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Node {
        parse(text, SourceId(0)).unwrap().unwrap()
    }

    fn refused(text: &str) -> (Kind, usize, usize) {
        let error = parse(text, SourceId(0)).unwrap_err();
        (error.kind, error.line, error.column)
    }

    #[test]
    fn every_value_knows_its_line_and_column() {
        let tree = read("a: 1\nb:\n  - x\n  - y: 2\n");
        let place = |key| {
            let origin = tree.descendant(key).unwrap().origin;
            (origin.line, origin.column)
        };
        assert_eq!(place("a"), (1, 4));
        assert_eq!(place("b.0"), (3, 5));
        assert_eq!(place("b.1.y"), (4, 8));
    }

    #[test]
    fn merge_keys_give_way_to_the_mappings_own_keys() {
        let tree =
            read("base: &b {x: 1, y: 2}\nother: &o {y: 3}\nmerged:\n  <<: [*b, *o]\n  x: 9\n");
        assert_eq!(tree.descendant("merged.x").unwrap().as_str(), None);
        let merged = tree.child("merged").unwrap().as_map().unwrap();
        let shown: Vec<String> = merged
            .iter()
            .map(|(key, node)| {
                format!(
                    "{}={}",
                    key.as_str().unwrap(),
                    crate::yaml::python_text::str_of(node)
                )
            })
            .collect();
        assert_eq!(shown, ["y=2", "x=9"]);
    }

    #[test]
    fn mistakes_are_refused_at_their_place() {
        assert_eq!(refused("a: 1\na: 2\n"), (Kind::Constructor, 2, 1));
        assert_eq!(refused("a: [1, 2\nb: 3\n").0, Kind::Parser);
        assert_eq!(refused("a:\n\tb: 1\n"), (Kind::Scanner, 2, 1));
        assert_eq!(refused("a: *nowhere\n"), (Kind::Composer, 1, 4));
        assert_eq!(refused("a: 1\n---\nb: 2\n").0, Kind::Composer);
        assert_eq!(refused("~: 1\n").0, Kind::Key);
        assert_eq!(refused("a: !!set {x}\n").0, Kind::UnsupportedValue);
        assert_eq!(refused("a: &x [*x]\n").0, Kind::Constructor);
        assert_eq!(refused(&"[".repeat(5000)).0, Kind::Composer);
    }
}
