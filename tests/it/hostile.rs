//! Files that try something: every reader must refuse them with a reason, without a panic, soon, and without taking
//! much memory. `tests/cases/hostile/make.py` makes them.

use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use candle_core::Device;
use ptune::inspect::{Options, inspect};
use ptune::sys::rng::SeededRng;
use ptune::tensors::TensorSource;
use ptune::tensors::nemo::NemoArchive;
use ptune::tensors::nemo_files::NemoFiles;
use ptune::tensors::safetensors::SafetensorsFile;
use ptune::tensors::torch::{self, TorchFile};
use ptune::tokenize::Tokenizer;

use crate::counting::peak;

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

/// Files of every kind that a reader is given, with the extension that tells it.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut paths: Vec<PathBuf> = ["cases/torch", "cases/hostile"]
        .iter()
        .flat_map(|folder| fs_err::read_dir(tests.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|end| end == "pt" || end == "nemo" || end == "ckpt")
        })
        .collect();
    for name in [
        "golden/fixtures/nemo_gpt_core_groups_tp2_pp2/model.nemo",
        "cases/distributed/stacked.nemo",
        "cases/distributed/whole.nemo",
        "golden/fixtures/t5_relu_tied/model.safetensors",
        "cases/tokenize/nemo_t5/0123_tokenizer.model",
        "cases/tokenize/nemo_gpt_bpe/0123_tokenizer.model",
        "cases/tokenize/unigram.json",
        "cases/tokenize/bpe.json",
    ] {
        paths.push(tests.join(name));
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let extension = path.extension().unwrap().to_str().unwrap().to_owned();
            (extension, fs_err::read(path).unwrap())
        })
        .collect()
}

/// Changes a few places: single bytes, whole numbers, runs of another place, or cuts the rest off.
fn change(bytes: &mut Vec<u8>, rng: &mut SeededRng) {
    for _ in 0..=rng.below(4) {
        if bytes.is_empty() {
            return;
        }
        let place = rng.below(bytes.len());
        let left = bytes.len() - place;
        match rng.below(8) {
            0..4 => bytes[place] = rng.below(256) as u8,
            4 => bytes[place] ^= 1 << rng.below(8),
            5 => {
                let extreme = [0, 1, 0x7f, 0xff][rng.below(4)];
                let length = left.min([2, 4, 8][rng.below(3)]);
                bytes[place..place + length].fill(extreme);
            }
            6 => {
                let length = left.min(1 + rng.below(16));
                let from = rng.below(bytes.len() - length + 1);
                bytes.copy_within(from..from + length, place);
            }
            _ if rng.below(4) == 0 => bytes.truncate(place),
            _ => {}
        }
    }
}

/// A torch checkpoint whose pickle is changed, with check sums that fit: else nothing behind them would be reached.
fn change_pickle(bytes: &[u8], rng: &mut SeededRng) -> Option<Vec<u8>> {
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).ok()?;
    let mut out = zip::ZipWriter::new(Cursor::new(vec![]));
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).ok()?;
        let name = entry.name().ok()?.into_owned();
        let mut content = vec![];
        entry.read_to_end(&mut content).ok()?;
        if name.ends_with("data.pkl") {
            change(&mut content, rng);
        }
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored);
        out.start_file(name, options).ok()?;
        out.write_all(&content).ok()?;
    }
    Some(out.finish().ok()?.into_inner())
}

/// An archive of which the description of a distributed checkpoint alone is changed; `None` where it has none.
fn change_metadata(bytes: &[u8], rng: &mut SeededRng) -> Option<Vec<u8>> {
    let mut tar = tar::Archive::new(bytes);
    let place = tar.entries().ok()?.flatten().find_map(|entry| {
        let name = entry.path_bytes().into_owned();
        let start = usize::try_from(entry.raw_file_position()).ok()?;
        let size = usize::try_from(entry.size()).ok()?;
        name.ends_with(b"/.metadata").then_some(start..start + size)
    })?;
    let mut bytes = bytes.to_vec();
    let mut content = bytes.get(place.clone())?.to_vec();
    change(&mut content, rng);
    // What is cut off becomes zeros, so that everything behind it stays where it is.
    content.resize(place.len(), 0);
    bytes[place].copy_from_slice(&content);
    Some(bytes)
}

