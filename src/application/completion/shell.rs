//! `--shell-completion install=SHELL`, `uninstall=SHELL`, `query=SHELL`.
//!
//! `query=bash`, `query=zsh` and `query=fish` answer as Hydra does, for scripts that were made for Hydra. Our own scripts
//! ask `query=candidates`, one candidate a line: the word, a blank where it ends there, a tab, what it is.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::candidates::candidates;
use super::helpful::{Asked, Command, Expects, helpful, launcher_options};
use crate::application::Application;
use crate::application::arguments::Arguments;
use crate::config::ConfigRepository;
use crate::diag::Diagnostic;
use crate::diag::suggest::did_you_mean;

use crate::sys::env_vars;
use crate::sys::shell_words::shell_words;

const SUBCOMMANDS: [&str; 3] = ["install", "uninstall", "query"];
const SHELLS: [(&str, &str); 3] = [
    ("bash", include_str!("script.bash")),
    ("fish", include_str!("script.fish")),
    ("zsh", include_str!("script.zsh")),
];

/// Does what the words of `--shell-completion` say and returns the exit status.
///
/// # Errors
/// None or several sub-commands, and shells that are not known (Hydra: `ValueError`); a query outside of a shell's
/// completion (Hydra: `KeyError`).
pub fn shell_completion(
    application: &Application<'_>,
    arguments: &Arguments,
    repository: &ConfigRepository,
    out: &mut dyn Write,
) -> Result<i32> {
    let words = &arguments.words;
    let mut given: Vec<(&str, &str)> = vec![];
    for word in words {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        if SUBCOMMANDS.contains(&name) {
            given.retain(|(earlier, _)| *earlier != name);
            given.push((name, value));
        }
    }
    let [(command, shell)] = given[..] else {
        return Err(Diagnostic::configuration(
            "`--shell-completion` needs one of `install=SHELL`, `uninstall=SHELL` and `query=SHELL`",
        )
        .hint("eval \"$(ptune --shell-completion install=bash)\"")
        .code("ValueError")
        .into());
    };
    if (command, shell) == ("query", "candidates") {
        return answer(application, out);
    }
    let Some((shell, script)) = SHELLS.iter().find(|(name, _)| *name == shell) else {
        return Err(unknown_shell(command, shell).into());
    };
    match command {
        "install" => out.write_all(filled(script, &program()?).as_bytes())?,
        "uninstall" => out.write_all(uninstall(shell, &program()?).as_bytes())?,
        _ => {
            let line = env_vars::get(env_vars::COMP_LINE).ok_or_else(no_line)?;
            let config_name = application.config_name(arguments);
            let found = candidates(repository, config_name, without_program(&line));
            let separator = if *shell == "fish" { "\n" } else { " " };
            writeln!(out, "{}", found.join(separator))?;
        }
    }
    Ok(0)
}

/// For our own scripts. A terminal is no place for what is wrong with half a line, so there are no errors here.
fn answer(application: &Application<'_>, out: &mut dyn Write) -> Result<i32> {
    let line = env_vars::get(env_vars::COMP_LINE).ok_or_else(no_line)?;
    let point = env_vars::get(env_vars::COMP_POINT).and_then(|point| point.parse::<usize>().ok());
    let line: String = line.chars().take(point.unwrap_or(usize::MAX)).collect();
    let command = Command {
        name: application.name.to_owned(),
        options: launcher_options(application.options),
        commands: (application.commands)(),
        words: vec![Expects::Configuration],
        ..Command::default()
    };
    let asked = Asked {
        command: &command,
        repository: &|arguments| application.repository(arguments).ok(),
        config_name: application.config_name,
        values: application.known_values,
    };
    let mut text = String::new();
    for candidate in helpful(&asked, &line) {
        let end = if candidate.is_whole { " " } else { "" };
        text.extend([&candidate.text, end, "\t", &candidate.about, "\n"]);
    }
    out.write_all(text.as_bytes())
        .context("writing candidates")?;
    Ok(0)
}

fn program() -> Result<PathBuf> {
    std::env::current_exe().context("finding this program's own path")
}

fn no_line() -> Diagnostic {
    Diagnostic::configuration(
        "the environment variable `COMP_LINE` does not hold a line to complete",
    )
    .note("shells ask for candidates this way, by the script of `--shell-completion install=SHELL`")
    .code("KeyError")
}

fn unknown_shell(command: &str, shell: &str) -> Diagnostic {
    let names = SHELLS.map(|(name, _)| name);
    let diagnostic = Diagnostic::configuration(format!(
        "there is no completion for `{shell}`, only for {}",
        names.join(", ")
    ))
    .code("ValueError");
    match did_you_mean(shell, names) {
        Some(near) => diagnostic.hint(format!("did you mean `{command}={near}`?")),
        None => diagnostic,
    }
}

/// What follows the program's name on a line; for a script of Python what follows its name.
fn without_program(line: &str) -> &str {
    let after_word = |text: &'_ str| -> usize {
        let text = text.trim_start();
        text.find(char::is_whitespace).unwrap_or(text.len())
    };
    let skip = |line: &'_ str| -> usize {
        let blanks = line.len() - line.trim_start().len();
        let end = blanks + after_word(line);
        end + (line[end..].len() - line[end..].trim_start().len())
    };
    let first = shell_words(line.trim_start()).swap_remove(0);
    let line = &line[skip(line)..];
    match first.rsplit('/').next() {
        Some("python" | "python3") => &line[skip(line)..],
        _ => line,
    }
}

fn name_of(program: &Path) -> String {
    program.file_name().map_or_else(
        || "ptune".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

fn function_of(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}

fn filled(script: &str, program: &Path) -> String {
    let name = name_of(program);
    script
        .replace("{function}", &function_of(&name))
        .replace("{name}", &name)
        .replace("{program}", &quoted(&program.display().to_string()))
}

/// One word for bash, zsh and fish alike.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn uninstall(shell: &str, program: &Path) -> String {
    let name = name_of(program);
    let function = function_of(&name);
    match shell {
        "bash" => format!("complete -r {name} 2>/dev/null\nunset -f _{function}_complete\n"),
        "zsh" => format!("compdef -d {name}\nunset -f _{function}_complete\n"),
        _ => format!("complete -e -c {name}\nfunctions -e __{function}_complete\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_is_not_part_of_the_line() {
        assert_eq!(without_program("app db="), "db=");
        assert_eq!(without_program("  ./bin/app  db= x"), "db= x");
        assert_eq!(without_program("~/bin/ptune "), "");
        assert_eq!(without_program("app"), "");
        assert_eq!(without_program("/usr/bin/python3 my_app.py db="), "db=");
        assert_eq!(without_program("python app.py"), "");
    }
}
