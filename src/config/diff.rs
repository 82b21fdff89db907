//! What is different between two configurations, key by key, and who set the values on either side.

use std::path::Path;

use super::compose::Config;
use super::explain::one_line;
use super::override_grammar::Override;
use super::repository::load_text;
use crate::diag::source::{COMMAND_LINE, Origin, SourceMap};
use crate::diag::{Diagnostic, Location};
use crate::yaml::python_text::key_text;
use crate::yaml::{Key, Mapping, Node, Value};

/// One of the two configurations.
#[derive(Clone, Debug)]
pub struct Side {
    /// What it is, for headings: the words, or the path of the file.
    pub title: String,
    root: Node,
    texts: SourceMap,
    words: Vec<(Override, Origin)>,
    /// The dotted key that `root` stands at, or nothing for the whole.
    at: String,
}

/// A value of one side.
#[derive(Clone, Debug)]
pub struct Put {
    /// The value.
    pub value: Node,
    /// `file:line`, or the word that set it; nothing where the program did.
    pub place: Option<String>,
}

/// A key whose values differ.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The dotted key.
    pub key: String,
    /// Its value on the first side, where it has one.
    pub old: Option<Put>,
    /// Its value on the second.
    pub new: Option<Put>,
}

impl Side {
    /// A composition without its `hydra` key, with or without its `${…}`.
    ///
    /// # Errors
    /// With `resolve`, an interpolation that has no value.
    pub fn composed(config: &Config, title: &str, resolve: bool) -> Result<Self, Diagnostic> {
        let root = if resolve {
            config.resolve()?.root().clone()
        } else {
            config.root().clone()
        };
        Ok(Self {
            title: title.to_owned(),
            root,
            texts: config.texts().clone(),
            words: config.words().to_vec(),
            at: String::new(),
        })
    }

    /// One section of a composition, with or without its `${…}`. Other sections may stay without values.
    ///
    /// # Errors
    /// With `resolve`, an interpolation that has no value.
    pub fn section(
        config: &Config,
        title: &str,
        key: &str,
        resolve: bool,
    ) -> Result<Self, Diagnostic> {
        let tree = if resolve {
            config.resolve_sections(&[key])?.root().clone()
        } else {
            config.root().clone()
        };
        Ok(Self {
            title: title.to_owned(),
            root: tree
                .descendant(key)
                .cloned()
                .unwrap_or_else(Node::empty_map),
            texts: config.texts().clone(),
            words: config.words().to_vec(),
            at: key.to_owned(),
        })
    }

    /// A file as it is written: no defaults list is followed.
    ///
    /// # Errors
    /// A file that cannot be read or is no YAML.
    pub fn file(path: &Path) -> Result<Self, Diagnostic> {
        let title = path.display().to_string();
        let text = fs_err::read_to_string(path).map_err(|error| {
            Diagnostic::configuration(format!("the file cannot be read: {}", error.kind()))
                .at(Location::file(&title))
        })?;
        let texts = SourceMap::new();
        let source = texts.add(title.as_str(), text.as_str());
        Ok(Self {
            root: load_text(&text, source, &texts)?,
            title,
            texts,
            words: vec![],
            at: String::new(),
        })
    }

    /// The tree.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Whether any text still has `${…}` in it.
    pub fn has_interpolations(&self) -> bool {
        has_interpolations(&self.root)
    }

    /// The part at a dotted key; nothing where there is none.
    pub fn part(&self, key: &str) -> Option<Self> {
        Some(Self {
            root: self.root.descendant(key)?.clone(),
            at: key.to_owned(),
            ..self.clone()
        })
    }

    /// The section that a tree without one was taken from, such as `prompt_learning` for the file beside a job script:
    /// the mapping at the top that shares most keys with it, where more are shared than with the top itself.
    pub fn section_like(&self, other: &Node) -> Option<String> {
        let shared = |tree: &Node| match (tree.as_map(), other.as_map()) {
            (Some(tree), Some(other)) => {
                let both = tree.keys().filter(|key| other.contains_key(*key)).count();
                let all = tree.len() + other.len() - both;
                if all == 0 {
                    0.0
                } else {
                    both as f64 / all as f64
                }
            }
            _ => 0.0,
        };
        let (mut best, mut name) = (shared(&self.root), None);
        for (key, section) in self.root.as_map()? {
            let here = shared(section);
            if here > best {
                (best, name) = (here, Some(key_text(key)));
            }
        }
        name
    }

    fn put(&self, node: &Node) -> Put {
        let place = self.texts.short_place(node.origin).map(|place| {
            let column = node.origin.column;
            let word = self.words.iter().find(|(_, at)| {
                at.source == node.origin.source
                    && (at.column..at.column + at.length.max(1)).contains(&column)
            });
            match word {
                Some((word, _)) if place == COMMAND_LINE => word.input.clone(),
                _ => place,
            }
        });
        Put {
            value: node.clone(),
            place,
        }
    }
}

/// What differs, in the order of the trees. Keys of mappings may stand in another order; a list of single values is one
/// value.
pub fn diff(old: &Side, new: &Side) -> Vec<Difference> {
    let mut walk = Walk {
        sides: (old, new),
        found: vec![],
    };
    let at = if old.at.is_empty() { &new.at } else { &old.at };
    walk.compare(at, Some(&old.root), Some(&new.root));
    walk.found
}

struct Walk<'s> {
    sides: (&'s Side, &'s Side),
    found: Vec<Difference>,
}

