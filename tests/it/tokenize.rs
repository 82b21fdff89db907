//! Every kind of tokenizer against the reference libraries, token for token.
//!
//! The cases of `tests/cases/tokenize` are small; `compare.py` there makes a large set (all of XQuAD in five languages
//! and thousands of nasty texts), which is read where `PTUNE_TOKENIZE_CORPUS` names its folder.

#![expect(
    clippy::print_stdout,
    reason = "the counts are what the large comparison is for"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use ptune::tokenize::{ArtifactFolder, NemoModel, NemoTokenizer, Tokenizer};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    nemo: Option<NemoTokenizer>,
    model: Option<String>,
    vocab_size: usize,
    special: BTreeMap<String, Option<u32>>,
    #[serde(default)]
    tokens: BTreeMap<String, u32>,
}

#[derive(Deserialize)]
struct Expected {
    text: String,
    ids: Vec<u32>,
    offsets: Option<Vec<(usize, usize)>>,
    decoded: Option<String>,
}

fn load(folder: &Path, case: &Case) -> Tokenizer {
    let Some(section) = &case.nemo else {
        return Tokenizer::from_folder(folder).unwrap();
    };
    let model = match case.model.as_deref() {
        Some("t5") => NemoModel::T5 { ul2: false },
        Some("ul2") => NemoModel::T5 { ul2: true },
        _ => NemoModel::Gpt,
    };
    Tokenizer::from_nemo(section, model, &ArtifactFolder(folder.to_owned())).unwrap()
}

/// Differences of one case, at most a few of each sort, and the number of texts.
fn differences(folder: &Path) -> (Vec<String>, usize) {
    let case = fs_err::read(folder.join("case.json")).unwrap();
    let case: Case = serde_json::from_slice(&case).unwrap();
    let tokenizer = load(folder, &case);
    let mut found = vec![];
    if tokenizer.vocab_size() != case.vocab_size {
        let sizes = (tokenizer.vocab_size(), case.vocab_size);
        found.push(format!("vocabulary of {} instead of {}", sizes.0, sizes.1));
    }
    let special = tokenizer.special;
    for (name, id) in &case.special {
        let ours = match name.as_str() {
            "bos" => special.bos,
            "eos" => special.eos,
            "pad" => special.pad,
            _ => special.unk,
        };
        if ours != *id {
            found.push(format!("{name} is {ours:?} instead of {id:?}"));
        }
    }
    for (token, id) in &case.tokens {
        if tokenizer.token_to_id(token) != Some(*id) {
            found.push(format!("{token} is not {id}"));
        }
    }
    let rows = fs_err::read_to_string(folder.join("expected.jsonl")).unwrap();
    let mut counts = BTreeMap::<&str, usize>::new();
    for row in rows.lines() {
        let row: Expected = serde_json::from_str(row).unwrap();
        let mut differ = |sort: &'static str, detail: String| {
            let count = counts.entry(sort).or_default();
            *count += 1;
            if *count <= 3 {
                found.push(format!("{sort} of {:?}: {detail}", row.text));
            }
        };
        let ours = tokenizer.encode_with_offsets(&row.text).unwrap();
        if ours.ids != row.ids {
            let spell = |ids: &[u32]| -> Vec<String> {
                let ids = ids.iter().take(40);
                ids.map(|id| tokenizer.id_to_token(*id).unwrap_or_default())
                    .collect()
            };
            differ(
                "ids",
                format!("{:?}\n    expected {:?}", spell(&ours.ids), spell(&row.ids)),
            );
        }
        if tokenizer.encode(&row.text).unwrap() != ours.ids {
            differ("ids with and without offsets", String::new());
        }
        let ours: Vec<(usize, usize)> = ours
            .offsets
            .iter()
            .map(|range| (range.start, range.end))
            .collect();
        if ours
            .iter()
            .any(|&(start, end)| row.text.get(start..end).is_none())
        {
            differ("offsets are not in the text", format!("{ours:?}"));
        }
        if row.offsets.as_ref().is_some_and(|offsets| *offsets != ours) {
            differ(
                "offsets",
                format!("{ours:?}\n    expected {:?}", row.offsets),
            );
        }
        if let Some(decoded) = row.decoded {
            let ours = tokenizer.decode(&row.ids).unwrap();
            if ours != decoded {
                differ("decoding", format!("{ours:?}\n    expected {decoded:?}"));
            }
        }
    }
    found.extend(
        counts
            .iter()
            .map(|(sort, count)| format!("{count} differ in {sort}")),
    );
    (found, rows.lines().count())
}

fn cases(folder: &Path) -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = fs_err::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("case.json").is_file())
        .collect();
    cases.sort();
    cases
}

fn check(folder: &Path) {
    let mut all = String::new();
    let mut total = 0;
    let cases = cases(folder);
    assert!(!cases.is_empty(), "no cases in {}", folder.display());
    for case in &cases {
        let (found, count) = differences(case);
        total += count;
        let name = case.file_name().unwrap().display();
        println!("{name}: {count} texts, {} differences", found.len());
        for difference in found {
            writeln!(all, "{name}: {difference}").unwrap();
        }
    }
    println!("{} tokenizers, {total} texts", cases.len());
    assert!(all.is_empty(), "{all}");
}

#[test]
fn tokenizers_equal_the_reference_token_for_token() {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/tokenize"));
}

#[test]
fn tokenizers_equal_the_reference_on_the_large_set() {
    match ptune::sys::env_vars::get("PTUNE_TOKENIZE_CORPUS") {
        Some(folder) => check(Path::new(&folder)),
        None => println!("skipped: PTUNE_TOKENIZE_CORPUS names no folder"),
    }
}
