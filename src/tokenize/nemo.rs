//! The tokenizer of a `.nemo`: what the section `tokenizer` of `model_config.yaml` describes, with NeMo's own additions.
//!
//! Follows NeMo 1.x: `tokenizer_utils.get_nmt_tokenizer`, `MegatronT5Model.add_special_tokens_to_tokenizer`, and the
//! wrappers `SentencePieceTokenizer` and `AutoTokenizer`. The order in which tokens are added fixes their ids, and so
//! which row of the word embeddings they mean.

use std::path::{Path, PathBuf};

use anyhow::Result;
use indexmap::IndexMap;
use serde::Deserialize;

use super::added_tokens::WithAddedTokens;
use super::hugging_face::{broken, read};
use super::sentencepiece::SentencePiece;
use super::special::SpecialTokens;
use super::vocabularies::{self, BertText, Words};
use super::{Encoder, Kind, MAX_SENTINELS, Tokenizer};
use crate::diag::{Diagnostic, Location};
use crate::tensors::nemo::CONFIG_MEMBER;
use crate::tensors::nemo_files::NemoFiles;

/// The section `tokenizer` of a base model's `model_config.yaml`; keys that say nothing about ids are passed over.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NemoTokenizer {
    /// `megatron`, `sentencepiece` or `huggingface`.
    pub library: Option<String>,
    /// For `megatron` and `huggingface`: which one, such as `GPT2BPETokenizer`.
    pub r#type: Option<String>,
    /// The sentencepiece model: `nemo:<name of the member>`, or a path.
    #[serde(alias = "tokenizer_model")]
    pub model: Option<String>,
    /// The vocabulary of word pieces or of a byte-level BPE.
    pub vocab_file: Option<String>,
    /// The merges of a byte-level BPE.
    #[serde(alias = "merges_file")]
    pub merge_file: Option<String>,
    /// How many `<extra_id_k>` a T5 has.
    pub num_sentinel_tokens: Option<u32>,
    /// Whether tokens may be added to a sentencepiece model; true where it is not given.
    pub sentencepiece_legacy: Option<bool>,
    /// Sentinels before `<cls>` and its like: models that come from Hugging Face.
    pub add_sentinel_tokens_first: Option<bool>,
    /// `<extra_id_99>` before `<extra_id_0>`: models that come from Hugging Face.
    pub add_sentinel_tokens_in_reverse_order: Option<bool>,
    /// Tokens by their role.
    pub special_tokens: Option<SpecialTokenNames>,
    /// More tokens.
    pub additional_special_tokens: Option<Vec<String>>,
}

/// `special_tokens` is a mapping from roles to tokens or a list of tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum SpecialTokenNames {
    /// Role to token.
    ByRole(IndexMap<String, String>),
    /// Tokens without a role.
    List(Vec<String>),
}

/// Which model the tokenizer belongs to: T5 adds sentinels and the tokens of its pretraining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NemoModel {
    /// A decoder alone.
    Gpt,
    /// An encoder and a decoder.
    T5 {
        /// `data.dataset_type` is `ul2`: the mode tokens `<extra_id_r>`, `_s` and `_x` are there as well.
        ul2: bool,
    },
}

/// Where a `.nemo` keeps its tokenizer's files.
pub trait NemoArtifacts {
    /// The content of the member that the configuration names `nemo:<name>`; `None` where there is none of that name.
    ///
    /// # Errors
    /// When the member is there and cannot be read.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>>;
    /// Names of all members, for messages.
    fn names(&self) -> Vec<String>;
    /// Path of the archive, for messages.
    fn path(&self) -> &Path;
}

/// An unpacked `.nemo`, or any folder.
pub struct ArtifactFolder(
    /// The folder.
    pub PathBuf,
);

