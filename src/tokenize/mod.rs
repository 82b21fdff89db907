//! Text to token ids and back, with the tokenizer the frozen model was trained with.
//!
//! Reads `tokenizer.json` (crate `tokenizers`), sentencepiece models ([`sentencepiece`]), GPT-2's and BERT's word lists,
//! from Hugging Face folders and from `.nemo` archives. It only ever encodes plain text: special tokens are added by
//! [`crate::data`], which knows where a task wants them.

mod added_tokens;
mod hugging_face;
mod nemo;
mod protobuf;
pub mod sentencepiece;
mod special;
mod vocabularies;

pub use nemo::{ArtifactFolder, NemoArtifacts, NemoModel, NemoTokenizer, SpecialTokenNames};
pub use special::SpecialTokens;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use sha2::{Digest, Sha256};

use crate::diag::{Diagnostic, Location};
use added_tokens::WithAddedTokens;

/// GPT-2's begin and end of text.
const END_OF_TEXT: &str = "<|endoftext|>";
/// No T5 has more sentinels than this.
const MAX_SENTINELS: u32 = 1 << 16;
/// No vocabulary reaches beyond this id.
const MAX_ID: u32 = 1 << 26;
/// No tokenizer's file is larger than this; the largest known have 35 MB.
const MAX_FILE_SIZE: u64 = 1 << 29;

/// A tokenizer and the ids of its special tokens.
pub struct Tokenizer {
    encoder: Encoder,
    kind: Kind,
    vocab_size: usize,
    path: PathBuf,
    /// The tokens that mark the ends of text, as far as this tokenizer has them.
    pub special: SpecialTokens,
}

/// What turns text into ids.
enum Encoder {
    /// `tokenizers`' pipeline of normaliser, cut, model and decoder.
    Pipeline(Box<tokenizers::Tokenizer>),
    SentencePiece(Box<WithAddedTokens>),
}

/// What a tokenizer was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `tokenizer.json`.
    Json,
    /// A sentencepiece model of this type.
    SentencePiece(&'static str),
    /// GPT-2's byte-level BPE: `vocab.json` and `merges.txt`.
    Gpt2,
    /// Qwen2's byte-level BPE: `vocab.json` and `merges.txt`.
    Qwen2,
    /// BERT's word pieces: `vocab.txt`.
    WordPiece,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json => write!(f, "tokenizer.json"),
            Self::SentencePiece(model_type) => write!(f, "sentencepiece ({model_type})"),
            Self::Gpt2 => write!(f, "GPT-2 byte-level BPE"),
            Self::Qwen2 => write!(f, "Qwen2 byte-level BPE"),
            Self::WordPiece => write!(f, "BERT word pieces"),
        }
    }
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
    fn new(kind: Kind, encoder: Encoder, path: PathBuf, special: SpecialTokens) -> Self {
        let mut this = Self {
            encoder,
            kind,
            vocab_size: 0,
            path,
            special,
        };
        this.count_ids();
        this
    }

    /// Sets the size of the vocabulary by what the encoder holds.
    fn count_ids(&mut self) {
        self.vocab_size = match &self.encoder {
            Encoder::Pipeline(inner) => {
                let highest = inner.get_vocab(true).values().copied().max();
                highest.map_or(0, |highest| highest as usize + 1)
            }
            Encoder::SentencePiece(inner) => inner.size(),
        };
    }

    /// Reads `tokenizer.json` or a sentencepiece model, and the special tokens from the files beside it (see
    /// [`SpecialTokens`]).
    ///
    /// A truncation or padding that was stored in the file is dropped, as transformers does: it is what the last
    /// program that saved the tokenizer had set for itself, and would silently cut long contexts here.
    ///
    /// # Errors
    /// A [`Diagnostic`] where the file is absent or is not a tokenizer.
    pub fn from_file(path: &Path) -> Result<Self> {
        if path
            .extension()
            .is_some_and(|extension| extension == "model")
        {
            return Self::from_sentencepiece_file(path);
        }
        let bytes = fs_err::read(path).map_err(|error| {
            Diagnostic::job(format!("the tokenizer cannot be read: {error}"))
                .at(Location::file(path.display()))
                .hint("a model folder needs the `tokenizer.json` that transformers' `save_pretrained` writes")
        })?;
        check_json(path, &bytes)?;
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| {
            Diagnostic::job(format!("not a `tokenizer.json`: {error}"))
                .at(Location::file(path.display()))
        })?;
        inner
            .with_truncation(None)
            .map_err(|error| anyhow!("switching off the stored truncation: {error}"))?;
        inner.with_padding(None);
        let folder = path.parent().unwrap_or(Path::new(""));
        let special = SpecialTokens::find(folder, &bytes, &|token| inner.token_to_id(token))?;
        let encoder = Encoder::Pipeline(Box::new(inner));
        Ok(Self::new(Kind::Json, encoder, path.to_owned(), special))
    }

    /// Token ids of `text`; no special tokens are added, though ones spelt out in the text are recognised.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match &self.encoder {
            Encoder::Pipeline(inner) => {
                let encoding = inner
                    .encode_fast(text, false)
                    .map_err(|error| anyhow!("tokenising {:?}: {error}", excerpt(text)))?;
                Ok(encoding.get_ids().to_vec())
            }
            Encoder::SentencePiece(inner) => Ok(inner.encode(text).ids),
        }
    }

    /// Token ids of `text` with the byte range of each; no special tokens are added.
    pub fn encode_with_offsets(&self, text: &str) -> Result<Encoded> {
        match &self.encoder {
            Encoder::Pipeline(inner) => {
                let encoding = inner
                    .encode(text, false)
                    .map_err(|error| anyhow!("tokenising {:?}: {error}", excerpt(text)))?;
                let offsets = encoding.get_offsets().iter();
                Ok(Encoded {
                    ids: encoding.get_ids().to_vec(),
                    offsets: offsets.map(|&(start, end)| start..end).collect(),
                })
            }
            Encoder::SentencePiece(inner) => Ok(inner.encode(text)),
        }
    }

    /// The text of `ids`; special tokens are left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        match &self.encoder {
            Encoder::Pipeline(inner) => inner
                .decode(ids, true)
                .map_err(|error| anyhow!("turning token ids into text: {error}")),
            Encoder::SentencePiece(inner) => Ok(inner.decode(ids)),
        }
    }

    /// The id of exactly this token.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        match &self.encoder {
            Encoder::Pipeline(inner) => inner.token_to_id(token),
            Encoder::SentencePiece(inner) => inner.token_to_id(token),
        }
    }

    /// The token of this id, as the vocabulary spells it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        match &self.encoder {
            Encoder::Pipeline(inner) => inner.id_to_token(id),
            Encoder::SentencePiece(inner) => inner.id_to_token(id),
        }
    }

    /// One more than the highest id, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of T5's sentinel `<extra_id_k>`. mT5's vocabulary spells it with a blank in front.
    ///
    /// # Errors
    /// A [`Diagnostic`] where the vocabulary has no such token.
    pub fn sentinel(&self, k: usize) -> Result<u32> {
        let token = format!("<extra_id_{k}>");
        let id = self.token_to_id(&token);
        let id = id.or_else(|| self.token_to_id(&format!("\u{2581}{token}")));
        id.with_context(|| {
            Diagnostic::configuration(format!("the tokenizer has no token `{token}`"))
                .at(Location::file(self.path.display()))
                .note("T5 marks the gap to fill with it, if the task asks for that")
                .hint("model.data.add_sentinel_to_input=false")
        })
    }

    /// A hash of everything that decides which ids a text becomes and which ids stand around it.
    pub fn fingerprint(&self) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        match &self.encoder {
            Encoder::Pipeline(inner) => {
                let json = inner
                    .to_string(false)
                    .map_err(|error| anyhow!("writing the tokenizer as JSON: {error}"))?;
                hash.update(json);
            }
            Encoder::SentencePiece(inner) => inner.hash(&mut hash),
        }
        hash.update(format!("{:?} {:?}", self.kind, self.special));
        Ok(hash.finalize().into())
    }

    /// Where it was read from; in an archive, with the member's name behind the archive's.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it was read from.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

