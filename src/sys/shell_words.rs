//! A line of a shell as its words: quotes and backslashes, no variables and no patterns.

/// Words of a shell, with its quotes and backslashes, where the last may still be open. The last word is empty after a
/// blank.
pub fn shell_words(line: &str) -> Vec<String> {
    let mut words = vec![];
    let mut word = String::new();
    let mut quote = None;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('\\', None) => word.extend(characters.next()),
            // Between double quotes a backslash only protects these.
            ('\\', Some('"')) => match characters.peek() {
                Some('"' | '\\' | '$' | '`') => word.extend(characters.next()),
                _ => word.push(c),
            },
            (c, None) if c.is_whitespace() => {
                words.push(std::mem::take(&mut word));
                while characters.next_if(|c| c.is_whitespace()).is_some() {}
            }
            (c, _) => word.push(c),
        }
    }
    words.push(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_quote_and_a_last_blank_are_understood() {
        assert_eq!(shell_words("ptune 'a b'=\"c d"), ["ptune", "a b=c d"]);
        assert_eq!(shell_words("ptune a\\ b "), ["ptune", "a b", ""]);
        assert_eq!(shell_words(""), [""]);
    }
}
