//! Tokenizer files on their way between a Hugging Face folder and the artifacts of a `.nemo`.
//!
//! NeMo names an artifact `<32 hex digits>_<file name>` and writes `nemo:<that name>` where the configuration had a path.

use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::schema::ConversionModel;
use crate::sys::atomic_file;
use crate::tensors::nemo::{CONFIG_MEMBER, WEIGHTS_MEMBER};
use crate::tensors::nemo_files::NemoFiles;
use crate::tensors::nemo_writer::{Content, Member};
use crate::yaml::{Key, Mapping, Node, Value as Yaml};

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
        _ => section.extend([text("library", "huggingface"), entry("type", Yaml::Null)]),
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
    Ok((Node::computed(Yaml::Map(section)), members))
}

/// Everything in an archive that is neither configuration nor weights.
pub(super) fn of_archive<'a>(files: &NemoFiles) -> Result<Vec<Member<'a>>> {
    let mut members = vec![];
    for name in files.names() {
        if name == CONFIG_MEMBER || name.ends_with(WEIGHTS_MEMBER) {
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

fn is_sentencepiece(name: &str) -> bool {
    Path::new(name).extension() == Some(std::ffi::OsStr::new("model"))
}

/// Writes the tokenizer of an archive as files of a Hugging Face folder.
pub(super) fn to_folder(files: &NemoFiles, folder: &Path, is_t5: bool) -> Result<()> {
    for name in files.names() {
        // `<32 hex digits>_<file name>`
        let plain = match name.split_once('_') {
            Some((id, rest)) if id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) => rest,
            _ => name,
        };
        let written = match plain {
            _ if is_sentencepiece(plain) && is_t5 => "spiece.model",
            _ if is_sentencepiece(plain) => "tokenizer.model",
            _ if FAST.contains(&plain) || plain == "vocab.txt" => plain,
            _ if plain.ends_with("vocab.json") => "vocab.json",
            _ if plain.ends_with("merges.txt") => "merges.txt",
            _ => continue,
        };
        atomic_file::write(&folder.join(written), files.read(name)?)?;
    }
    Ok(())
}

/// A file as a member with a name like NeMo's; equal content gets an equal name.
fn artifact<'a>(path: &Path) -> Result<(String, Member<'a>)> {
    let bytes = fs_err::read(path)?;
    let half = |seed: u8| {
        let mut hasher = std::hash::DefaultHasher::new();
        (seed, &bytes).hash(&mut hasher);
        hasher.finish()
    };
    let file = path
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let name = format!("{:016x}{:016x}_{file}", half(0), half(1));
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