impl Walk<'_> {
    fn compare(&mut self, key: &str, old: Option<&Node>, new: Option<&Node>) {
        let below = |part: &str| {
            if key.is_empty() {
                part.to_owned()
            } else {
                format!("{key}.{part}")
            }
        };
        // A mapping that only one side has is told by its keys.
        let empty = Mapping::new();
        let mappings = match (old.map(|node| &node.value), new.map(|node| &node.value)) {
            (Some(Value::Map(old)), Some(Value::Map(new))) => Some((old, new)),
            (Some(Value::Map(old)), None) if !old.is_empty() => Some((old, &empty)),
            (None, Some(Value::Map(new))) if !new.is_empty() => Some((&empty, new)),
            _ => None,
        };
        if let Some((old, new)) = mappings {
            for part in in_order(old, new) {
                self.compare(&below(&key_text(part)), old.get(part), new.get(part));
            }
            return;
        }
        if let (Some(Value::List(old)), Some(Value::List(new))) =
            (old.map(|node| &node.value), new.map(|node| &node.value))
            && old.iter().chain(new).all(Node::is_container)
        {
            for index in 0..old.len().max(new.len()) {
                self.compare(&below(&index.to_string()), old.get(index), new.get(index));
            }
            return;
        }
        if let (Some(old), Some(new)) = (old, new)
            && is_equal(old, new)
        {
            return;
        }
        self.found.push(Difference {
            key: key.to_owned(),
            old: old.map(|node| self.sides.0.put(node)),
            new: new.map(|node| self.sides.1.put(node)),
        });
    }
}

/// The keys of both, those of the second alone behind the key that they follow there.
fn in_order<'n>(old: &'n Mapping, new: &'n Mapping) -> Vec<&'n Key> {
    let mut keys: Vec<&Key> = old.keys().collect();
    let mut at = 0;
    for key in new.keys() {
        if let Some(known) = keys.iter().position(|known| *known == key) {
            at = known + 1;
        } else {
            keys.insert(at, key);
            at += 1;
        }
    }
    keys
}

fn is_equal(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        // NaN equals itself here.
        (Value::Float(a), Value::Float(b)) => a.total_cmp(b).is_eq(),
        (Value::Str(a), Value::Str(b)) => a == b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_equal(a, b))
        }
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| is_equal(a, b)))
        }
        _ => false,
    }
}

fn has_interpolations(node: &Node) -> bool {
    match &node.value {
        Value::Map(mapping) => mapping.values().any(has_interpolations),
        Value::List(items) => items.iter().any(has_interpolations),
        _ => node.is_interpolation(),
    }
}

impl std::fmt::Display for Difference {
    /// `- key: old  (place)`, `+ key: new  (place)` or `~ key: old → new  (place → place)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = |put: &Put| {
            put.place
                .clone()
                .unwrap_or_else(|| "set by the program".to_owned())
        };
        let key = &self.key;
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => {
                let (from, to) = (one_line(&old.value), one_line(&new.value));
                write!(
                    f,
                    "~ {key}: {from} → {to}  ({} → {})",
                    place(old),
                    place(new)
                )
            }
            (Some(put), None) => write!(f, "- {key}: {}  ({})", one_line(&put.value), place(put)),
            (None, Some(put)) => write!(f, "+ {key}: {}  ({})", one_line(&put.value), place(put)),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(name: &str, text: &str) -> Side {
        let texts = SourceMap::new();
        let source = texts.add(name, text);
        Side {
            title: name.to_owned(),
            root: load_text(text, source, &texts).unwrap(),
            texts,
            words: vec![],
            at: String::new(),
        }
    }

    fn lines(old: &str, new: &str) -> Vec<String> {
        let found = diff(&side("a.yaml", old), &side("b.yaml", new));
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_key_that_differs_is_one_line_in_the_order_of_the_trees() {
        let old = "a: 1\nb: {x: 1, y: [1, 2]}\nc: {z: 1}\nlast: true\n";
        let new = "last: true\na: 1\nnew: ???\nb: {y: [1, 3], x: 1.0}\n";
        assert_eq!(
            lines(old, new),
            [
                "+ new: ???  (b.yaml:3)",
                "~ b.x: 1 → 1.0  (a.yaml:2 → b.yaml:4)",
                "~ b.y: [1, 2] → [1, 3]  (a.yaml:2 → b.yaml:4)",
                "- c.z: 1  (a.yaml:3)",
            ]
        );
    }

    #[test]
    fn items_that_are_mappings_are_compared_key_by_key() {
        assert_eq!(
            lines(
                "t: [{a: 1, b: 2}, {a: 3}]\n",
                "t: [{b: 2, a: 1}, {a: 4}, {c: 5}]\n"
            ),
            [
                "~ t.1.a: 3 → 4  (a.yaml:1 → b.yaml:1)",
                "+ t.2.c: 5  (b.yaml:1)"
            ]
        );
        assert_eq!(
            lines("t: {a: 1}\n", "t: 3\n"),
            ["~ t: {a: 1} → 3  (a.yaml:1 → b.yaml:1)"]
        );
        assert!(lines("a: {}\nb: .nan\n", "b: .nan\na: {}\n").is_empty());
    }

    #[test]
    fn the_section_that_a_file_was_taken_from_is_found() {
        let whole = side(
            "a.yaml",
            "stages: [x]\nrun: 1\none: {run: 1, model: 2, trainer: 3}\ntwo: {run: 1, other: 2}\n",
        );
        let file = side("b.yaml", "run: 1\nmodel: 3\ntrainer: 3\n");
        assert_eq!(whole.section_like(file.root()).as_deref(), Some("one"));
        assert_eq!(whole.section_like(whole.root()), None);
    }
}
