//! Tokenizer files on their way between a Hugging Face folder and the artifacts of a `.nemo`.
//!
//! NeMo names an artifact `<32 hex digits>_<file name>` and writes `nemo:<that name>` where the configuration had a path.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::model::Layout;
use crate::schema::ConversionModel;
use crate::sys::atomic_file;
use crate::sys::hexadecimal;
use crate::tensors::distributed::DistributedCheckpoint;
use crate::tensors::nemo::{CONFIG_MEMBER, WEIGHTS_MEMBER};
use crate::tensors::nemo_files::NemoFiles;
use crate::tensors::nemo_writer::{Content, Member};
use crate::tokenize::{NemoArtifacts, NemoModel, NemoTokenizer, Tokenizer};
use crate::yaml::{Key, Mapping, Node, Value as Yaml, to_yaml};

/// Names that Hugging Face folders have for a sentencepiece model.
const SENTENCEPIECE: [&str; 3] = ["spiece.model", "tokenizer.model", "sentencepiece.bpe.model"];
/// What a fast tokenizer of Hugging Face consists of; kept by these names, as ptune reads them and NeMo passes over them.
const FAST: [&str; 3] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
];
/// Sentinels of the T5s of Hugging Face.
const SENTINELS: i128 = 100;

/// The section `tokenizer` for a Hugging Face folder, and the members it names.
pub(super) fn of_folder<'a>(
    folder: &Path,
    is_t5: bool,
    given: &ConversionModel,
) -> Result<(Node, Vec<Member<'a>>)> {
    let mut members = vec![];
    let mut section = Mapping::new();
    let or_given = |names: &[&str], given: Option<&PathBuf>| -> Option<PathBuf> {
        let mut own = names.iter().map(|name| folder.join(name));
        own.find(|path| path.is_file())
            .or_else(|| given.filter(|path| path.is_file()).cloned())
    };
    let sentencepiece = or_given(&SENTENCEPIECE, given.tokenizer_model.as_ref());
    let vocabulary = or_given(&["vocab.json"], given.vocab_file.as_ref());
    let merges = or_given(&["merges.txt"], given.merge_file.as_ref());
    let mut add = |key: &str, path: &Path| -> Result<(Key, Node)> {
        let (name, member) = artifact(path)?;
        members.push(member);
        Ok(entry(key, Yaml::Str(format!("nemo:{name}"))))
    };
    match (sentencepiece, vocabulary.zip(merges)) {
        (Some(model), _) => section.extend([
            text("library", "sentencepiece"),
            entry("type", Yaml::Null),
            add("model", &model)?,
            entry("sentencepiece_legacy", Yaml::Bool(is_t5)),
        ]),
        (None, Some((vocabulary, merges))) if !is_t5 => section.extend([
            text("library", "megatron"),
            text("type", "GPT2BPETokenizer"),
            entry("model", Yaml::Null),
            add("vocab_file", &vocabulary)?,
            add("merge_file", &merges)?,
        ]),
        _ => {
            // NeMo asks transformers for it by this path; ptune reads the copy in the archive.
            let place = std::path::absolute(folder)?.display().to_string();
            section.extend([text("library", "huggingface"), text("type", &place)]);
            if folder.join(FAST[0]).is_file() {
                tracing::warn!(
                    "{} has a `tokenizer.json` alone, which NeMo does not read from an archive: it will look for it at that \
                     path",
                    folder.display()
                );
            } else {
                tracing::warn!(
                    "{} has no tokenizer: whoever tunes the archive must name one (`model.tokenizer_path`)",
                    folder.display()
                );
            }
        }
    }
    if is_t5 {
        section.extend([
            entry(
                "num_sentinel_tokens",
                Yaml::Int(crate::yaml::Integer::Small(SENTINELS)),
            ),
            entry("add_sentinel_tokens_in_reverse_order", Yaml::Bool(true)),
            entry("add_sentinel_tokens_first", Yaml::Bool(true)),
        ]);
    }
    for name in FAST {
        let path = folder.join(name);
        if path.is_file() {
            members.push(Member {
                name: name.to_owned(),
                content: Content::Bytes(fs_err::read(path)?),
            });
        }
    }
    if folder.join(FAST[0]).is_file() && !folder.join(FAST[1]).is_file() {
        members.extend(roles(folder));
    }
    Ok((Node::computed(Yaml::Map(section)), members))
}

/// A `tokenizer_config.json` for a folder that has none: its `config.json` tells the ids of the tokens with a role, and
/// stays behind.
fn roles<'a>(folder: &Path) -> Option<Member<'a>> {
    let tokenizer = Tokenizer::from_folder(folder).ok()?;
    let special = tokenizer.special;
    let mut roles = serde_json::Map::new();
    for (role, id) in [
        ("bos_token", special.bos),
        ("eos_token", special.eos),
        ("pad_token", special.pad),
        ("unk_token", special.unk),
    ] {
        if let Some(token) = id.and_then(|id| tokenizer.id_to_token(id)) {
            roles.insert(role.to_owned(), token.into());
        }
    }
    Some(Member {
        name: FAST[1].to_owned(),
        content: Content::Bytes(serde_json::to_vec_pretty(&roles).ok()?),
    })
}

/// The members of an archive that is still to be written.
struct Unwritten<'a>(&'a Path, &'a [Member<'a>]);

impl NemoArtifacts for Unwritten<'_> {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let found = self.1.iter().find(|member| member.name == name);
        Ok(found.and_then(|member| match &member.content {
            Content::Bytes(bytes) => Some(bytes.clone()),
            Content::Tensors { .. } => None,
        }))
    }

    fn names(&self) -> Vec<String> {
        self.1.iter().map(|member| member.name.clone()).collect()
    }

    fn path(&self) -> &Path {
        self.0
    }
}

