//! The tokenizer of a Hugging Face model folder, whichever files it is kept in.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use serde_json::Value;

use super::added_tokens::{Strip, WithAddedTokens};
use super::sentencepiece::SentencePiece;
use super::special::{SpecialTokens, read_object, token_text};
use super::vocabularies::{self, BertText, Words};
use super::{Encoder, Kind, Tokenizer};
use crate::diag::{Diagnostic, Location};

/// Names under which sentencepiece models are kept.
const SENTENCEPIECE_FILES: [&str; 2] = ["spiece.model", "tokenizer.model"];

impl Tokenizer {
    /// Reads the tokenizer of a Hugging Face model folder: `tokenizer.json`, else T5's or Llama's sentencepiece model,
    /// else GPT-2's or Qwen2's `vocab.json` + `merges.txt`, else BERT's `vocab.txt`.
    ///
    /// # Errors
    /// A [`Diagnostic`] that lists the tokenizer files that are there and why none of them is read.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let is_there = |name: &str| folder.join(name).is_file();
        if is_there("tokenizer.json") {
            return Self::from_file(&folder.join("tokenizer.json"));
        }
        if let Some(name) = SENTENCEPIECE_FILES.into_iter().find(|name| is_there(name)) {
            return Self::from_sentencepiece_file(&folder.join(name));
        }
        let class = class_of(folder)?;
        if is_there("vocab.json") && is_there("merges.txt") {
            return byte_level(folder, class.as_deref());
        }
        if is_there("vocab.txt") && matches!(class.as_deref(), None | Some("Bert")) {
            return bert(folder);
        }
        let others: Vec<String> = fs_err::read_dir(folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| {
                let is_of_tokenizer = ["token", "vocab", "merges", "spiece", "sentencepiece"];
                is_of_tokenizer.iter().any(|part| name.contains(part))
            })
            .take(10)
            .collect();
        let mut diagnostic = Diagnostic::job("the model folder has no tokenizer that is read here")
            .at(Location::file(folder.display()))
            .note(
                "read are `tokenizer.json`, `spiece.model`, `tokenizer.model`, `vocab.json` with `merges.txt`, and \
                 `vocab.txt`",
            );
        if !others.is_empty() {
            diagnostic = diagnostic.note(format!("it holds `{}`", others.join("`, `")));
        }
        Err(diagnostic.hint(convert_hint(folder)).into())
    }

    /// Reads a sentencepiece model and the tokens that transformers adds beside it, by the files in its folder.
    pub(super) fn from_sentencepiece_file(path: &Path) -> Result<Self> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let class = match class_of(folder)?.as_deref() {
            Some("T5" | "MT5" | "UMT5") => Class::T5,
            Some("Llama" | "CodeLlama" | "Mistral" | "Mixtral") => Class::Llama,
            None if path.file_name().is_some_and(|name| name == "spiece.model") => Class::T5,
            None => Class::Llama,
            Some(other) => return Err(unknown_class(path, other)),
        };
        let model = SentencePiece::parse(&read(path)?).map_err(|error| {
            Diagnostic::job(error.to_string()).at(Location::file(path.display()))
        })?;
        let config = read_object(folder, "tokenizer_config.json")?;
        let mut tokens = WithAddedTokens::new(model);
        tokens.hide_unknown = true;
        tokens.prefix_each_stretch = config.get("legacy").and_then(Value::as_bool) != Some(false);
        let names = [
            config.clone(),
            read_object(folder, "special_tokens_map.json")?,
        ];
        for role in ["pad_token", "eos_token", "unk_token", "bos_token"] {
            let default = match (class, role) {
                (_, "eos_token") => Some("</s>"),
                (_, "unk_token") => Some("<unk>"),
                (Class::T5, "pad_token") => Some("<pad>"),
                (Class::Llama, "bos_token") => Some("<s>"),
                _ => None,
            };
            let named = names.iter().find_map(|file| token_text(file.get(role)?));
            if let Some(name) = named.or(default)
                && let Some(id) = tokens.model().piece_to_id(name)
            {
                tokens.map(name, id);
            }
        }
        if class == Class::T5 {
            let has_its_own = tokens.model().piece_to_id("▁<extra_id_0>").is_some();
            let default = if has_its_own { 0 } else { 100 };
            let count = config.get("extra_ids").and_then(Value::as_u64);
            let count = u32::try_from(count.unwrap_or(default)).ok();
            let count = count.filter(|count| *count <= super::MAX_SENTINELS);
            let count = count.ok_or_else(|| too_many_sentinels(folder))?;
            let first = tokens.model().len() as u32;
            for k in 0..count {
                let strip = Strip {
                    left: true,
                    right: true,
                };
                tokens.map_stripping(&format!("<extra_id_{k}>"), first + (count - 1 - k), strip);
            }
        }
        for (name, id, strip) in added_tokens(folder, &config)? {
            tokens.map_stripping(&name, id, strip);
        }
        tokens.finish()?;
        let found = SpecialTokens::find(folder, &[], &|token| tokens.token_to_id(token))?;
        let model = tokens.model();
        let special = SpecialTokens {
            bos: found.bos.or(model.begin_id()),
            eos: found.eos.or(model.end_id()),
            pad: found.pad.or(model.pad_id()),
            unk: found.unk.or(Some(model.unknown_id())),
            decoder_start: found.decoder_start,
        };
        Ok(Self::new(
            Kind::SentencePiece(model.model_type()),
            Encoder::SentencePiece(Box::new(tokens)),
            path.to_owned(),
            special,
        ))
    }
}