/// Makes the check sums of a tar's headers fit.
fn mend_tar(bytes: &mut [u8]) {
    for header in bytes.as_chunks_mut::<512>().0 {
        if header[257..262] == *b"ustar" {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

/// Reads a file in every way there is; whether it is refused does not matter.
fn read_all(path: &Path) {
    let everything = Options {
        tensors: true,
        hash: true,
    };
    let _ = inspect(path, everything);
    match path.extension().unwrap().to_str().unwrap() {
        "pt" | "ckpt" => {
            drop(torch::read_file(path));
            if let Ok(file) = TorchFile::open(path) {
                for name in file.names() {
                    drop(file.load(&name, &Device::Cpu));
                }
            }
        }
        "safetensors" => {
            if let Ok(file) = SafetensorsFile::open(path) {
                for name in file.names() {
                    drop(file.load(&name, &Device::Cpu));
                }
            }
        }
        "nemo" => {
            let _ = NemoArchive::open(path);
            if let Ok(files) = NemoFiles::open(path) {
                let _ = Tokenizer::from_nemo_files(&files);
            }
        }
        "model" | "json" => {
            if let Ok(tokenizer) = Tokenizer::from_file(path) {
                let text = " a <user>b\u{301} ﬁ </s> 日本\u{200b}🙂";
                if let Ok(ids) = tokenizer.encode(text) {
                    let _ = tokenizer.decode(&ids);
                }
            }
        }
        _ => {}
    }
}

/// What reading a file may take at one time: its size so many times, and as much besides (a text of the error, tables of
/// a tokenizer). A pickle of one-byte opcodes is the worst: each may make a value of 32 bytes in a list that doubles.
fn allowed(extension: &str, size: usize) -> usize {
    let times = match extension {
        "pt" | "ckpt" | "nemo" => 128,
        _ => 64,
    };
    size * times + (4 << 20)
}

/// Every reader on files that were changed anywhere: no panic, and no more memory than [`allowed`]. `PTUNE_FUZZ_SECONDS`
/// makes it go on, `PTUNE_FUZZ_KIND` (`ckpt`, `json`, `model`, `nemo`, `pt`, `safetensors`) with files of one kind.
#[test]
fn files_that_were_changed_anywhere_never_panic() {
    let seconds = ptune::sys::env_vars::get("PTUNE_FUZZ_SECONDS");
    let seconds: Option<u64> = seconds.map(|text| text.parse().unwrap());
    let started = std::time::Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let mut seeds = seeds();
    if let Some(kind) = ptune::sys::env_vars::get("PTUNE_FUZZ_KIND") {
        seeds.retain(|(extension, _)| *extension == kind);
    }
    let (mut files, mut most) = (0_u64, 0.0_f64);
    let mut rng = SeededRng::new(seconds.unwrap_or(0), 1);
    for round in 0_u64.. {
        let is_done = match seconds {
            Some(seconds) => started.elapsed().as_secs() >= seconds,
            None => round == 12,
        };
        if is_done {
            break;
        }
        for (extension, bytes) in &seeds {
            let mut bytes = match extension.as_str() {
                "pt" | "ckpt" if round % 2 == 0 => {
                    change_pickle(bytes, &mut rng).unwrap_or_else(|| bytes.clone())
                }
                _ => {
                    // Three times of four the description alone, of which most of a file's bytes are no part.
                    let metadata = (extension == "nemo" && round % 4 > 0)
                        .then(|| change_metadata(bytes, &mut rng))
                        .flatten();
                    metadata.unwrap_or_else(|| {
                        let mut bytes = bytes.clone();
                        change(&mut bytes, &mut rng);
                        bytes
                    })
                }
            };
            if extension == "nemo" && round % 2 == 0 {
                mend_tar(&mut bytes);
            }
            let path = folder.path().join(format!("tokenizer.{extension}"));
            fs_err::write(&path, &bytes).unwrap();
            let outcome = std::panic::catch_unwind(|| peak(|| read_all(&path)).1);
            files += 1;
            let allowed = allowed(extension, bytes.len());
            let fault = match outcome {
                Err(_) => "panics".to_owned(),
                Ok(taken) if taken > allowed => format!("takes {taken} bytes"),
                Ok(taken) => {
                    most = most.max(taken as f64 / allowed as f64);
                    continue;
                }
            };
            let kept = std::env::temp_dir().join(format!("ptune-panics.{extension}"));
            fs_err::write(&kept, &bytes).unwrap();
            panic!("reading {} {fault}", kept.display());
        }
    }
    if seconds.is_some() {
        println!("{files} files; at most {most:.2} of what is allowed");
    }
}