impl NemoArtifacts for ArtifactFolder {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        // A name with a separator could lead out of the folder.
        let is_plain = Path::new(name).file_name().is_some_and(|file| file == name);
        let path = self.0.join(name);
        if !is_plain || !path.is_file() {
            return Ok(None);
        }
        read(&path).map(Some)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs_err::read_dir(&self.0).into_iter().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl NemoArtifacts for NemoFiles {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        if !self.contains(name) {
            return Ok(None);
        }
        let bytes = Self::read(self, name).map_err(|error| Diagnostic::job(error.to_string()))?;
        Ok(Some(bytes.into_owned()))
    }

    fn names(&self) -> Vec<String> {
        Self::names(self).map(str::to_owned).collect()
    }

    fn path(&self) -> &Path {
        Self::path(self)
    }
}

/// The parts of `model_config.yaml` that decide about tokens.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    tokenizer: Option<NemoTokenizer>,
    target: Option<String>,
    encoder: Option<serde_yaml::Value>,
    share_token_embeddings: Option<bool>,
    data: Option<ConfigData>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConfigData {
    dataset_type: Option<String>,
}

impl Config {
    fn model(&self) -> NemoModel {
        let is_t5 = self.encoder.is_some()
            || self.share_token_embeddings.is_some()
            || self
                .target
                .as_deref()
                .is_some_and(|target| target.contains("T5"));
        if !is_t5 {
            return NemoModel::Gpt;
        }
        let data = self.data.as_ref();
        NemoModel::T5 {
            ul2: data.and_then(|data| data.dataset_type.as_deref()) == Some("ul2"),
        }
    }
}

/// The kinds of tokenizer that NeMo's names mean.
enum Library {
    SentencePiece,
    Gpt2,
    Bert { lowercase: bool },
    Folder(PathBuf),
}

impl Tokenizer {
    /// The tokenizer of a `.nemo` base model, by its `model_config.yaml`.
    ///
    /// # Errors
    /// As [`Self::from_nemo`], and where the configuration cannot be read or has no section `tokenizer`.
    pub fn from_nemo_files(files: &NemoFiles) -> Result<Self> {
        let text = files
            .read_text(CONFIG_MEMBER)
            .map_err(|error| Diagnostic::job(error.to_string()))?;
        let path = files.path().join(CONFIG_MEMBER);
        let config: Config = serde_yaml::from_str(&text).map_err(|error| {
            Diagnostic::job(format!(
                "what it says about the tokenizer is not understood: {error}"
            ))
            .at(Location::file(path.display()))
        })?;
        let section = config
            .tokenizer
            .as_ref()
            .ok_or_else(|| refuse(files, "its `model_config.yaml` has no section `tokenizer`"))?;
        Self::from_nemo(section, config.model(), files)
    }

