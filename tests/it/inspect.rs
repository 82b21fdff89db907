//! `ptune inspect`: every kind of file and folder, and what it says of damaged ones.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use indexmap::IndexMap;
use ptune::inspect::{Options, inspect};
use ptune::tensors::nemo::NemoArchive;
use ptune::tensors::torch::{self, StateValue};
use serde_json::{Value, json};

use crate::sandbox::Sandbox;
use crate::tiny_models;

fn fixtures(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name)
}

fn json_of(sandbox: &Sandbox, words: &[&str]) -> Value {
    let words = [&["inspect", "--json"], words].concat();
    serde_json::from_str(&sandbox.expect(&words, 0).stdout).unwrap()
}

fn numbers(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

/// A prompt archive with one task of two tokens, of width two.
fn prompt_archive(path: &Path) {
    let rows = StateValue::Tensor(numbers(&[1.0, 2.0, 3.0, 4.0], &[2, 2]));
    let name = "prompt_table.squad.prompt_embeddings.weight".to_owned();
    let table = StateValue::Dict(IndexMap::from([(name, rows)]));
    NemoArchive {
        model_config: "\
language_model_path: /models/base.nemo
virtual_prompt_style: inference
existing_tasks: [squad, lost]
task_templates:
- taskname: squad
  prompt_template: '<|VIRTUAL_PROMPT_0|> {question} {answer}'
  total_virtual_tokens: 2
  virtual_token_splits: [2]
  truncate_field: question
  answer_field: answer
nemo_version: 1.16.0
target: nemo.x.MegatronT5PromptLearningModel
"
        .into(),
        weights: StateValue::Dict(IndexMap::from([("prompt_table".into(), table)])),
    }
    .write(path)
    .unwrap();
}

#[test]
fn a_partitioned_base_model_is_told_whole() {
    let sandbox = Sandbox::new();
    let path = fixtures("golden/fixtures/nemo_gpt_core_groups_tp2_pp2/model.nemo");
    let path = path.to_str().unwrap();
    let report = json_of(&sandbox, &[path, "--tensors"]);
    assert_eq!(report["kind"], "NeMo base model");
    assert_eq!(report["container"], "tar");
    assert_eq!(report["partition"], json!({"tensor": 2, "pipeline": 2}));
    let model = &report["architecture"];
    assert_eq!(model["layout"], "NeMo GPT on megatron-core");
    assert_eq!(
        (&model["layers"], &model["key_value_heads"]),
        (&json!(2), &json!(2))
    );
    // Shapes are those of whole tensors, and the numbers add up to them.
    let tensors = report["tensors"].as_array().unwrap();
    let embedding = tensors
        .iter()
        .find(|tensor| tensor["name"] == "model.embedding.word_embeddings.weight")
        .unwrap();
    assert_eq!(
        embedding["shape"],
        json!([model["vocabulary"], model["hidden_size"]])
    );
    let sum: u64 = tensors
        .iter()
        .map(|tensor| {
            let shape = tensor["shape"].as_array().unwrap();
            shape
                .iter()
                .map(|size| size.as_u64().unwrap())
                .product::<u64>()
        })
        .sum();
    assert_eq!(report["parameters"], json!(sum));
    let text = sandbox.expect(&["inspect", path], 0).stdout;
    assert!(text.contains("tensor 2 x pipeline 2"), "{text}");
    assert!(!text.contains("word_embeddings"), "{text}");
}

#[test]
fn a_distributed_checkpoint_is_told_with_its_format_and_every_layer_of_its_own() {
    let sandbox = Sandbox::new();
    let of = |path: PathBuf| json_of(&sandbox, &[path.to_str().unwrap(), "--tensors", "--hash"]);
    let found = of(fixtures("cases/distributed/stacked.nemo"));
    let ranks = of(fixtures(
        "golden/fixtures/nemo_gpt_core_groups_tp2_pp2/model.nemo",
    ));
    assert_eq!(found["kind"], "NeMo base model");
    assert_eq!(
        found["about"]["weights"],
        "distributed checkpoint, `torch_dist`"
    );
    assert_eq!(found.get("partition"), None);
    assert_eq!(found["architecture"], ranks["architecture"]);
    // The last rank's copy of the table is no tensor of the model.
    let mut expected = ranks["tensors"].as_array().unwrap().clone();
    expected.retain(|tensor| tensor["name"] != "model.word_embeddings.weight");
    assert_eq!(found["tensors"], json!(expected));
    assert_eq!(
        found["tensors"],
        of(fixtures("cases/distributed/whole.nemo"))["tensors"]
    );
}

#[test]
fn a_hugging_face_folder_is_told_with_its_tokenizer_and_without_weights_says_so() {
    let sandbox = Sandbox::new();
    let folder = tiny_models::tiny_t5(&sandbox.path("t5"));
    let report = json_of(&sandbox, &[folder.to_str().unwrap()]);
    assert_eq!(report["kind"], "Hugging Face model");
    assert_eq!(report["architecture"]["model"], "T5");
    assert_eq!(report["dtypes"][0]["dtype"], "f32");
    assert!(
        report["tokenizer"]["tokens"].as_u64().unwrap() >= 256,
        "{report}"
    );
    assert_eq!(report.get("notes"), None, "{report}");

    fs_err::remove_file(folder.join("model.safetensors")).unwrap();
    fs_err::write(folder.join("pytorch_model.bin"), "").unwrap();
    fs_err::write(folder.join("config.json"), r#"{"model_type": "falcon"}"#).unwrap();
    let text = sandbox
        .expect(&["inspect", folder.to_str().unwrap()], 0)
        .stdout;
    assert!(
        text.contains("`pytorch_model.bin`, which is not read"),
        "{text}"
    );
    assert!(text.contains("unknown `model_type`: `falcon`"), "{text}");
}

#[test]
fn prompts_are_told_by_task_with_what_is_missing() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("prompt.nemo");
    prompt_archive(&path);
    let report = json_of(&sandbox, &["prompt.nemo", "--hash"]);
    assert_eq!(report["kind"], "NeMo prompts");
    assert_eq!(report["about"]["base model"], "/models/base.nemo");
    let task = &report["tasks"][0];
    assert_eq!(task["name"], "squad");
    assert_eq!(
        (&task["virtual_tokens"], &task["hidden_size"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(task["answer_field"], "answer");
    // hashlib.sha256(struct.pack("<4f", 1, 2, 3, 4)).hexdigest()
    assert_eq!(
        task["sha256"],
        "ad73b9acd6e4a74b2f5bb5386658ce3bb146cd040a1867646ab3b973fb6632b1"
    );
    assert_eq!(
        report["notes"],
        json!(["task `lost` has no table of virtual tokens"])
    );
    let files: Vec<&str> = report["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        files,
        ["prompt.nemo", "model_config.yaml", "model_weights.ckpt"]
    );
    let text = sandbox.expect(&["inspect", "prompt.nemo"], 0).stdout;
    assert!(text.contains("2 virtual tokens, hidden size 2"), "{text}");
    assert!(
        text.contains("<|VIRTUAL_PROMPT_0|> {question} {answer}"),
        "{text}"
    );
}

#[test]
fn the_same_archive_zipped_and_unpacked_is_told_the_same() {
    let sandbox = Sandbox::new();
    let plain = sandbox.path("prompt.nemo");
    prompt_archive(&plain);
    let bytes = fs_err::read(&plain).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &bytes).unwrap();
    sandbox.write("zipped.nemo", encoder.finish().unwrap());
    tar::Archive::new(bytes.as_slice())
        .unpack(sandbox.path("unpacked"))
        .unwrap();
    let plain = json_of(&sandbox, &["prompt.nemo"]);
    for (name, container) in [("zipped.nemo", "tar.gz"), ("unpacked", "folder")] {
        let other = json_of(&sandbox, &[name]);
        assert_eq!(other["container"], container);
        assert_eq!(other["tasks"], plain["tasks"]);
        assert_eq!(other["files"], plain["files"]);
    }
}

#[test]
fn single_files_are_told_by_their_content() {
    let sandbox = Sandbox::new();
    let tensor = numbers(&[0.5; 6], &[2, 3]);
    let state = StateValue::Dict(IndexMap::from([(
        "w".into(),
        StateValue::Tensor(tensor.clone()),
    )]));
    sandbox.write("a.ckpt", torch::write(&state).unwrap());
    tensor
        .save_safetensors("prompt_embeddings", sandbox.path("b"))
        .unwrap();
    tensor.write_npy(sandbox.path("c.npy")).unwrap();
    for (name, kind) in [
        ("a.ckpt", "torch checkpoint"),
        ("b", "PEFT prompt"),
        ("c.npy", "NumPy file"),
    ] {
        let report = json_of(&sandbox, &[name]);
        assert_eq!(report["kind"], kind);
        assert_eq!(report["parameters"], 6);
    }
    let tokenizer = fixtures("cases/tokenize/nemo_t5/0123_tokenizer.model");
    let report = json_of(&sandbox, &[tokenizer.to_str().unwrap()]);
    assert_eq!(report["tokenizer"]["kind"], "sentencepiece (unigram)");
}

#[test]
fn what_is_not_there_or_of_no_kind_is_refused_with_what_would_do() {
    let sandbox = Sandbox::new();
    let missing = sandbox.expect(&["inspect", "nothing.nemo"], 2);
    assert!(
        missing.stderr.contains("there is nothing at nothing.nemo"),
        "{}",
        missing.stderr
    );
    sandbox.write("folder/readme.txt", "hello");
    for name in ["folder", "folder/readme.txt"] {
        let ran = sandbox.expect(&["inspect", name], 1);
        assert!(
            ran.stderr.contains("known are .nemo archives"),
            "{}",
            ran.stderr
        );
        assert!(ran.stdout.is_empty());
    }
    prompt_archive(&sandbox.path("prompt.nemo"));
    let bytes = fs_err::read(sandbox.path("prompt.nemo")).unwrap();
    for end in [0, 100, 600, bytes.len() / 2] {
        sandbox.write("cut.nemo", &bytes[..end]);
        let ran = sandbox.expect(&["inspect", "cut.nemo", "--tensors", "--hash"], 1);
        assert!(ran.stderr.contains("cut.nemo"), "{}", ran.stderr);
    }
}

#[test]
fn hostile_files_are_refused_or_told_and_never_followed() {
    // Nothing in these is wrong before numbers are read, or the wrong part is not looked at.
    let told = [
        "laughs.pt",
        "views.pt",
        "link.nemo",
        "sparse.nemo",
        "no_weights.nemo",
    ];
    for entry in fs_err::read_dir(fixtures("cases/hostile")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "make.py" {
            continue;
        }
        for tensors in [false, true] {
            let options = Options {
                tensors,
                hash: tensors,
            };
            match inspect(&path, options) {
                Err(error) => {
                    assert!(!told.contains(&name.as_str()), "{name}: {error:#}");
                    assert!(error.to_string().contains(&name), "{name}: {error:#}");
                }
                Ok(_) => assert!(told.contains(&name.as_str()), "{name} was told"),
            }
        }
    }
}
