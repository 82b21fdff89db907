//! `glob(pattern)`: options of a group by the patterns of a shell, as Python's `fnmatch` reads them.

use super::Glob;

impl Glob {
    /// Those of the names that a pattern takes and none leaves out, in their order.
    pub fn filter(&self, names: &[String]) -> Vec<String> {
        let any = |patterns: &[String], name: &str| {
            let name: Vec<char> = name.chars().collect();
            patterns.iter().any(|pattern| {
                let pattern: Vec<char> = pattern.chars().collect();
                matches(&pattern, &name)
            })
        };
        names
            .iter()
            .filter(|name| any(&self.include, name) && !any(&self.exclude, name))
            .cloned()
            .collect()
    }
}

/// `*` any text, `?` any character, `[a-z]` one of these, `[!a-z]` none of these.
fn matches(pattern: &[char], name: &[char]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where the last star stands, and up to where of the name it reaches.
    let mut star: Option<(usize, usize)> = None;
    while from < name.len() {
        let step = match pattern.get(at) {
            Some('*') => {
                star = Some((at, from));
                at += 1;
                continue;
            }
            Some('?') => Some(at + 1),
            Some('[') => match set(&pattern[at..]) {
                Some((set, length)) => set.holds(name[from]).then_some(at + length),
                None => (name[from] == '[').then_some(at + 1),
            },
            Some(c) => (*c == name[from]).then_some(at + 1),
            None => None,
        };
        if let Some(next) = step {
            at = next;
            from += 1;
        } else if let Some((star_at, reach)) = star {
            star = Some((star_at, reach + 1));
            at = star_at + 1;
            from = reach + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

struct Set<'p> {
    negated: bool,
    members: &'p [char],
}

/// The set that a text begins with, and its length; nothing where the bracket is never closed.
fn set(text: &[char]) -> Option<(Set<'_>, usize)> {
    let negated = text.get(1) == Some(&'!');
    let first = if negated { 2 } else { 1 };
    // A bracket that closes at once is a member.
    let end = text
        .iter()
        .enumerate()
        .skip(first + 1)
        .find_map(|(index, c)| (*c == ']').then_some(index))?;
    let set = Set {
        negated,
        members: &text[first..end],
    };
    Some((set, end + 1))
}

impl Set<'_> {
    fn holds(&self, c: char) -> bool {
        let mut members = self.members;
        let mut found = false;
        while let [first, rest @ ..] = members {
            if let ['-', last, after @ ..] = rest {
                found |= (*first..=*last).contains(&c);
                members = after;
            } else {
                found |= *first == c;
                members = rest;
            }
        }
        found != self.negated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_taken(pattern: &str, name: &str) -> bool {
        let glob = Glob {
            include: vec![pattern.to_owned()],
            exclude: vec![],
        };
        !glob.filter(&[name.to_owned()]).is_empty()
    }

    #[test]
    fn patterns_are_those_of_a_shell() {
        for (pattern, name, taken) in [
            ("*", "", true),
            ("*", "mysql", true),
            ("my*", "mysql", true),
            ("*s*l", "mysql", true),
            ("*s*l", "mysqls", false),
            ("a*b*c", "a.b.b.c", true),
            ("p?", "pg", true),
            ("p?", "p", false),
            ("[mp]*", "pg", true),
            ("[!mp]*", "pg", false),
            ("[a-f]5", "e5", true),
            ("[a-f]5", "g5", false),
            ("[]]", "]", true),
            ("[", "[", true),
            ("a.b", "axb", false),
        ] {
            assert_eq!(is_taken(pattern, name), taken, "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_left_out_is_left_out() {
        let glob = Glob {
            include: vec!["*".into()],
            exclude: vec!["b*".into()],
        };
        assert_eq!(
            glob.filter(&["a".into(), "b1".into(), "c".into()]),
            ["a", "c"]
        );
    }
}