/// Whose tokens stand beside a sentencepiece model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    T5,
    Llama,
}

/// The tokenizer's class without `Tokenizer` and `Fast`, or that of the model.
fn class_of(folder: &Path) -> Result<Option<String>> {
    let config = read_object(folder, "tokenizer_config.json")?;
    if let Some(class) = config.get("tokenizer_class").and_then(Value::as_str) {
        let class = class.strip_suffix("Fast").unwrap_or(class);
        let class = class.strip_suffix("Tokenizer").unwrap_or(class);
        if class != "PreTrained" {
            return Ok(Some(class.to_owned()));
        }
    }
    let model = read_object(folder, "config.json")?;
    let class = match model.get("model_type").and_then(Value::as_str) {
        Some("t5" | "mt5" | "umt5") => "T5",
        Some("llama" | "mistral" | "mixtral") => "Llama",
        Some("gpt2") => "GPT2",
        Some("gpt_neox") => "GPTNeoX",
        Some("qwen2") => "Qwen2",
        Some("bert") => "Bert",
        Some(other) => return Ok(Some(other.to_owned())),
        None => return Ok(None),
    };
    Ok(Some(class.to_owned()))
}

/// Tokens with ids of their own: `added_tokens.json`, and `added_tokens_decoder` of `tokenizer_config.json`.
fn added_tokens(folder: &Path, config: &Value) -> Result<Vec<(String, u32, Strip)>> {
    let file = read_object(folder, "added_tokens.json")?;
    let by_name = file.as_object().into_iter().flatten();
    let by_name =
        by_name.filter_map(|(name, id)| Some((name.clone(), id.as_u64()?, Strip::default())));
    let by_id = config
        .get("added_tokens_decoder")
        .and_then(Value::as_object);
    let by_id = by_id.into_iter().flatten().filter_map(|(id, token)| {
        let flag = |name: &str| token.get(name).and_then(Value::as_bool) == Some(true);
        let strip = Strip {
            left: flag("lstrip"),
            right: flag("rstrip"),
        };
        Some((token_text(token)?.to_owned(), id.parse().ok()?, strip))
    });
    let mut tokens: Vec<(String, u32, Strip)> = by_name
        .chain(by_id)
        .filter_map(|(name, id, strip)| Some((name, u32::try_from(id).ok()?, strip)))
        .collect();
    tokens.sort_by_key(|(_, id, _)| *id);
    // An id far beyond all others would make every table that is indexed by ids as large.
    let end = |tokens: &[(String, u32, Strip)]| tokens.last().map_or(0, |(_, id, _)| *id);
    if end(&tokens) > super::MAX_ID {
        return Err(Diagnostic::job(format!(
            "an added token has the id {}, beyond any vocabulary",
            end(&tokens)
        ))
        .at(Location::file(folder.display()))
        .into());
    }
    Ok(tokens)
}

