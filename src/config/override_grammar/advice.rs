//! What to do about a word that is not in the language: slips of the keyboard and of the shell.

use super::OverrideError;

/// Characters that a value without quotes cannot hold.
const NEED_QUOTES: &str = "#;&<>^!`\"'\u{201c}\u{201d}\u{2018}\u{2019}";

/// Hints for the word at `index` of a command line.
pub(crate) fn advice(words: &[String], index: usize, error: &OverrideError) -> Vec<String> {
    let word = &words[index];
    let after = words.get(index + 1).map_or("", String::as_str);
    let mut hints = vec![];
    if word.starts_with(['\u{2013}', '\u{2014}', '\u{2212}']) {
        let name = word.trim_start_matches(['\u{2013}', '\u{2014}', '\u{2212}', '-']);
        hints.push(format!("an option begins with two hyphens: `--{name}`"));
        return hints;
    }
    if let Some(hint) = blanks_around_equal(words, index) {
        hints.push(hint);
        return hints;
    }
    let Some((key, value)) = word.split_once('=') else {
        hints.extend(without_equal(word, words, index));
        return hints;
    };
    if error.offset <= key.len() {
        if let Some((before, rest)) = key.split_once('[')
            && let Some((item, rest)) = rest.split_once(']')
        {
            hints.push(format!("`{before}.{item}{rest}={value}`"));
        } else if key.starts_with("--") {
            hints.push(format!("`{}`", word.trim_start_matches('-')));
        } else if key.trim() != key || key.contains(' ') {
            hints.push(format!(
                "`{}={}`",
                key.trim().replace(' ', "_"),
                value.trim()
            ));
        }
        return hints;
    }
    let value = value.trim_start();
    let open = |open, close| value.matches(open).count() > value.matches(close).count();
    if !after.is_empty() && (open('[', ']') || open('{', '}')) && !after.contains('=') {
        hints.push(format!(
            "the shell took the word apart: put quotes around it, `'{word} {after}'`"
        ));
    } else if open('[', ']') {
        hints.push(format!("a bracket is never closed: `{key}={value}]`"));
    } else if open('{', '}') {
        hints.push(format!("a brace is never closed: `{key}={value}}}`"));
    } else if let Some(value) = value.strip_prefix('=') {
        hints.push(format!("`{key}={value}`"));
    } else if let Some(rest) = value.strip_prefix('~') {
        hints.push(format!(
            "`~` is not the home folder here: `{key}=$HOME{rest}`"
        ));
    } else if !value.contains('\'') && !value.ends_with('\\') {
        hints.push(format!(
            "quotes for the value, and quotes around them for the shell: `\"{key}='{value}'\"`"
        ));
    } else if !value.contains('"') && !value.starts_with('\'') {
        hints.push(format!(
            "quotes for the value, and quotes around them for the shell: `'{key}=\"{value}\"'`"
        ));
    } else if value.contains(|c| NEED_QUOTES.contains(c)) {
        hints.push("a quote within quotes needs a backslash before it".to_owned());
    }
    hints
}

/// `key = value` in three words, `key =value` or `key= value` in two.
fn blanks_around_equal(words: &[String], index: usize) -> Option<String> {
    let word = &words[index];
    let before = index.checked_sub(1).map_or("", |index| &words[index]);
    let after = words.get(index + 1).map_or("", String::as_str);
    let (key, value) = if word == "=" {
        (before, after)
    } else if before == "=" && index > 1 && !word.contains('=') {
        (words[index - 2].as_str(), word.as_str())
    } else if let Some(value) = word.strip_prefix('=') {
        (before, value)
    } else if before.ends_with('=') && !word.contains('=') {
        (before.trim_end_matches('='), word.as_str())
    } else if after == "=" && !word.contains('=') {
        (
            word.as_str(),
            words.get(index + 2).map_or("", String::as_str),
        )
    } else if after.starts_with('=') && !word.contains('=') {
        (word.as_str(), after.trim_start_matches('='))
    } else {
        return None;
    };
    let is_word = |text: &str| !text.is_empty() && !text.contains('=');
    (is_word(key) && is_word(value)).then(|| format!("no blanks around `=`: `{key}={value}`"))
}

fn without_equal(word: &str, words: &[String], index: usize) -> Option<String> {
    if let Some((key, value)) = word.split_once(':') {
        if value.is_empty() {
            let value = words.get(index + 1)?;
            return Some(format!("`{key}={value}`"));
        }
        return Some(format!("`{key}={value}`"));
    }
    let before = words.get(index.checked_sub(1)?)?;
    let open = before.matches(['[', '{']).count() > before.matches([']', '}']).count();
    open.then(|| {
        format!("the shell took the word apart: put quotes around it, `'{before} {word}'`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::override_grammar::parse_override;

    fn hints(line: &[&str]) -> Vec<String> {
        let words: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        words
            .iter()
            .enumerate()
            .filter_map(|(index, word)| Some((index, parse_override(word).err()?)))
            .flat_map(|(index, error)| advice(&words, index, &error))
            .collect()
    }

    #[test]
    fn slips_of_keyboard_and_shell_are_told_with_the_word_to_type() {
        for (line, part) in [
            (&["\u{2013}\u{2013}cfg"][..], "`--cfg`"),
            (&["a.b", "=", "3"], "no blanks around `=`: `a.b=3`"),
            (&["a.b=", "3"], "`a.b=3`"),
            (&["a[0]=1"], "`a.0=1`"),
            (&["a:1"], "`a=1`"),
            (&["a:", "1"], "`a=1`"),
            (&["stages=[a,", "b]"], "`'stages=[a, b]'`"),
            (&["a=x&y"], "`\"a='x&y'\"`"),
            (&["a=b=c"], "`\"a='b=c'\"`"),
            (&["a=~/x"], "`a=$HOME/x`"),
            (&["a=it's"], "`'a=\"it's\"'`"),
            (&["--a.b=1"], "`a.b=1`"),
        ] {
            let hints = hints(line);
            assert!(
                hints.iter().any(|hint| hint.contains(part)),
                "{line:?}: {hints:?}"
            );
        }
    }
}
