//! The checkpoints a NeMo training leaves: `[mp_rank_XX/]NAME.ckpt`, or from 1.23 on a folder `NAME` with a distributed
//! checkpoint; and the hyperparameters it saved.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::diag::Diagnostic;
use crate::diag::source::SourceId;
use crate::model::checkpoint::Checkpoint;
use crate::schema::ConversionModel;
use crate::tensors::megatron::{MegatronCheckpoint, ranks_of};
use crate::tensors::nemo_files::NemoFiles;
use crate::tensors::torch::TorchFile;
use crate::yaml;

/// The text of the model's configuration, and its weights.
pub(super) fn open(model: &ConversionModel) -> Result<(String, Checkpoint)> {
    let folder = &model.checkpoint_folder;
    let source = match distributed(folder, &model.checkpoint_name)? {
        Some(folder) => {
            let files = NemoFiles::open(&folder);
            let files = files.map_err(|error| Diagnostic::job(error.to_string()))?;
            MegatronCheckpoint::open(&files)?
        }
        None => of_ranks(folder, &model.checkpoint_name)?,
    };
    let Some(path) = &model.hparams_file else {
        return Err(Diagnostic::configuration(
            "`model.hparams_file` is needed for the checkpoints of a training",
        )
        .note("NeMo saves it as `hparams.yaml` beside the checkpoints")
        .into());
    };
    let text = fs_err::read_to_string(path)?;
    let node = yaml::parse(&text, SourceId(0)).map_err(|error| {
        Diagnostic::job(format!("{}: not YAML: {}", path.display(), error.message))
    })?;
    // Lightning saves a model's arguments: its configuration is the one named `cfg`.
    let text = match node.as_ref().and_then(|node| node.child("cfg")) {
        Some(config) => yaml::to_yaml(config),
        None => text,
    };
    let checkpoint = Checkpoint::megatron(path, &text, source)?;
    Ok((text, checkpoint))
}

/// The checkpoint of this name, with a file for every rank.
fn of_ranks(folder: &Path, name: &str) -> Result<MegatronCheckpoint> {
    let places = rank_folders(folder)?;
    let first = &places[0].1;
    let name = match name {
        "latest" => newest(first)?,
        name => name.to_owned(),
    };
    let mut ranks = vec![];
    for (place, folder) in places {
        ranks.push((place, TorchFile::open(&folder.join(&name))?));
    }
    Ok(MegatronCheckpoint::of_ranks(folder, ranks)?)
}

/// The folder of the distributed checkpoint of this name, where there is one: `folder` itself, or one in it.
fn distributed(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    let description = |path: &Path| {
        let mut files = ["", "weights", "model_weights"]
            .iter()
            .map(|place| path.join(place).join(".metadata"));
        files.find(|file| file.is_file())
    };
    if description(folder).is_some() {
        return Ok(Some(folder.to_owned()));
    }
    if name != "latest" {
        // NeMo's names of checkpoints end in `.ckpt`, and those of such folders do not.
        let names = [name, name.strip_suffix(".ckpt").unwrap_or(name)];
        let mut paths = names.iter().map(|name| folder.join(name));
        return Ok(paths.find(|path| description(path).is_some()));
    }
    let mut found = vec![];
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        if let Some(file) = description(&path) {
            found.push((fs_err::metadata(file)?.modified()?, path));
        }
    }
    Ok(found.into_iter().max().map(|(_, path)| path))
}

/// Stage and tensor rank of every folder that holds checkpoints.
fn rank_folders(folder: &Path) -> Result<Vec<((usize, usize), PathBuf)>> {
    let mut places = vec![];
    let mut has_files = false;
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if let (true, Some((rank, stage))) = (path.is_dir(), ranks_of(&name)) {
            places.push(((stage, rank), path));
        }
        has_files |= is_checkpoint(&name);
    }
    if places.is_empty() && has_files {
        places.push(((0, 0), folder.to_owned()));
    }
    if places.is_empty() {
        return Err(Diagnostic::configuration(format!(
            "`model.checkpoint_folder` holds no model: {}",
            folder.display()
        ))
        .note(
            "expected a Hugging Face folder, a `.nemo`, or checkpoints (`*.ckpt`, in `mp_rank_XX` where there are several, or \
             a folder with `.metadata`)",
        )
        .into());
    }
    places.sort();
    Ok(places)
}

fn is_checkpoint(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end == "ckpt")
}

fn newest(folder: &Path) -> Result<String> {
    let mut found = vec![];
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_checkpoint(&name) {
            found.push((entry.metadata()?.modified()?, name));
        }
    }
    match found.into_iter().max() {
        Some((_, name)) => Ok(name),
        None => Err(Diagnostic::configuration(format!(
            "there is no checkpoint in {}",
            folder.display()
        ))
        .note("expected files that end in `.ckpt`")
        .into()),
    }
}
