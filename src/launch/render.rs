//! The layout of job scripts: minijinja templates, part of the binary or from a folder.

use std::path::PathBuf;

use anyhow::{Context, Result};
use minijinja::{Environment, UndefinedBehavior};

const EMBEDDED: [(&str, &str); 4] = [
    (
        "slurm.sh.j2",
        include_str!("../../launcher_scripts/slurm.sh.j2"),
    ),
    (
        "slurm_array.sh.j2",
        include_str!("../../launcher_scripts/slurm_array.sh.j2"),
    ),
    (
        "bcp.sh.j2",
        include_str!("../../launcher_scripts/bcp.sh.j2"),
    ),
    (
        "local.sh.j2",
        include_str!("../../launcher_scripts/local.sh.j2"),
    ),
];

/// The templates; a file in `folder` comes before the one in the binary.
#[derive(Clone, Debug, Default)]
pub struct Templates {
    /// `--templates-dir`.
    pub folder: Option<PathBuf>,
}

impl Templates {
    /// Lays out `values` by template `name`.
    ///
    /// # Errors
    /// The file cannot be read, or uses a name that does not exist.
    pub fn render(&self, name: &'static str, values: minijinja::Value) -> Result<String> {
        let custom = self
            .folder
            .as_ref()
            .map(|folder| folder.join(name))
            .filter(|path| path.exists());
        let source = match &custom {
            Some(path) => fs_err::read_to_string(path)?,
            None => EMBEDDED
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, text)| (*text).to_owned())
                .with_context(|| format!("there is no template `{name}`"))?,
        };
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment
            .render_str(&source, values)
            .with_context(|| match custom {
                Some(path) => format!("laying out the job script by `{}`", path.display()),
                None => format!("laying out the job script by `{name}`"),
            })
    }
}