    /// The tokenizer of a `.nemo` base model, with every token NeMo adds before it pads the vocabulary: so
    /// [`Self::vocab_size`] is what NeMo rounds up to a multiple of `make_vocab_size_divisible_by`.
    ///
    /// # Errors
    /// A [`Diagnostic`] that names the archive, the key and what is there, for a kind that is not read, a file that is
    /// missing or broken, and combinations that NeMo refuses.
    pub fn from_nemo(
        section: &NemoTokenizer,
        model: NemoModel,
        artifacts: &dyn NemoArtifacts,
    ) -> Result<Self> {
        if section
            .num_sentinel_tokens
            .is_some_and(|count| count > MAX_SENTINELS)
        {
            return Err(refuse(artifacts, "`tokenizer.num_sentinel_tokens` is too large").into());
        }
        match library(section, artifacts)? {
            Library::SentencePiece => sentencepiece(section, model, artifacts),
            Library::Folder(folder) => {
                let mut tokenizer = Self::from_folder(&folder)?;
                tokenizer.add_as_hugging_face(section, model)?;
                Ok(tokenizer)
            }
            Library::Gpt2 => {
                let (vocab_path, vocab) =
                    artifact(artifacts, "vocab_file", section.vocab_file.as_deref())?;
                let (_, merges) = artifact(artifacts, "merge_file", section.merge_file.as_deref())?;
                let words = Words::Gpt2 {
                    add_prefix_space: false,
                };
                let mut inner = vocabularies::byte_level_bpe(&vocab, &merges, words)
                    .map_err(|error| broken(&vocab_path, &error))?;
                vocabularies::add_special(&mut inner, [super::END_OF_TEXT])?;
                let end = inner.token_to_id(super::END_OF_TEXT);
                let special = SpecialTokens {
                    bos: end,
                    eos: end,
                    unk: end,
                    ..SpecialTokens::default()
                };
                let encoder = Encoder::Pipeline(Box::new(inner));
                let mut tokenizer = Self::new(Kind::Gpt2, encoder, vocab_path, special);
                tokenizer.add_as_hugging_face(section, model)?;
                Ok(tokenizer)
            }
            Library::Bert { lowercase } => {
                let (path, vocab) =
                    artifact(artifacts, "vocab_file", section.vocab_file.as_deref())?;
                let text = BertText {
                    lowercase,
                    strip_accents: None,
                    handle_chinese_chars: true,
                    drop_unassigned: true,
                    // NeMo joins the pieces and leaves the gaps before punctuation.
                    clean_up: false,
                };
                let inner = vocabularies::word_piece(&vocab, text)
                    .map_err(|error| broken(&path, &error))?;
                let id = |token: &str| inner.token_to_id(token);
                let special = SpecialTokens {
                    bos: id("[CLS]"),
                    eos: id("[SEP]"),
                    pad: id("[PAD]"),
                    unk: id("[UNK]"),
                    decoder_start: None,
                };
                let encoder = Encoder::Pipeline(Box::new(inner));
                let mut tokenizer = Self::new(Kind::WordPiece, encoder, path, special);
                tokenizer.add_as_hugging_face(section, model)?;
                Ok(tokenizer)
            }
        }
    }

    /// What NeMo adds to transformers' tokenizers: named tokens, sentinels in rising order, UL2's modes.
    fn add_as_hugging_face(&mut self, section: &NemoTokenizer, model: NemoModel) -> Result<()> {
        let mut tokens = vec![];
        match &section.special_tokens {
            Some(SpecialTokenNames::ByRole(roles)) => tokens.extend(roles.values().cloned()),
            Some(SpecialTokenNames::List(list)) => tokens.extend(list.iter().cloned()),
            None => {}
        }
        tokens.extend(section.additional_special_tokens.iter().flatten().cloned());
        if let NemoModel::T5 { ul2 } = model {
            let count = section.num_sentinel_tokens.unwrap_or(0);
            tokens.extend((0..count).map(sentinel));
            if ul2 {
                tokens.extend(["r", "s", "x"].map(|mode| format!("<extra_id_{mode}>")));
            }
        }
        match &mut self.encoder {
            Encoder::Pipeline(inner) => {
                vocabularies::add_special(inner, tokens.iter().map(String::as_str))?;
            }
            Encoder::SentencePiece(inner) => {
                for token in &tokens {
                    inner.append(token);
                }
                inner.finish()?;
            }
        }
        if let Some(SpecialTokenNames::ByRole(roles)) = &section.special_tokens {
            let id = |role: &str| self.token_to_id(roles.get(role)?);
            self.special = SpecialTokens {
                bos: id("bos_token").or(id("cls_token")).or(self.special.bos),
                eos: id("eos_token").or(id("sep_token")).or(self.special.eos),
                pad: id("pad_token").or(self.special.pad),
                unk: id("unk_token").or(self.special.unk),
                decoder_start: None,
            };
        }
        self.count_ids();
        Ok(())
    }
}

/// The tokens with a role that the sentencepiece wrapper knows, as far as they are set.
#[derive(Default)]
struct Roles {
    cls: Option<String>,
    pad: Option<String>,
    bos: Option<String>,
    eos: Option<String>,
}

