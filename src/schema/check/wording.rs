//! serde's messages in the words of the person who wrote the value.

use crate::diag::suggest::did_you_mean;
use crate::schema::lenient::HINT;

/// The message, and a hint where there is one.
pub(super) fn in_plain_words(message: &str) -> (String, Option<String>) {
    let message = message.split(" at line ").next().unwrap_or(message);
    if let Some((text, hint)) = message.split_once(HINT) {
        return (text.to_owned(), Some(hint.to_owned()));
    }
    for kind in ["invalid type: ", "invalid value: "] {
        if let Some((found, expected)) = message
            .find(kind)
            .and_then(|at| message[at + kind.len()..].split_once(", expected "))
        {
            let text = format!(
                "expected {}, found {}",
                expectation(expected),
                finding(found)
            );
            return (text, habit(found, expected));
        }
    }
    if let Some((name, expected)) = message
        .find("unknown variant `")
        .and_then(|at| message[at + "unknown variant `".len()..].split_once("`, expected "))
    {
        let names: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let text = format!(
            "`{name}` is not known, expected one of {}",
            names.join(", ")
        );
        let hint = did_you_mean(name, names).map(|near| format!("did you mean `{near}`?"));
        return (text, hint);
    }
    (message.to_owned(), None)
}

fn finding(found: &str) -> String {
    if let Some(text) = found.strip_prefix("string ") {
        return format!("the text `{}`", text.trim_matches('"'));
    }
    for kind in ["integer ", "floating point ", "boolean "] {
        if let Some(value) = found.strip_prefix(kind) {
            return value.to_owned();
        }
    }
    match found {
        "sequence" => "a list",
        "map" => "a mapping",
        "unit value" | "null" | "Option value" => "null",
        other => other,
    }
    .to_owned()
}

fn expectation(expected: &str) -> &str {
    match expected {
        "usize" | "u64" | "u32" | "u16" => "a whole number, 0 or more",
        "isize" | "i64" | "i32" => "a whole number",
        "f64" | "f32" => "a number",
        "a boolean" => "true or false",
        "a string" | "path string" => "a text",
        "a sequence" => "a list",
        "an array of length 2" => "a list of 2",
        other if other.starts_with("struct ") => "a mapping",
        other => other,
    }
}

/// Words that YAML or Python would have read as a value of the type that is wanted.
fn habit(found: &str, expected: &str) -> Option<String> {
    if found.starts_with("boolean ") && expected == "a string" {
        return Some(
            "YAML reads yes, no, on, off, true and false without quotes as booleans: write 'yes'"
                .to_owned(),
        );
    }
    let text = found.strip_prefix("string ")?.trim_matches('"');
    let meant = match (text.to_lowercase().as_str(), expected) {
        ("yes" | "on" | "y", "a boolean") => "true",
        ("no" | "off" | "n", "a boolean") => "false",
        ("none" | "~", _) => "null",
        _ => return None,
    };
    Some(format!("on the command line that is written `{meant}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_named_as_people_name_them() {
        for (message, text, hint) in [
            (
                "invalid type: string \"auto\", expected usize",
                "expected a whole number, 0 or more, found the text `auto`",
                None,
            ),
            (
                "invalid value: integer `-1`, expected usize",
                "expected a whole number, 0 or more, found `-1`",
                None,
            ),
            (
                "invalid type: string \"yes\", expected a boolean",
                "expected true or false, found the text `yes`",
                Some("on the command line that is written `true`"),
            ),
            (
                "invalid type: boolean `true`, expected a string",
                "expected a text, found `true`",
                Some(
                    "YAML reads yes, no, on, off, true and false without quotes as booleans: write 'yes'",
                ),
            ),
            (
                "unknown variant `p-tunning`, expected one of `p-tuning`, `inference`",
                "`p-tunning` is not known, expected one of p-tuning, inference",
                Some("did you mean `p-tuning`?"),
            ),
        ] {
            assert_eq!(
                in_plain_words(message),
                (text.to_owned(), hint.map(str::to_owned)),
                "{message}"
            );
        }
    }
}