fn byte_level(folder: &Path, class: Option<&str>) -> Result<Tokenizer> {
    let vocab = folder.join("vocab.json");
    let config = read_object(folder, "tokenizer_config.json")?;
    let words = match class {
        None | Some("GPT2" | "GPTNeoX") => Words::Gpt2 {
            add_prefix_space: config.get("add_prefix_space").and_then(Value::as_bool) == Some(true),
        },
        Some("Qwen2") => Words::Qwen2,
        Some(other) => return Err(unknown_class(&vocab, other)),
    };
    let mut inner =
        vocabularies::byte_level_bpe(&read(&vocab)?, &read(&folder.join("merges.txt"))?, words)
            .map_err(|error| broken(&vocab, &error))?;
    let mut special = vec![super::END_OF_TEXT.to_owned()];
    special.extend(
        added_tokens(folder, &config)?
            .into_iter()
            .map(|(name, ..)| name),
    );
    vocabularies::add_special(&mut inner, special.iter().map(String::as_str))?;
    let end = inner.token_to_id(super::END_OF_TEXT);
    let found = SpecialTokens::find(folder, &[], &|token| inner.token_to_id(token))?;
    let is_gpt2 = words != Words::Qwen2;
    let special = SpecialTokens {
        bos: found.bos.or(end.filter(|_| is_gpt2)),
        eos: found.eos.or(end),
        pad: found.pad.or(end.filter(|_| !is_gpt2)),
        unk: found.unk.or(end),
        decoder_start: found.decoder_start,
    };
    let kind = match words {
        Words::Gpt2 { .. } => Kind::Gpt2,
        Words::Qwen2 => Kind::Qwen2,
    };
    Ok(Tokenizer::new(
        kind,
        Encoder::Pipeline(Box::new(inner)),
        vocab,
        special,
    ))
}

fn bert(folder: &Path) -> Result<Tokenizer> {
    let path = folder.join("vocab.txt");
    let config = read_object(folder, "tokenizer_config.json")?;
    let flag = |name: &str| config.get(name).and_then(Value::as_bool);
    let text = BertText {
        lowercase: flag("do_lower_case").unwrap_or(true),
        strip_accents: flag("strip_accents"),
        handle_chinese_chars: flag("tokenize_chinese_chars").unwrap_or(true),
        drop_unassigned: false,
        clean_up: true,
    };
    let inner = vocabularies::word_piece(&read(&path)?, text).map_err(|e| broken(&path, &e))?;
    let found = SpecialTokens::find(folder, &[], &|token| inner.token_to_id(token))?;
    let id = |token: &str| inner.token_to_id(token);
    let special = SpecialTokens {
        bos: found.bos.or(id("[CLS]")),
        eos: found.eos.or(id("[SEP]")),
        pad: found.pad.or(id("[PAD]")),
        unk: found.unk.or(id("[UNK]")),
        decoder_start: found.decoder_start,
    };
    Ok(Tokenizer::new(
        Kind::WordPiece,
        Encoder::Pipeline(Box::new(inner)),
        path,
        special,
    ))
}

/// The bytes of a tokenizer file.
///
/// # Errors
/// A [`Diagnostic`] where it cannot be read, or is larger than any tokenizer.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let refuse = |reason: String| Diagnostic::job(reason).at(Location::file(path.display()));
    let size = fs_err::metadata(path)
        .map_err(|error| refuse(format!("the tokenizer cannot be read: {error}")))?
        .len();
    if size > super::MAX_FILE_SIZE {
        return Err(refuse(format!(
            "a tokenizer of {size} bytes is larger than any known"
        ))
        .into());
    }
    fs_err::read(path)
        .map_err(|error| refuse(format!("the tokenizer cannot be read: {error}")).into())
}

pub(super) fn broken(path: &Path, error: &anyhow::Error) -> anyhow::Error {
    let text = format!("not a tokenizer: {error}");
    Diagnostic::job(text)
        .at(Location::file(path.display()))
        .into()
}

fn too_many_sentinels(folder: &Path) -> anyhow::Error {
    let file: PathBuf = folder.join("tokenizer_config.json");
    anyhow!(
        Diagnostic::job("`extra_ids` is larger than any number of sentinels")
            .at(Location::file(file.display()))
    )
}

fn unknown_class(path: &Path, class: &str) -> anyhow::Error {
    let folder = path.parent().unwrap_or(Path::new(""));
    let diagnostic = Diagnostic::job(format!("how `{class}` reads this file is not known here"))
        .at(Location::file(path.display()))
        .note(
            "known are T5, mT5, Llama, GPT-2, Qwen2 and BERT; every other kind as `tokenizer.json`",
        )
        .hint(convert_hint(folder));
    diagnostic.into()
}

/// The command that makes a `tokenizer.json`.
fn convert_hint(folder: &Path) -> String {
    format!(
        "python -c \"from transformers import AutoTokenizer as T; T.from_pretrained('{0}', use_fast=True)\
         .save_pretrained('{0}')\"",
        folder.display()
    )
}
