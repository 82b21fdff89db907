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