/// The size that NeMo will count for the tokenizer of `section`, where it can be read.
pub(super) fn size(
    folder: &Path,
    section: &Node,
    members: &[Member<'_>],
    is_t5: bool,
) -> Option<usize> {
    let model = if is_t5 {
        NemoModel::T5 { ul2: false }
    } else {
        NemoModel::Gpt
    };
    let section: NemoTokenizer = serde_yaml::from_str(&to_yaml(section)).ok()?;
    match Tokenizer::from_nemo(&section, model, &Unwritten(folder, members)) {
        Ok(tokenizer) => Some(tokenizer.vocab_size()),
        Err(error) => {
            tracing::debug!("the size of the tokenizer is not known: {error:#}");
            None
        }
    }
}

/// Everything in an archive that is neither configuration nor weights.
pub(super) fn of_archive<'a>(files: &NemoFiles) -> Result<Vec<Member<'a>>> {
    let mut members = vec![];
    for name in files.names() {
        let is_weights =
            name.ends_with(WEIGHTS_MEMBER) || DistributedCheckpoint::has_member(files, name);
        if name == CONFIG_MEMBER || is_weights {
            continue;
        }
        members.push(Member {
            name: name.to_owned(),
            content: Content::Bytes(files.read(name)?.into_owned()),
        });
    }
    Ok(members)
}

/// The files that the job names, as artifacts; the configuration of a training is told their new names.
pub(super) fn of_training<'a>(yaml: &mut Node, given: &ConversionModel) -> Result<Vec<Member<'a>>> {
    let mut members = vec![];
    let Some(section) = yaml
        .as_map_mut()
        .and_then(|map| map.get_mut(&Key::Str("tokenizer".to_owned())))
        .and_then(Node::as_map_mut)
    else {
        return Ok(members);
    };
    for (key, path) in [
        ("model", &given.tokenizer_model),
        ("vocab_file", &given.vocab_file),
        ("merge_file", &given.merge_file),
    ] {
        if let Some(path) = path {
            let (name, member) = artifact(path)?;
            members.push(member);
            let (key, node) = entry(key, Yaml::Str(format!("nemo:{name}")));
            section.insert(key, node);
        }
    }
    Ok(members)
}

/// Writes the tokenizer of an archive as files of a Hugging Face folder.
pub(super) fn to_folder(files: &NemoFiles, folder: &Path, layout: Layout) -> Result<()> {
    for name in files.names() {
        // `<32 hex digits>_<file name>`
        let plain = match name.split_once('_') {
            Some((id, rest)) if id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) => rest,
            _ => name,
        };
        if let Some(written) = name_for(plain, layout) {
            atomic_file::write(&folder.join(written), files.read(name)?)?;
        }
    }
    write_class(folder, layout)
}

/// Writes the tokenizer files that the job names into a Hugging Face folder.
pub(super) fn given_to_folder(
    given: &ConversionModel,
    folder: &Path,
    layout: Layout,
) -> Result<()> {
    for path in [&given.tokenizer_model, &given.vocab_file, &given.merge_file]
        .into_iter()
        .flatten()
    {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(written) = name_for(&name, layout) {
            let bytes = fs_err::read(path).context("reading the tokenizer that the job names")?;
            atomic_file::write(&folder.join(written), bytes)?;
        }
    }
    write_class(folder, layout)
}

/// What transformers calls a tokenizer's file.
fn name_for(file: &str, layout: Layout) -> Option<&str> {
    let is_sentencepiece = Path::new(file)
        .extension()
        .is_some_and(|end| end == "model");
    Some(match file {
        _ if is_sentencepiece && layout == Layout::T5 => "spiece.model",
        _ if is_sentencepiece => "tokenizer.model",
        _ if FAST.contains(&file) || file == "vocab.txt" => file,
        _ if file.ends_with("vocab.json") => "vocab.json",
        _ if file.ends_with("merges.txt") => "merges.txt",
        _ => return None,
    })
}

/// Says which class of transformers reads the files, where they do not say it themselves.
fn write_class(folder: &Path, layout: Layout) -> Result<()> {
    let path = folder.join("tokenizer_config.json");
    let has = |name: &str| folder.join(name).is_file();
    let config = match layout {
        _ if path.is_file() => return Ok(()),
        Layout::T5 if has("spiece.model") => serde_json::json!({
            "tokenizer_class": "T5Tokenizer", "extra_ids": SENTINELS as u64, "legacy": true,
            "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>",
        }),
        Layout::Gpt2 if has("vocab.json") => {
            serde_json::json!({"tokenizer_class": "GPT2Tokenizer"})
        }
        Layout::Llama if has("tokenizer.model") => {
            serde_json::json!({"tokenizer_class": "LlamaTokenizer", "legacy": true})
        }
        _ => return Ok(()),
    };
    atomic_file::write(&path, format!("{config:#}\n"))?;
    Ok(())
}

/// A file as a member with a name like NeMo's; equal content gets an equal name.
fn artifact<'a>(path: &Path) -> Result<(String, Member<'a>)> {
    let bytes = fs_err::read(path)?;
    let digest = Sha256::digest(&bytes);
    let id = hexadecimal(&digest[..16]);
    let file = path
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let name = format!("{id}_{file}");
    let member = Member {
        name: name.clone(),
        content: Content::Bytes(bytes),
    };
    Ok((name, member))
}

fn entry(key: &str, value: Yaml) -> (Key, Node) {
    (Key::Str(key.to_owned()), Node::computed(value))
}

fn text(key: &str, value: &str) -> (Key, Node) {
    entry(key, Yaml::Str(value.to_owned()))
}
