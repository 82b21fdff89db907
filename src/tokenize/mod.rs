//! Text to token ids and back, with the tokenizer the frozen model was trained with.
//!
//! Reads Hugging Face's `tokenizer.json` (crate `tokenizers`). It only ever encodes plain text: special tokens are
//! added by [`crate::data`], which knows where a task wants them.

mod special;

pub use special::SpecialTokens;

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::diag::{Diagnostic, Location};

/// A tokenizer and the ids of its special tokens.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    vocab_size: usize,
    path: PathBuf,
    /// The tokens that mark the ends of text, as far as this tokenizer has them.
    pub special: SpecialTokens,
}

/// Token ids, and for each the bytes of the text it came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Byte range of each token in the text that was encoded.
    pub offsets: Vec<Range<usize>>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, and the special tokens from the files beside it (see [`SpecialTokens`]).
    ///
    /// A truncation or padding that was stored in the file is dropped, as transformers does: it is what the last
    /// program that saved the tokenizer had set for itself, and would silently cut long contexts here.
    ///
    /// # Errors
    /// A [`Diagnostic`] where the file is absent or is not a tokenizer.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = fs_err::read(path).map_err(|error| {
            Diagnostic::job(format!("the tokenizer cannot be read: {error}"))
                .at(Location::file(path.display()))
                .hint("a model folder needs the `tokenizer.json` that transformers' `save_pretrained` writes")
        })?;
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| {
            Diagnostic::job(format!("not a `tokenizer.json`: {error}"))
                .at(Location::file(path.display()))
        })?;
        inner
            .with_truncation(None)
            .map_err(|error| anyhow!("switching off the stored truncation: {error}"))?;
        inner.with_padding(None);
        let highest = inner.get_vocab(true).values().copied().max();
        let vocab_size = highest.map_or(0, |highest| highest as usize + 1);
        let folder = path.parent().unwrap_or(Path::new(""));
        let special = SpecialTokens::find(folder, &bytes, &|token| inner.token_to_id(token))?;
        Ok(Self {
            inner,
            vocab_size,
            path: path.to_owned(),
            special,
        })
    }

    /// Reads the tokenizer of a Hugging Face model folder.
    ///
    /// # Errors
    /// As [`Self::from_file`]; the message lists tokenizer files of other kinds that are there.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        if path.is_file() {
            return Self::from_file(&path);
        }
        let others: Vec<&str> = [
            "spiece.model",
            "tokenizer.model",
            "sentencepiece.bpe.model",
            "vocab.json",
            "vocab.txt",
        ]
        .into_iter()
        .filter(|name| folder.join(name).is_file())
        .collect();
        let mut diagnostic = Diagnostic::job("the model folder has no `tokenizer.json`")
            .at(Location::file(folder.display()));
        if !others.is_empty() {
            diagnostic = diagnostic
                .note(format!("it holds `{}`, which is not read yet", others.join("`, `")))
                .hint(format!(
                    "python -c \"from transformers import AutoTokenizer as T; T.from_pretrained('{0}', \
                     use_fast=True).save_pretrained('{0}')\"",
                    folder.display()
                ));
        }
        Err(diagnostic.into())
    }

    /// Token ids of `text`; no special tokens are added, though ones spelt out in the text are recognised.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|error| anyhow!("tokenising {:?}: {error}", excerpt(text)))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of `text` with the byte range of each; no special tokens are added.
    pub fn encode_with_offsets(&self, text: &str) -> Result<Encoded> {
        let encoding = self
            .inner
            .encode(text, false)
            .map_err(|error| anyhow!("tokenising {:?}: {error}", excerpt(text)))?;
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            offsets: encoding
                .get_offsets()
                .iter()
                .map(|&(start, end)| start..end)
                .collect(),
        })
    }

    /// The text of `ids`; special tokens are left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner
            .decode(ids, true)
            .map_err(|error| anyhow!("turning token ids into text: {error}"))
    }

    /// The id of exactly this token.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of this id, as the vocabulary spells it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// One more than the highest id, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of T5's sentinel `<extra_id_k>`.
    ///
    /// # Errors
    /// A [`Diagnostic`] where the vocabulary has no such token.
    pub fn sentinel(&self, k: usize) -> Result<u32> {
        let token = format!("<extra_id_{k}>");
        self.token_to_id(&token).with_context(|| {
            Diagnostic::configuration(format!("the tokenizer has no token `{token}`"))
                .at(Location::file(self.path.display()))
                .note("T5 marks the gap to fill with it, if the task asks for that")
                .hint("model.data.add_sentinel_to_input=false")
        })
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The first characters of a text, for messages.
fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A tokenizer of whole words split at spaces, each word's space kept in front as `▁`; unknown words fall apart
    /// into letters. Small enough to compute ids by hand.
    pub(crate) fn write_toy_tokenizer(folder: &Path, words: &[&str]) -> PathBuf {
        let mut vocab = serde_json::Map::new();
        for token in [
            "<pad>",
            "</s>",
            "<unk>",
            "<s>",
            "<extra_id_0>",
            "<extra_id_1>",
        ] {
            vocab.insert(token.into(), vocab.len().into());
        }
        for byte in (b'!'..=b'~').chain([0]) {
            let text = if byte == 0 {
                "Ġ".to_owned()
            } else {
                (byte as char).to_string()
            };
            vocab.insert(text, vocab.len().into());
        }
        vocab.insert("Ċ".into(), vocab.len().into());
        for word in words {
            let id = vocab.len();
            vocab.entry(word.replace(' ', "Ġ")).or_insert(id.into());
        }
        let special = |id: usize, content: &str| {
            serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        };
        let tokenizer = serde_json::json!({
            "version": "1.0",
            "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                "pad_type_id": 0, "pad_token": "<pad>"},
            "added_tokens": [special(0, "<pad>"), special(1, "</s>"), special(2, "<unk>"), special(3, "<s>"),
                special(4, "<extra_id_0>"), special(5, "<extra_id_1>")],
            "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab,
                "merges": [], "ignore_merges": true},
        });
        let path = folder.join("tokenizer.json");
        fs_err::write(&path, tokenizer.to_string()).unwrap();
        fs_err::write(
            folder.join("tokenizer_config.json"),
            r#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": "<pad>"}"#,
        )
        .unwrap();
        path
    }

    pub(crate) fn toy_tokenizer(words: &[&str]) -> Tokenizer {
        let folder = tempfile::tempdir().unwrap();
        Tokenizer::from_file(&write_toy_tokenizer(folder.path(), words)).unwrap()
    }

    #[test]
    fn a_stored_truncation_and_padding_do_not_touch_the_text() {
        let tokenizer = toy_tokenizer(&["red", " green", " blue"]);
        let ids = tokenizer.encode("red green blue red green blue").unwrap();
        assert_eq!(ids.len(), 6 + 3, "` red` is not one token: {ids:?}");
        assert_eq!(tokenizer.encode("red").unwrap().len(), 1);
        assert_eq!(
            tokenizer.decode(&ids).unwrap(),
            "red green blue red green blue"
        );
    }

    #[test]
    fn offsets_tell_the_bytes_of_each_token() {
        let tokenizer = toy_tokenizer(&["red", " green"]);
        let text = "red green";
        let encoded = tokenizer.encode_with_offsets(text).unwrap();
        assert_eq!(encoded.ids, tokenizer.encode(text).unwrap());
        let pieces: Vec<&str> = encoded
            .offsets
            .iter()
            .map(|range| text[range.clone()].trim())
            .collect();
        assert_eq!(pieces, ["red", "green"]);
    }

    #[test]
    fn special_tokens_come_from_the_files_beside_the_tokenizer() {
        let tokenizer = toy_tokenizer(&["red"]);
        let special = tokenizer.special;
        assert_eq!(
            (special.pad, special.eos, special.unk, special.bos),
            (Some(0), Some(1), Some(2), Some(3))
        );
        assert_eq!(tokenizer.sentinel(1).unwrap(), 5);
        let missing = tokenizer.sentinel(7).unwrap_err();
        assert!(
            format!("{missing:#}").contains("`<extra_id_7>`"),
            "{missing:#}"
        );
    }

    #[test]
    fn a_missing_and_a_broken_file_are_told_with_their_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let missing = Tokenizer::from_file(&path).err().unwrap();
        assert!(missing.to_string().contains("tokenizer.json"), "{missing}");
        fs_err::write(&path, "{}").unwrap();
        let broken = Tokenizer::from_file(&path).err().unwrap();
        assert!(broken.downcast_ref::<Diagnostic>().is_some(), "{broken}");
        fs_err::remove_file(&path).unwrap();
        fs_err::write(folder.path().join("spiece.model"), "").unwrap();
        let other = Tokenizer::from_folder(folder.path()).err().unwrap();
        assert!(other.to_string().contains("spiece.model"), "{other}");
    }

    #[test]
    fn ids_and_text_equal_the_reference_library() {
        #[derive(serde::Deserialize)]
        struct Expected {
            text: String,
            ids: Vec<u32>,
            decoded: String,
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/tokenize");
        for name in ["unigram", "bpe"] {
            let tokenizer = Tokenizer::from_file(&folder.join(format!("{name}.json"))).unwrap();
            let expected = fs_err::read(folder.join(format!("{name}.expected.json"))).unwrap();
            let expected: Vec<Expected> = serde_json::from_slice(&expected).unwrap();
            for Expected { text, ids, decoded } in expected {
                let encoded = tokenizer.encode_with_offsets(&text).unwrap();
                assert_eq!(encoded.ids, ids, "{name}: {text:?}");
                assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{name}: {text:?}");
                assert_eq!(tokenizer.decode(&ids).unwrap(), decoded, "{name}: {text:?}");
                // Offsets are bytes, at the ends of characters.
                for range in encoded.offsets {
                    assert!(
                        text.get(range.clone()).is_some(),
                        "{name}: {text:?} {range:?}"
                    );
                }
            }
        }
    }
}
