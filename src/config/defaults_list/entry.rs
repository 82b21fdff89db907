//! One entry of a defaults list: which file it names, and the package its content goes to.

use crate::diag::source::Origin;
use crate::yaml::MISSING;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Choice {
    Null,
    One(String),
    Several(Vec<String>),
}

#[derive(Clone, Debug)]
pub(super) struct InputDefault {
    /// Group of a choice; nothing for a file, `_self_` included.
    pub(super) group: Option<String>,
    /// Path of a file, or the option of a group.
    pub(super) choice: Choice,
    /// After `@`, `_here_` and `_group_` replaced.
    pub(super) package: Option<String>,
    pub(super) header: Option<String>,
    pub(super) parent_base: String,
    pub(super) parent_package: String,
    pub(super) optional: bool,
    pub(super) is_override: bool,
    pub(super) external_append: bool,
    pub(super) deleted: bool,
    pub(super) primary: bool,
    pub(super) origin: Origin,
}

impl InputDefault {
    pub(super) fn file(path: &str, origin: Origin) -> Self {
        Self {
            group: None,
            choice: Choice::One(path.to_owned()),
            package: None,
            header: None,
            parent_base: String::new(),
            parent_package: String::new(),
            optional: false,
            is_override: false,
            external_append: false,
            deleted: false,
            primary: false,
            origin,
        }
    }

    pub(super) fn is_self(&self) -> bool {
        self.group.is_none() && self.choice == Choice::One("_self_".to_owned())
    }

    /// The option or the path.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.choice {
            Choice::One(name) => Some(name),
            Choice::Null | Choice::Several(_) => None,
        }
    }

    pub(super) fn is_missing(&self) -> bool {
        self.name() == Some(MISSING)
    }

    pub(super) fn is_interpolation(&self) -> bool {
        self.name().is_some_and(|name| name.contains("${"))
    }

    /// Folder part of the path as written.
    fn relative_group(&self) -> &str {
        if let Some(group) = &self.group {
            group.strip_prefix('/').unwrap_or(group)
        } else {
            let path = self.name().unwrap_or("");
            let path = path.strip_prefix('/').unwrap_or(path);
            path.rfind('/').map_or("", |index| &path[..index])
        }
    }

    fn is_absolute(&self) -> bool {
        match &self.group {
            Some(group) => group.starts_with('/'),
            None => self.name().is_some_and(|path| path.starts_with('/')),
        }
    }

    /// The group, or the folder of the file, from the root.
    pub(super) fn group_path(&self) -> String {
        if self.is_self() {
            return self.parent_base.clone();
        }
        let relative = self.relative_group();
        if self.is_absolute() || self.parent_base.is_empty() {
            relative.to_owned()
        } else if relative.is_empty() {
            self.parent_base.clone()
        } else {
            format!("{}/{relative}", self.parent_base)
        }
    }

    pub(super) fn config_path(&self) -> String {
        let name = self.name().unwrap_or("");
        let last = match &self.group {
            Some(_) => name,
            None => name.rfind('/').map_or(name, |index| &name[index + 1..]),
        };
        let group = self.group_path();
        // A name with slashes at its front keeps them: `training=/gpt3/5b` is a path with two.
        if group.is_empty() {
            last.to_owned()
        } else {
            format!("{group}/{last}")
        }
    }

    fn default_package(&self) -> String {
        self.group_path().replace('/', ".")
    }

    /// Own package: after `@`, else of the header, else of the path as written.
    pub(super) fn own_package(&self, with_header: bool) -> String {
        if let Some(package) = &self.package {
            return package.clone();
        }
        match &self.header {
            Some(header) if with_header => header.clone(),
            _ => self.relative_group().replace('/', "."),
        }
    }

    pub(super) fn final_package(&self, with_header: bool) -> String {
        let own = self.own_package(with_header);
        let joined = match (self.parent_package.is_empty(), own.is_empty()) {
            (true, _) => own,
            (false, true) => self.parent_package.clone(),
            (false, false) => format!("{}.{own}", self.parent_package),
        };
        match joined.rfind("_global_") {
            None => joined,
            Some(index) => {
                let rest = &joined[index + "_global_".len()..];
                rest.strip_prefix('.').unwrap_or(rest).to_owned()
            }
        }
    }

    pub(super) fn override_key(&self) -> String {
        let key = self.group_path();
        let package = self.final_package(false);
        if package == self.default_package() {
            key
        } else if package.is_empty() {
            format!("{key}@_global_")
        } else {
            format!("{key}@{package}")
        }
    }

    pub(super) fn set_parent(&mut self, base: &str, package: &str) {
        base.clone_into(&mut self.parent_base);
        package.clone_into(&mut self.parent_package);
        if let Some(own) = &self.package
            && own.contains("_group_")
        {
            let replaced = own.replace("_group_", &self.default_package());
            self.package = Some(format!("_global_.{replaced}"));
        }
    }
}
