//! Which tokens begin, end and pad a text: `tokenizer.json` does not say, the files beside it do.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

/// Ids of the special tokens, as far as the files tell.
///
/// Asked in this order: `tokenizer_config.json`, `special_tokens_map.json` (names), `generation_config.json`,
/// `config.json` (ids), and for `unk` the model inside `tokenizer.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Beginning of text.
    pub bos: Option<u32>,
    /// End of text.
    pub eos: Option<u32>,
    /// Filler behind short rows; T5 also starts its decoder with it.
    pub pad: Option<u32>,
    /// What stands for text the vocabulary cannot spell.
    pub unk: Option<u32>,
    /// What the decoder of an encoder-decoder model starts with (`decoder_start_token_id`).
    pub decoder_start: Option<u32>,
}

#[derive(Deserialize)]
struct TokenizerFile {
    model: ModelPart,
}

#[derive(Deserialize)]
struct ModelPart {
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    unk_id: Option<u32>,
}

impl SpecialTokens {
    /// Looks through the files in `folder`; absent ones are passed over, broken ones are errors.
    ///
    /// `tokenizer_json` may be empty where there is no such file.
    pub(super) fn find(
        folder: &Path,
        tokenizer_json: &[u8],
        id_of: &dyn Fn(&str) -> Option<u32>,
    ) -> Result<Self> {
        let names = [
            read_object(folder, "tokenizer_config.json")?,
            read_object(folder, "special_tokens_map.json")?,
        ];
        let ids = [
            read_object(folder, "generation_config.json")?,
            read_object(folder, "config.json")?,
        ];
        let find = |name: &str, id_key: &str| {
            let by_name = names
                .iter()
                .find_map(|file| id_of(token_text(file.get(name)?)?));
            by_name.or_else(|| ids.iter().find_map(|file| token_id(file.get(id_key)?)))
        };
        let model = serde_json::from_slice::<TokenizerFile>(tokenizer_json)
            .ok()
            .map(|file| file.model);
        let unk_of_model =
            model.and_then(|model| model.unk_id.or_else(|| id_of(model.unk_token.as_deref()?)));
        Ok(Self {
            bos: find("bos_token", "bos_token_id"),
            eos: find("eos_token", "eos_token_id"),
            pad: find("pad_token", "pad_token_id"),
            unk: find("unk_token", "unk_token_id").or(unk_of_model),
            decoder_start: find("decoder_start_token", "decoder_start_token_id"),
        })
    }
}

/// The JSON object in `folder/name`, or an empty one where there is no such file.
pub(super) fn read_object(folder: &Path, name: &str) -> Result<Value> {
    let path = folder.join(name);
    if !path.is_file() {
        return Ok(Value::Null);
    }
    let text = fs_err::read(&path)?;
    serde_json::from_slice(&text).with_context(|| format!("reading `{}`", path.display()))
}

/// A token is written as its text, or as an object with its `content`.
pub(super) fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// An id is a number, or a list of which the first counts (several ends of text).
fn token_id(value: &Value) -> Option<u32> {
    let value = value.as_array().map_or(Some(value), |list| list.first())?;
    u32::try_from(value.as_u64()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_the_model_configuration_count_where_no_name_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs_err::write(folder.path().join(name), text).unwrap();
        write("tokenizer_config.json", r#"{"eos_token": "<unheard-of>"}"#);
        write(
            "config.json",
            r#"{"eos_token_id": [7, 8], "bos_token_id": 6, "decoder_start_token_id": 0}"#,
        );
        let model = br#"{"model": {"type": "Unigram", "unk_id": 2, "vocab": [["<pad>", 0.0]]}}"#;
        let special = SpecialTokens::find(folder.path(), model, &|_| None).unwrap();
        assert_eq!(
            special,
            SpecialTokens {
                bos: Some(6),
                eos: Some(7),
                pad: None,
                unk: Some(2),
                decoder_start: Some(0)
            }
        );
    }
}
