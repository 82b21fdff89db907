//! `pkg://a.b`: folders of Python packages on the search path, for trees whose plugins are installed with pip. Nothing
//! is imported; a package is the folder that Python would find.

use std::path::PathBuf;

use crate::sys::env_vars;

/// The folder of a dotted package: below this folder, `PYTHONPATH`, or the `site-packages` of the environment in use.
pub(super) fn folder(package: &str) -> Option<PathBuf> {
    let relative: PathBuf = package
        .split(['.', '/'])
        .filter(|part| !part.is_empty())
        .collect();
    if relative.as_os_str().is_empty() {
        return None;
    }
    roots()
        .map(|root| root.join(&relative))
        .find(|folder| folder.is_dir())
}

fn roots() -> impl Iterator<Item = PathBuf> {
    let given = env_vars::get(env_vars::PYTHONPATH).unwrap_or_default();
    let given: Vec<PathBuf> = std::env::split_paths(&given).collect();
    let environments = [env_vars::VIRTUAL_ENV, env_vars::CONDA_PREFIX]
        .into_iter()
        .filter_map(env_vars::get)
        .flat_map(|environment| site_packages(&environment));
    std::iter::once(PathBuf::from("."))
        .chain(given)
        .chain(environments)
}

/// `lib/python3.*/site-packages` of an environment; there is one, as a rule.
fn site_packages(environment: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs_err::read_dir(PathBuf::from(environment).join("lib")) else {
        return vec![];
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .map(|entry| entry.path().join("site-packages"))
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_of_an_environment_are_found_and_others_are_not() {
        let environment = tempfile::tempdir().unwrap();
        let package = "lib/python3.11/site-packages/plugin/conf";
        fs_err::create_dir_all(environment.path().join(package)).unwrap();
        let text = environment.path().display().to_string();
        let roots = site_packages(&text);
        assert_eq!(roots.len(), 1);
        assert!(roots[0].join("plugin/conf").is_dir());
        assert_eq!(folder("no_such_package.of_anybody"), None);
        assert_eq!(folder(""), None);
    }
}