fn sentencepiece(
    section: &NemoTokenizer,
    model: NemoModel,
    artifacts: &dyn NemoArtifacts,
) -> Result<Tokenizer> {
    let (path, bytes) = artifact(artifacts, "model", section.model.as_deref())?;
    let spm = SentencePiece::parse(&bytes)
        .map_err(|error| Diagnostic::job(error.to_string()).at(Location::file(path.display())))?;
    let kind = Kind::SentencePiece(spm.model_type());
    let is_legacy = section.sentencepiece_legacy.unwrap_or(true);
    let mut tokens = WithAddedTokens::new(spm);
    let mut roles = Roles::default();
    let size = tokens.size();
    match &section.special_tokens {
        Some(SpecialTokenNames::List(list)) => list.iter().for_each(|token| tokens.append(token)),
        Some(SpecialTokenNames::ByRole(by_role)) => {
            for (role, token) in by_role {
                tokens.append(token);
                let role = match role.as_str() {
                    "cls_token" => &mut roles.cls,
                    "pad_token" => &mut roles.pad,
                    "bos_token" => &mut roles.bos,
                    "eos_token" => &mut roles.eos,
                    _ => continue,
                };
                *role = Some(token.clone());
            }
        }
        None => {}
    }
    for token in section.additional_special_tokens.iter().flatten() {
        tokens.append(token);
    }
    if let NemoModel::T5 { ul2 } = model {
        let comes_from_hugging_face = section.add_sentinel_tokens_first == Some(true);
        if comes_from_hugging_face {
            add_sentinels(&mut tokens, section)?;
            add_base_tokens(&mut tokens, &mut roles, is_legacy, true);
        } else {
            add_base_tokens(&mut tokens, &mut roles, is_legacy, false);
            add_sentinels(&mut tokens, section)?;
        }
        if ul2 {
            for mode in ["r", "s", "x"] {
                add_or_map(&mut tokens, &format!("<extra_id_{mode}>"))?;
            }
        }
    }
    if !is_legacy && tokens.size() > size {
        return Err(refuse(
            artifacts,
            "tokens would have to be added to a sentencepiece model that allows none",
        )
        .note("`tokenizer.sentencepiece_legacy` is false and the model lacks sentinels; NeMo refuses it as well")
        .into());
    }
    tokens.finish()?;
    let of_role = |role: &Option<String>| {
        let token = role.as_deref()?;
        let id = tokens.token_to_id(token);
        Some(id.unwrap_or(tokens.model().unknown_id()))
    };
    let special = SpecialTokens {
        bos: of_role(&roles.bos).or(tokens.model().begin_id()),
        eos: of_role(&roles.eos).or(tokens.model().end_id()),
        pad: of_role(&roles.pad).or(tokens.model().pad_id()),
        unk: Some(tokens.model().unknown_id()),
        decoder_start: None,
    };
    let encoder = Encoder::SentencePiece(Box::new(tokens));
    Ok(Tokenizer::new(kind, encoder, path, special))
}

fn sentinel(k: u32) -> String {
    format!("<extra_id_{k}>")
}

fn add_sentinels(tokens: &mut WithAddedTokens, section: &NemoTokenizer) -> Result<()> {
    let count = section.num_sentinel_tokens.unwrap_or(0);
    for k in 0..count {
        let is_reverse = section.add_sentinel_tokens_in_reverse_order == Some(true);
        let k = if is_reverse { count - 1 - k } else { k };
        add_or_map(tokens, &sentinel(k))?;
    }
    Ok(())
}

/// Gives a token the one id that its text encodes to, or else a new one.
fn add_or_map(tokens: &mut WithAddedTokens, token: &str) -> Result<()> {
    // Tokens added before are not part of this one, so they need not be found in it.
    let mut ids = vec![];
    tokens.model().encode(token, true, |id, _| ids.push(id));
    match ids[..] {
        [id] => tokens.map(token, id),
        _ => tokens.append(token),
    }
    Ok(())
}

