//! From a request to a composed configuration.

use indexmap::IndexMap;

use super::{ConfigRepository, ResolvedConfig};
use crate::diag::Diagnostic;
use crate::yaml::Node;

/// What to compose.
#[derive(Clone, Debug)]
pub struct ComposeRequest<'a> {
    /// Where the files are.
    pub repository: &'a ConfigRepository,
    /// Primary file, without `.yaml`; nothing for an empty one.
    pub config_name: Option<&'a str>,
    /// Words of the command line, such as `+trainer.max_steps=10`.
    pub overrides: &'a [String],
}

/// A composed configuration, in which `${…}` still stands.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) root: Node,
    pub(crate) choices: IndexMap<String, Option<String>>,
}

/// Composes a configuration.
pub fn compose(request: &ComposeRequest<'_>) -> Result<Config, Diagnostic> {
    let _ = request;
    Err(Diagnostic::configuration("composition is not built yet"))
}

impl Config {
    /// The tree without the `hydra` key.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Group to chosen option, as `hydra:runtime.choices` shows it.
    pub fn choices(&self) -> &IndexMap<String, Option<String>> {
        &self.choices
    }

    /// Replaces every `${…}` by its value; `???` stays and is reported by [`ResolvedConfig::extract`].
    pub fn resolve(&self) -> Result<ResolvedConfig, Diagnostic> {
        Err(Diagnostic::configuration("composition is not built yet"))
    }

    /// As `--cfg job` prints it: the whole, or the part at a dotted key.
    pub fn to_yaml(&self, package: Option<&str>) -> Result<String, Diagnostic> {
        let _ = package;
        Err(Diagnostic::configuration("composition is not built yet"))
    }
}
