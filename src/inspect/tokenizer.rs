//! What tokenizer there is and how large it is, without making one.

use std::path::Path;

use anyhow::Result;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::Facts;
use crate::tensors::nemo_files::NemoFiles;
use crate::tokenize::NemoTokenizer;
use crate::tokenize::sentencepiece;

/// Files that a Hugging Face folder may keep its tokenizer in, the one that is read first.
const FILES: [&str; 5] = [
    "tokenizer.json",
    "spiece.model",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
];
/// A tokenizer's file is smaller than this.
const MAX_SIZE: u64 = 1 << 28;

/// How many entries a list or mapping has, which are passed over.
#[derive(Default)]
struct Count(usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counting;
        impl<'de> Visitor<'de> for Counting {
            type Value = Count;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list or a mapping")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }
        deserializer.deserialize_any(Counting)
    }
}

#[derive(Deserialize)]
struct TokenizerJson {
    model: TokenizerModel,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct TokenizerModel {
    r#type: Option<String>,
    #[serde(default)]
    vocab: Count,
}

#[derive(Deserialize)]
struct AddedToken {
    id: usize,
}

/// The facts of the tokenizer in a folder; none where there is none.
pub(super) fn of_folder(folder: &Path) -> Result<Facts> {
    for name in FILES {
        let path = folder.join(name);
        if path.is_file()
            && let Some(mut facts) = of_file(&path)?
        {
            facts.extend(names(folder)?);
            return Ok(facts);
        }
    }
    Ok(Facts::new())
}

/// The facts of a tokenizer's file; `None` where it is none.
pub(super) fn of_file(path: &Path) -> Result<Option<Facts>> {
    if fs_err::metadata(path)?.len() > MAX_SIZE {
        return Ok(None);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let bytes = fs_err::read(path)?;
    Ok(facts(&name, &bytes).map(|mut facts| {
        facts.insert("file", json!(name));
        facts
    }))
}

fn facts(name: &str, bytes: &[u8]) -> Option<Facts> {
    let mut facts = Facts::new();
    if name.ends_with("tokenizer.json") {
        let file: TokenizerJson = serde_json::from_slice(bytes).ok()?;
        let kind = file
            .model
            .r#type
            .unwrap_or_else(|| "of an unnamed type".into());
        facts.insert("kind", json!(format!("tokenizer.json ({kind})")));
        let added = file.added_tokens.iter().map(|token| token.id + 1).max();
        let size = file.model.vocab.0.max(added.unwrap_or(0));
        facts.insert("tokens", json!(size));
    } else if Path::new(name)
        .extension()
        .is_some_and(|end| end == "model")
    {
        let summary = sentencepiece::summary(bytes).ok()?;
        let fallback = if summary.byte_fallback {
            ", byte fallback"
        } else {
            ""
        };
        let kind = format!("sentencepiece ({}{fallback})", summary.model_type);
        facts.insert("kind", json!(kind));
        facts.insert("tokens", json!(summary.pieces));
    } else if name.ends_with("vocab.json") {
        let vocab: Count = serde_json::from_slice(bytes).ok()?;
        facts.insert("kind", json!("byte-level BPE (vocab.json, merges.txt)"));
        facts.insert("tokens", json!(vocab.0));
    } else if name.ends_with("vocab.txt") {
        let text = std::str::from_utf8(bytes).ok()?;
        facts.insert("kind", json!("word pieces (vocab.txt)"));
        facts.insert("tokens", json!(text.lines().count()));
    } else {
        return None;
    }
    Some(facts)
}

/// The special tokens that `tokenizer_config.json` names.
fn names(folder: &Path) -> Result<Facts> {
    let path = folder.join("tokenizer_config.json");
    let mut facts = Facts::new();
    if !path.is_file() || fs_err::metadata(&path)?.len() > MAX_SIZE {
        return Ok(facts);
    }
    let config: Value = serde_json::from_slice(&fs_err::read(&path)?).unwrap_or_default();
    for (role, key) in [
        ("begin", "bos_token"),
        ("end", "eos_token"),
        ("padding", "pad_token"),
        ("unknown", "unk_token"),
    ] {
        let token = config.get(key);
        let token = token.and_then(|token| token.as_str().or(token.get("content")?.as_str()));
        if let Some(token) = token {
            facts.insert(role, json!(token));
        }
    }
    Ok(facts)
}

/// The facts of the section `tokenizer` of a `.nemo`.
pub(super) fn of_nemo(section: &NemoTokenizer, files: &NemoFiles) -> Facts {
    let mut facts = Facts::new();
    let library = section.library.as_deref().unwrap_or("null");
    let name = match section.r#type.as_deref() {
        Some(name) if library != "sentencepiece" => format!("{library} {name}"),
        _ => library.to_owned(),
    };
    facts.insert("kind", json!(name));
    let artifact = section.model.as_ref().or(section.vocab_file.as_ref());
    if let Some(artifact) = artifact {
        let member = artifact.strip_prefix("nemo:").unwrap_or(artifact);
        let member = member.rsplit('/').next().unwrap_or(member);
        let found = files.read(member).ok();
        match found.and_then(|bytes| self::facts(member, &bytes)) {
            Some(found) => {
                if library == "sentencepiece" {
                    facts.extend(found);
                } else if let Some(tokens) = found.get("tokens") {
                    facts.insert("tokens", tokens.clone());
                }
                facts.insert("file", json!(member));
            }
            None => {
                facts.insert("missing file", json!(artifact));
            }
        }
    }
    if let Some(count) = section.num_sentinel_tokens.filter(|count| *count > 0) {
        facts.insert("sentinels", json!(count));
    }
    facts
}