/// The tokens of pretraining, in NeMo's order; what the model has already is not added again.
fn add_base_tokens(
    tokens: &mut WithAddedTokens,
    roles: &mut Roles,
    is_legacy: bool,
    comes_from_hugging_face: bool,
) {
    if !is_legacy {
        // NeMo would refuse every one of them; the model's own pieces serve.
        return;
    }
    if roles.cls.is_none() {
        tokens.append("<cls>");
    }
    tokens.append("<sep>");
    tokens.append("<mask>");
    // Id 0 counts as "none" in NeMo, but for the padding of models that come from Hugging Face.
    let piece = |tokens: &WithAddedTokens, id: Option<u32>, zero_counts: bool| {
        let id = id.filter(|id| *id > 0 || zero_counts)?;
        tokens.model().id_to_piece(id).map(str::to_owned)
    };
    let add = |tokens: &mut WithAddedTokens, role: &mut Option<String>, own, new, default: &str| {
        let token: String = match (role.is_some(), own) {
            (true, _) => default.to_owned(),
            (false, Some(own)) => {
                *role = Some(own);
                return;
            }
            (false, None) => String::from(new),
        };
        tokens.append(&token);
        *role = Some(token);
    };
    let pad = piece(tokens, tokens.model().pad_id(), comes_from_hugging_face);
    add(tokens, &mut roles.pad, pad, "<pad>", "<pad>");
    let bos = piece(tokens, tokens.model().begin_id(), false);
    add(tokens, &mut roles.bos, bos, "<bos>", "<s>");
    let eos = piece(tokens, tokens.model().end_id(), false);
    add(tokens, &mut roles.eos, eos, "<eos>", "</s>");
}

fn library(section: &NemoTokenizer, artifacts: &dyn NemoArtifacts) -> Result<Library> {
    let name = section.r#type.as_deref().unwrap_or_default();
    let is_uncased = name.contains("uncased") || name == "BertWordPieceLowerCase";
    let is_bert = name.starts_with("BertWordPiece")
        || name.starts_with("bert-")
        || name.starts_with("megatron-bert");
    let is_gpt2 = name == "GPT2BPETokenizer"
        || name == "gpt2"
        || name.starts_with("gpt2-")
        || name.starts_with("megatron-gpt");
    match section.library.as_deref() {
        Some("sentencepiece") => Ok(Library::SentencePiece),
        Some("megatron" | "huggingface") if is_gpt2 => Ok(Library::Gpt2),
        Some("megatron" | "huggingface") if is_bert => Ok(Library::Bert {
            lowercase: is_uncased,
        }),
        Some("huggingface") if Path::new(name).is_dir() => {
            Ok(Library::Folder(PathBuf::from(name)))
        }
        Some("huggingface") => Err(refuse(
            artifacts,
            "the archive does not hold its tokenizer, only its name",
        )
        .note(format!(
            "`tokenizer.library` is `huggingface` and `tokenizer.type` is `{name}`, which NeMo downloads"
        ))
        .hint("prompt_learning.model.tokenizer_path=/path/to/the/folder/with/tokenizer.json")
        .into()),
        other => Err(refuse(
            artifacts,
            &format!(
                "a tokenizer of library `{}` and type `{name}` is not read here",
                other.unwrap_or("null")
            ),
        )
        .note(
            "read are `sentencepiece`, `megatron` with GPT2BPETokenizer or BertWordPiece…, and `huggingface` with a \
             local folder",
        )
        .into()),
    }
}

/// Path for messages and content of the file that `key` names.
fn artifact(
    artifacts: &dyn NemoArtifacts,
    key: &str,
    value: Option<&str>,
) -> Result<(PathBuf, Vec<u8>)> {
    let value = value.filter(|value| !value.is_empty()).ok_or_else(|| {
        refuse(artifacts, &format!("`tokenizer.{key}` names no file")).note(listed(artifacts))
    })?;
    // Where the value is a path it is one of the machine that trained the model; the file may be packed nonetheless.
    let name = match value.strip_prefix("nemo:") {
        Some(name) => name,
        None => {
            let path = Path::new(value);
            if path.is_file() {
                return Ok((path.to_owned(), read(path)?));
            }
            path.file_name()
                .and_then(|name| name.to_str())
                .unwrap_or(value)
        }
    };
    if let Some(bytes) = artifacts.read(name)? {
        return Ok((artifacts.path().join(name), bytes));
    }
    let diagnostic = refuse(
        artifacts,
        &format!("`tokenizer.{key}` names `{value}`, which is not there"),
    );
    Err(diagnostic.note(listed(artifacts)).into())
}

