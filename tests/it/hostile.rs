//! Files that try something: every reader must refuse them with a reason, without a panic, soon, and without taking
//! much memory. `tests/cases/hostile/make.py` makes them.

use std::path::{Path, PathBuf};

use ptune::tensors::nemo::NemoArchive;
use ptune::tensors::torch::{self, TorchFile};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/hostile")
}

/// File and a part of the reason it is refused for.
const CHECKPOINTS: &[(&str, &str)] = &[
    ("command.pt", "`posix.system`"),
    ("evaluate.pt", "`builtins.eval`"),
    ("laughs.pt", "far more than it holds"),
    ("circle.pt", "nest deeper"),
    ("deep.pt", "nest deeper"),
    ("views.pt", "far more than it holds"),
    ("expanded.pt", "far more than it holds"),
    ("outside.pt", "reaches outside its 4 elements"),
    ("negative.pt", "a size is negative"),
    ("strides.pt", "differ in length"),
    ("short_storage.pt", "has 16 bytes, expected 5 elements of 4"),
    ("missing_storage.pt", "no entry `data/7`"),
    ("climbing_storage.pt", "no entry `data/../../etc/passwd`"),
    ("big_endian.pt", "big-endian"),
    ("compressed.pt", "compressed"),
    ("overlap.pt", "overlap"),
    ("no_pickle.pt", "no entry `data.pkl`"),
    ("endless.pt", "ends in the middle"),
    ("text.pt", "not a torch checkpoint"),
];

const ARCHIVES: &[(&str, &str)] = &[
    ("climb.nemo", "leads out of the archive"),
    ("absolute.nemo", "leads out of the archive"),
    ("link.nemo", "not a file"),
    ("sparse.nemo", "not a file"),
    ("bomb.nemo", "unexpected EOF"),
    ("no_weights.nemo", "no member `model_weights.ckpt`"),
];

#[test]
fn every_hostile_checkpoint_is_refused_for_its_reason() {
    for (name, reason) in CHECKPOINTS {
        let error = torch::read_file(&folder().join(name))
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{name}: {error}");
    }
}

#[test]
fn a_checkpoint_read_lazily_is_refused_when_it_is_opened_or_holds_no_tensor() {
    for (name, reason) in CHECKPOINTS {
        match TorchFile::open(&folder().join(name)) {
            Err(error) => assert!(error.to_string().contains(reason), "{name}: {error}"),
            // Lists are not looked into, so what they hold is never read.
            Ok(_) => assert!(
                ["laughs.pt", "views.pt"].contains(name),
                "{name} was opened"
            ),
        }
    }
}

#[test]
fn every_hostile_archive_is_refused_for_its_reason() {
    for (name, reason) in ARCHIVES {
        let error = NemoArchive::open(&folder().join(name))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(reason) && error.contains(name),
            "{name}: {error}"
        );
    }
}

#[test]
fn every_file_of_the_folder_is_in_one_of_the_lists() {
    let mut listed: Vec<&str> = CHECKPOINTS
        .iter()
        .chain(ARCHIVES)
        .map(|(name, _)| *name)
        .collect();
    listed.push("make.py");
    for entry in fs_err::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(listed.contains(&name.as_str()), "{name} is in no list");
    }
}
