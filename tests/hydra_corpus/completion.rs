//! Kind `completion`: the candidates for an unfinished line.

use std::path::Path;

use ptune::application::completion::candidates;
use ptune::config::{ConfigRepository, ConfigSource, SearchPathEntry};
use serde_json::{Value as Json, json};

use crate::Corpus;

pub(crate) fn completion(corpus: &Corpus, row: &Json) -> Json {
    let packages = tempfile::tempdir().unwrap();
    install_hydra(corpus, packages.path());
    let mut entries = vec![];
    if let Some(folder) = row["config_dir"].as_str() {
        entries.push(SearchPathEntry::new(
            "main",
            ConfigSource::Folder(corpus.root.join(folder)),
        ));
    }
    let repository = ConfigRepository::with_entries(entries);
    let line = row["line"].as_str().unwrap_or("");
    json!({"completions": candidates(&repository, row["config_name"].as_str(), line)})
}

/// Hydra's package has configuration folders for its own tests, which `pkg://hydra.test_utils.configs…` names; the corpus
/// keeps them beside its other trees.
#[expect(
    unsafe_code,
    reason = "the cases are run where that package is installed"
)]
fn install_hydra(corpus: &Corpus, packages: &Path) {
    let folder = packages.join("hydra/test_utils");
    fs_err::create_dir_all(&folder).unwrap();
    let tree = corpus.root.join("trees/hydra/test_utils_configs");
    fs_err::os::unix::fs::symlink(tree, folder.join("configs")).unwrap();
    // SAFETY: the cases run one after another on the only thread.
    unsafe { std::env::set_var("PYTHONPATH", packages) };
}