fn listed(artifacts: &dyn NemoArtifacts) -> String {
    let names = artifacts.names();
    let shown = names.len().min(10);
    let text = format!("it holds `{}`", names[..shown].join("`, `"));
    match names.len() - shown {
        0 => text,
        more => format!("{text} … and {more} more"),
    }
}

fn refuse(artifacts: &dyn NemoArtifacts, title: &str) -> Diagnostic {
    Diagnostic::job(title).at(Location::file(artifacts.path().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/tokenize")
    }

    fn section(json: serde_json::Value) -> NemoTokenizer {
        serde_json::from_value(json).unwrap()
    }

    fn refusal(section: &NemoTokenizer, model: NemoModel, folder: &str) -> String {
        let artifacts = ArtifactFolder(cases().join(folder));
        let error = Tokenizer::from_nemo(section, model, &artifacts)
            .err()
            .unwrap();
        error.downcast_ref::<Diagnostic>().unwrap().to_string()
    }

    const T5: NemoModel = NemoModel::T5 { ul2: false };

    #[test]
    fn a_file_that_is_not_there_is_named_with_those_that_are() {
        let section = section(serde_json::json!({
            "library": "sentencepiece", "model": "nemo:4567_tokenizer.model"
        }));
        let message = refusal(&section, T5, "nemo_t5");
        assert!(message.contains("4567_tokenizer.model"), "{message}");
        assert!(message.contains("`0123_tokenizer.model`"), "{message}");
    }

    #[test]
    fn a_name_that_leads_out_of_the_folder_is_not_followed() {
        let section = section(serde_json::json!({
            "library": "sentencepiece", "model": "nemo:../nemo_t5/0123_tokenizer.model"
        }));
        let message = refusal(&section, T5, "nemo_mt5");
        assert!(message.contains("which is not there"), "{message}");
    }

    #[test]
    fn a_path_of_the_machine_that_trained_is_looked_for_by_its_name() {
        let section = section(serde_json::json!({
            "library": "megatron", "type": "BertWordPieceCase", "vocab_file": "/raid/v/0123_vocab.txt",
            "merge_file": null, "num_sentinel_tokens": 10
        }));
        let artifacts = ArtifactFolder(cases().join("nemo_bert"));
        let tokenizer = Tokenizer::from_nemo(&section, T5, &artifacts).unwrap();
        assert_eq!(tokenizer.kind(), Kind::WordPiece);
        assert_eq!(
            tokenizer.sentinel(9).unwrap() as usize,
            tokenizer.vocab_size() - 1
        );
    }

    #[test]
    fn kinds_that_are_not_read_and_contradictions_are_refused_for_their_reason() {
        let tokenizer = |json| section(json);
        for (section, reason) in [
            (
                tokenizer(serde_json::json!({"library": "yttm", "model": "nemo:x"})),
                "library `yttm`",
            ),
            (
                tokenizer(serde_json::json!({"library": "huggingface", "type": "org/model"})),
                "`org/model`, which NeMo downloads",
            ),
            (
                tokenizer(serde_json::json!({"library": "sentencepiece", "model": null})),
                "`tokenizer.model` names no file",
            ),
            (
                tokenizer(serde_json::json!({
                    "library": "sentencepiece", "model": "nemo:0123_tokenizer.model",
                    "sentencepiece_legacy": false, "num_sentinel_tokens": 10
                })),
                "`tokenizer.sentencepiece_legacy` is false",
            ),
            (
                tokenizer(serde_json::json!({
                    "library": "sentencepiece", "model": "nemo:0123_tokenizer.model",
                    "num_sentinel_tokens": 4_000_000_000u32
                })),
                "too large",
            ),
        ] {
            let message = refusal(&section, T5, "nemo_t5");
            assert!(message.contains(reason), "{message}");
        }
    }
}