/// Whether a `tokenizer.json` is JSON at all: the crate panics in the middle of one that breaks off.
fn check_json(path: &Path, bytes: &[u8]) -> Result<()> {
    /// The parts in which it does so.
    #[derive(serde::Deserialize)]
    #[expect(dead_code, reason = "they are only to be well-formed")]
    struct Parts {
        #[serde(default)]
        normalizer: serde_json::Value,
        #[serde(default)]
        pre_tokenizer: serde_json::Value,
        #[serde(default)]
        post_processor: serde_json::Value,
        #[serde(default)]
        decoder: serde_json::Value,
    }
    let refuse = |reason: String| {
        Diagnostic::job(reason).note("a file that was not copied or downloaded to its end?")
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        refuse(format!("not UTF-8: {error}")).at(Location::file(path.display()))
    })?;
    serde_json::from_str::<Parts>(text).map_err(|error| {
        let place = Location::column(path.display(), error.line(), error.column());
        refuse(format!("not a `tokenizer.json`: {error}")).at(place)
    })?;
    Ok(())
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
        let whole = fs_err::read(write_toy_tokenizer(folder.path(), &["red"])).unwrap();
        let decoder = whole
            .windows(9)
            .position(|bytes| bytes == b"\"decoder\"")
            .unwrap();
        for broken in [
            &b"{}"[..],
            &whole[..decoder + 20],
            &whole[..whole.len() - 1],
        ] {
            fs_err::write(&path, broken).unwrap();
            let broken = Tokenizer::from_file(&path).err().unwrap();
            assert!(broken.downcast_ref::<Diagnostic>().is_some(), "{broken}");
        }
        fs_err::remove_file(&path).unwrap();
        fs_err::write(folder.path().join("spiece.model"), "").unwrap();
        let other = Tokenizer::from_folder(folder.path()).err().unwrap();
        assert!(other.to_string().contains("spiece.model"), "{other}");
    }

    #[test]
    fn a_sentinel_that_the_vocabulary_spells_with_a_blank_is_found() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/tokenize/nemo_mt5");
        let model = folder.join("0123_tokenizer.model");
        let tokenizer = Tokenizer::from_file(&model).unwrap();
        let id = tokenizer.sentinel(0).unwrap();
        assert_eq!(tokenizer.id_to_token(id).unwrap(), "▁<extra_id_0>");
        assert_eq!(tokenizer.encode("<extra_id_0>").unwrap(), [id]);
    }

    #[test]
    fn a_folder_of_another_kind_is_refused_with_what_it_holds_and_a_command() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("sentencepiece.bpe.model"), "x").unwrap();
        let message = Tokenizer::from_folder(folder.path()).err().unwrap();
        let message = message.downcast_ref::<Diagnostic>().unwrap().to_string();
        assert!(message.contains("`sentencepiece.bpe.model`"), "{message}");
        assert!(message.contains("save_pretrained"), "{message}");
        fs_err::write(folder.path().join("spiece.model"), "x").unwrap();
        fs_err::write(
            folder.path().join("tokenizer_config.json"),
            r#"{"tokenizer_class": "AlbertTokenizer"}"#,
        )
        .unwrap();
        let message = Tokenizer::from_folder(folder.path()).err().unwrap();
        assert!(message.to_string().contains("`Albert`"), "{message}");
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
