//! Listings of `--info`: search path, defaults tree, defaults list. The layout is Hydra's.

use std::fmt::Write;

use super::compose::Config;
use super::defaults_list::{ResultDefault, TreeLine};
use crate::yaml::to_yaml;

/// What to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InfoPart {
    /// Everything.
    All,
    /// Search path, tree, list and configuration.
    Config,
    /// The defaults list.
    Defaults,
    /// The defaults tree.
    DefaultsTree,
    /// What would be plugins in Hydra; here they are built in.
    Plugins,
    /// The search path.
    SearchPath,
}

impl Config {
    /// The listing of `--info PART`.
    pub fn info(&self, part: InfoPart) -> String {
        let mut out = String::new();
        if part == InfoPart::All {
            title(&mut out, concat!("ptune ", env!("CARGO_PKG_VERSION")), '=');
        }
        if matches!(part, InfoPart::All | InfoPart::Plugins) {
            out.push_str(&plugins_text());
        }
        if matches!(
            part,
            InfoPart::All | InfoPart::Config | InfoPart::SearchPath
        ) {
            self.search_path(&mut out);
        }
        if matches!(
            part,
            InfoPart::All | InfoPart::Config | InfoPart::DefaultsTree
        ) {
            out.push_str(&defaults_tree_text(self.defaults_tree()));
        }
        if matches!(part, InfoPart::All | InfoPart::Config | InfoPart::Defaults) {
            out.push_str(&defaults_list_text(self.defaults_list()));
        }
        if matches!(part, InfoPart::All | InfoPart::Config) {
            title(&mut out, "Config", '*');
            line(&mut out, &to_yaml(self.root()));
        }
        out
    }

    fn search_path(&self, out: &mut String) {
        line(out, "");
        title(out, "Config search path", '*');
        let rows: Vec<Vec<String>> = self
            .repository()
            .entries()
            .iter()
            .map(|entry| {
                vec![
                    entry.provider.clone(),
                    format!("{}://{}", entry.scheme, entry.path),
                ]
            })
            .collect();
        table(out, &["Provider", "Search path"], &rows, false);
    }
}

/// The listing of `--info defaults-tree`.
pub fn defaults_tree_text(tree: &[TreeLine]) -> String {
    let mut out = String::new();
    line(&mut out, "");
    title(&mut out, "Defaults Tree", '*');
    for entry in tree {
        let colon = if entry.has_children { ":" } else { "" };
        line(
            &mut out,
            &format!("{}{}{colon}", "  ".repeat(entry.depth), entry.label),
        );
    }
    out
}

/// The listing of `--info defaults`.
pub fn defaults_list_text(defaults: &[ResultDefault]) -> String {
    let mut out = String::new();
    line(&mut out, "");
    title(&mut out, "Defaults List", '*');
    let rows: Vec<Vec<String>> = defaults
        .iter()
        .map(|default| {
            vec![
                default.config_path.clone(),
                default.package.clone(),
                if default.is_self { "True" } else { "False" }.to_owned(),
                default.parent.clone().unwrap_or_default(),
            ]
        })
        .collect();
    table(
        &mut out,
        &["Config path", "Package", "_self_", "Parent"],
        &rows,
        true,
    );
    out
}

/// The parts that Hydra finds as plugins, under the names that it lists.
pub fn plugins_text() -> String {
    let mut text = String::new();
    let out = &mut text;
    title(out, "Installed Hydra Plugins", '*');
    for (kind, names) in [
        (
            "ConfigSource",
            &[
                "FileConfigSource",
                "ImportlibResourcesConfigSource",
                "StructuredConfigSource",
            ][..],
        ),
        (
            "CompletionPlugin",
            &["BashCompletion", "FishCompletion", "ZshCompletion"],
        ),
        ("Launcher", &["BasicLauncher"]),
        ("Sweeper", &["BasicSweeper"]),
    ] {
        line(out, &format!("\t{kind}:"));
        line(out, &format!("\t{}", "-".repeat(kind.len() + 1)));
        for name in names {
            line(out, &format!("\t\t{name}"));
        }
    }
    text
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn title(out: &mut String, text: &str, filler: char) {
    line(out, text);
    line(out, &filler.to_string().repeat(text.chars().count()));
}

/// The header of the defaults list ends in a blank, as Hydra writes it.
fn table(out: &mut String, header: &[&str], rows: &[Vec<String>], blank: bool) {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .chain([header[column].len()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let row_text = |cells: &[&str]| {
        let mut text = String::from("|");
        for (cell, width) in cells.iter().zip(&widths) {
            // Writing to a text cannot fail.
            let _ = write!(text, " {cell:width$} |");
        }
        text
    };
    let mut top = row_text(header);
    if blank {
        top.push(' ');
    }
    line(out, &top);
    let rule = "-".repeat(top.chars().count());
    line(out, &rule);
    for row in rows {
        let cells: Vec<&str> = row.iter().map(String::as_str).collect();
        line(out, &row_text(&cells));
    }
    line(out, &rule);
}
