//! Values as people write them: a name that looks like a number, one path where a list is expected.

use serde::de::{Deserialize, Deserializer, Error};
use serde_yaml::Value;

/// A text; numbers and booleans become the text Python would make of them.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    optional_text(deserializer)?
        .ok_or_else(|| D::Error::custom("invalid type: null, expected a text"))
}

/// Like [`text`], or null.
pub(super) fn optional_text<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::Bool(value) => Ok(Some(if value { "True" } else { "False" }.to_owned())),
        Value::Number(number) => Ok(Some(number.to_string())),
        Value::String(text) => Ok(Some(text)),
        Value::Sequence(_) => Err(D::Error::custom("invalid type: list, expected a text")),
        Value::Mapping(_) => Err(D::Error::custom("invalid type: mapping, expected a text")),
        Value::Tagged(_) => Err(D::Error::custom("invalid type: tag, expected a text")),
    }
}

/// A list; one value alone is a list of one, null an empty list.
pub(super) fn one_or_many<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    Ok(list_with_gaps(deserializer)?
        .into_iter()
        .flatten()
        .collect())
}

/// Null means the default, as a key that is left out does.
pub(super) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A name in any case, as the original's `.lower()` reads it.
pub(super) fn lower_case<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let value = match Value::deserialize(deserializer)? {
        Value::String(name) => Value::String(name.to_lowercase()),
        other => other,
    };
    serde_yaml::from_value(value).map_err(D::Error::custom)
}

/// A count; null means 1.
pub(super) fn null_is_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(1))
}

/// A list of names in any case; one alone is a list of one, null an empty list.
pub(super) fn lower_case_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let names: Vec<String> = one_or_many(deserializer)?;
    names
        .into_iter()
        .map(|name| {
            serde_yaml::from_value(Value::String(name.to_lowercase())).map_err(D::Error::custom)
        })
        .collect()
}

/// `new_prompt_init_labels`: texts for each task, null where a task has none. Numbers become texts.
///
/// # Errors
/// Where YAML made a boolean of a word: which word it was is no longer known. The error has the line in quotes.
pub(super) fn labels<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Option<Vec<String>>>, D::Error> {
    let places: Vec<Option<Value>> = list_with_gaps(deserializer)?;
    // Texts themselves where a list of them is expected: those of one place.
    let is_flat = places.iter().flatten().all(|place| !place.is_sequence());
    let mut problem = None;
    let mut read = |item: Value| match item {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => {
            problem = Some(format!(
                "expected a text, found `{value}`, which is what YAML reads in {} without quotes",
                if value {
                    "yes, on and true"
                } else {
                    "no, off and false"
                }
            ));
            if value { "yes" } else { "no" }.to_owned()
        }
        Value::Null => {
            problem = Some("expected a text, found null".to_owned());
            "null".to_owned()
        }
        Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => {
            problem = Some("expected a text, found a list or a mapping".to_owned());
            "…".to_owned()
        }
    };
    let texts: Vec<Option<Vec<String>>> = places
        .into_iter()
        .map(|place| {
            Some(match place? {
                Value::Sequence(items) => items.into_iter().map(&mut read).collect(),
                one => vec![read(one)],
            })
        })
        .collect();
    if is_flat && texts.iter().any(Option::is_some) {
        problem.get_or_insert_with(|| "expected a list of texts for each task".to_owned());
    }
    let Some(problem) = problem else {
        return Ok(texts);
    };
    let quoted = |texts: &Vec<String>| {
        let texts: Vec<_> = texts
            .iter()
            .map(|text| format!("'{}'", text.replace('\'', "''")))
            .collect();
        texts.join(", ")
    };
    let places: Vec<_> = texts
        .iter()
        .map(|place| match place {
            None => "null".to_owned(),
            Some(texts) if is_flat => quoted(texts),
            Some(texts) => format!("[{}]", quoted(texts)),
        })
        .collect();
    let line = places.join(", ");
    let line = if is_flat {
        format!("[[{line}]]")
    } else {
        format!("[{line}]")
    };
    Err(D::Error::custom(format!(
        "{problem}{HINT}new_prompt_init_labels: {line}"
    )))
}

/// What parts a message from what to write instead.
pub(super) const HINT: &str = " | hint: ";

/// A list in which null stands for "nothing at this place"; one value alone is a list of one, null an empty list.
pub(super) fn list_with_gaps<'de, D, T>(deserializer: D) -> Result<Vec<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let items = match Value::deserialize(deserializer)? {
        Value::Null => vec![],
        Value::Sequence(items) => items,
        one => vec![one],
    };
    items
        .into_iter()
        .map(|item| serde_yaml::from_value(item).map_err(D::Error::custom))
        .collect()
}
