//! The keys of a model's configuration file, read one by one, with every mistake noted and none fatal before the end.

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value};

use crate::diag::{Diagnostic, Location};
use crate::model::feed_forward::Activation;

/// transformers' name of an activation.
pub(super) fn activation_named(name: &str) -> Option<Activation> {
    Some(match name {
        "relu" => Activation::Relu,
        "relu2" => Activation::SquaredRelu,
        "gelu" => Activation::GeluErf,
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Activation::GeluTanh,
        "silu" | "swish" => Activation::Silu,
        _ => return None,
    })
}

/// The keys of a `config.json`, and what is wrong with them.
pub(super) struct Keys<'a> {
    path: &'a Path,
    map: Map<String, Value>,
    /// Put before keys in messages: `encoder.`.
    section: &'static str,
    problems: Vec<String>,
}

impl<'a> Keys<'a> {
    /// The keys of `map`, from the file at `path`.
    pub(super) fn new(path: &'a Path, map: Map<String, Value>) -> Self {
        Self {
            path,
            map,
            section: "",
            problems: vec![],
        }
    }

    /// Reads the keys below `name`, or these where it is no mapping.
    pub(super) fn section<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let Some(Value::Object(inner)) = self.map.get(name).cloned() else {
            return read(self);
        };
        let mut keys = Self::new(self.path, inner);
        keys.section = name;
        let value = read(&mut keys);
        self.problems.append(&mut keys.problems);
        value
    }

    /// Whether there is a mapping of this name.
    pub(super) fn has_section(&self, name: &str) -> bool {
        matches!(self.map.get(name), Some(Value::Object(_)))
    }

    pub(super) fn problem(&mut self, problem: impl Into<String>) {
        let problem = problem.into();
        self.problems.push(match self.section {
            "" => problem,
            section => format!("in `{section}`: {problem}"),
        });
    }

    /// Notes that `key` asks for something that is not computed here, unless its value is one of `known`.
    pub(super) fn refuse_unless(&mut self, key: &str, known: &[Value], what: &str) {
        let Some(value) = self.value(key) else {
            return;
        };
        if !known.contains(value) {
            let problem = format!("`{key}` is {value}: {what}");
            self.problem(problem);
        }
    }

    /// `whole` divided by `by`, which must leave nothing over.
    pub(super) fn divided(&mut self, whole: (&str, usize), by: (&str, usize)) -> usize {
        if !whole.1.is_multiple_of(by.1) {
            self.problem(format!(
                "`{}` ({}) is not a multiple of `{}` ({})",
                whole.0, whole.1, by.0, by.1
            ));
        }
        (whole.1 / by.1).max(1)
    }

    /// Rotary positions turn channels in pairs.
    pub(super) fn check_channels(&mut self, channels: usize, head_size: usize) {
        if channels == 0 || channels % 2 == 1 || channels > head_size {
            self.problem(format!(
                "rotates {channels} of {head_size} channels, expected an even number"
            ));
        }
    }

    /// A number of layers; more than any model has would only be a way to fill the memory.
    pub(super) fn layers(&mut self, key: &str, default: Option<usize>) -> usize {
        let layers = self.size(key, default);
        if layers > 10_000 {
            self.problem(format!("`{key}` is {layers}, expected at most 10000"));
            return 1;
        }
        layers
    }

    /// An optional size.
    pub(super) fn optional_size(&mut self, key: &str) -> Option<usize> {
        self.value(key)?;
        Some(self.size(key, None))
    }

    /// A value that is there and not null.
    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn size(&mut self, key: &str, default: Option<usize>) -> usize {
        let problem = match (self.value(key), default) {
            (None, Some(default)) => return default,
            (None, None) => format!("`{key}` is missing"),
            (Some(value), _) => match value.as_u64().and_then(|size| usize::try_from(size).ok()) {
                // 2^31 is beyond any size of a model and far from overflow in products of two.
                Some(size @ 1..=0x7fff_ffff) => return size,
                _ => format!("`{key}` is {value}, expected a positive whole number"),
            },
        };
        self.problem(problem);
        1
    }

    pub(super) fn number(&mut self, key: &str, default: f64) -> f64 {
        match self
            .value(key)
            .map(|value| (value.as_f64(), value.to_string()))
        {
            None => default,
            Some((Some(number), _)) => number,
            Some((None, value)) => {
                self.problem(format!("`{key}` is {value}, expected a number"));
                default
            }
        }
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        match self
            .value(key)
            .map(|value| (value.as_bool(), value.to_string()))
        {
            None => default,
            Some((Some(flag), _)) => flag,
            Some((None, value)) => {
                self.problem(format!("`{key}` is {value}, expected true or false"));
                default
            }
        }
    }

    pub(super) fn text(&mut self, key: &str, default: &str) -> String {
        match self.value(key).map(|value| (value.as_str(), value)) {
            None => default.to_owned(),
            Some((Some(text), _)) => text.to_owned(),
            Some((None, value)) => {
                let problem = format!("`{key}` is {value}, expected text");
                self.problem(problem);
                default.to_owned()
            }
        }
    }

    pub(super) fn activation(&mut self, key: &str, default: &str) -> Activation {
        let name = self.text(key, default);
        activation_named(&name).unwrap_or_else(|| {
            self.problem(format!("`{key}` is `{name}`, which is not known here"));
            Activation::Relu
        })
    }

    pub(super) fn finish(self) -> Result<()> {
        if self.problems.is_empty() {
            return Ok(());
        }
        let mut diagnostic = Diagnostic::job("the model's configuration cannot be used")
            .at(Location::file(self.path.display()));
        diagnostic.notes = self.problems;
        Err(diagnostic.into())
    }
}
