//! Shell quoting, as Python's `shlex.quote` does it, and text inside double quotes.

/// One word for a POSIX shell. Plain words stay as they are.
pub fn shell_quote(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r#"'"'"'"#))
    }
}

/// Text to stand between double quotes so that the shell hands it on unchanged.
pub fn inside_double_quotes(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '"' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_stay_and_others_are_quoted_as_python_does() {
        assert_eq!(
            shell_quote("/a/b-c_d.e,f=g:h@i%j+k"),
            "/a/b-c_d.e,f=g:h@i%j+k"
        );
        assert_eq!(shell_quote("a b"), "'a b'");
        assert_eq!(shell_quote(""), "''");
        assert_eq!(shell_quote("it's"), r#"'it'"'"'s'"#);
        assert_eq!(shell_quote("é"), "'é'");
    }

    #[test]
    fn a_shell_gets_back_what_was_quoted_twice() {
        let word = "a \"b\" $HOME `id` \\ 'c'";
        let script = format!(
            "bash -c \"printf %s {}\"",
            inside_double_quotes(&shell_quote(word))
        );
        let output = std::process::Command::new("bash")
            .args(["-c", &script])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
    }
}
