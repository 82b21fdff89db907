//! `ptune export`, `ptune import` and `ptune prompt`, as whole commands.

use candle_core::{Device, Tensor};
use indexmap::IndexMap;
use ptune::export::nemo::PromptArchive;
use ptune::schema::{PromptLearningModel, TaskTemplateSection};
use ptune::tensors::nemo::NemoArchive;
use ptune::tensors::torch::StateValue;

use crate::sandbox::Sandbox;

/// An archive of the given tasks, each with its template and the first value of its 2 x 4 virtual tokens.
fn write_archive(sandbox: &Sandbox, name: &str, tasks: &[(&str, &str, f32)]) {
    let rows: Vec<(&str, Tensor)> = tasks
        .iter()
        .map(|(task, _, first)| {
            let row = Tensor::arange(*first, first + 8.0, &Device::Cpu).unwrap();
            (*task, row.reshape((2, 4)).unwrap())
        })
        .collect();
    let model = PromptLearningModel {
        language_model_path: "models/base".into(),
        task_templates: tasks
            .iter()
            .map(|(task, template, _)| TaskTemplateSection {
                taskname: (*task).to_owned(),
                prompt_template: (*template).to_owned(),
                total_virtual_tokens: 2,
                virtual_token_splits: if template.contains("VIRTUAL_PROMPT_1") {
                    vec![1, 1]
                } else {
                    vec![2]
                },
                answer_field: Some("answer".into()),
                ..TaskTemplateSection::default()
            })
            .collect(),
        ..PromptLearningModel::default()
    };
    let named = rows.iter().map(|(task, rows)| (*task, rows));
    PromptArchive::new(model, "32", named, true)
        .unwrap()
        .write(&sandbox.path(name))
        .unwrap();
}

const IN_FRONT: &str = "<|VIRTUAL_PROMPT_0|>{question} {answer}";
const SPLIT: &str = "<|VIRTUAL_PROMPT_0|>{question}<|VIRTUAL_PROMPT_1|> {answer}";

pub(crate) fn hashes(sandbox: &Sandbox, archive: &str) -> Vec<(String, String)> {
    let listed = sandbox.expect(&["prompt", "list", archive, "--json"], 0);
    let tasks: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
    tasks
        .as_array()
        .unwrap()
        .iter()
        .map(|task| {
            (
                task["task"].as_str().unwrap().to_owned(),
                task["sha256"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

#[test]
fn virtual_tokens_keep_their_bytes_through_every_form_and_back() {
    let sandbox = Sandbox::new();
    write_archive(&sandbox, "p.nemo", &[("squad", IN_FRONT, 0.5)]);
    let before = hashes(&sandbox, "p.nemo");
    for form in ["peft", "npy", "prompt-embeds"] {
        let out = format!("out-{form}");
        let ran = sandbox.expect(
            &["export", "p.nemo", "--to", form, "-o", &out, "--verify"],
            0,
        );
        assert!(ran.stdout.contains("read back: equal"), "{}", ran.stdout);
        let back = format!("{form}.nemo");
        let mut words = vec![
            "import",
            &out,
            "-o",
            &back,
            "--task",
            "squad",
            "--template",
            IN_FRONT,
        ];
        if form != "peft" {
            let asked = sandbox.expect(&words, 2);
            assert!(
                asked.stderr.contains("--architecture t5"),
                "{}",
                asked.stderr
            );
            words.extend(["--architecture", "t5"]);
        }
        sandbox.expect(&words, 0);
        assert_eq!(hashes(&sandbox, &back), before, "{form}");
    }
    let config = sandbox.read("out-peft/adapter_config.json");
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["task_type"], "SEQ_2_SEQ_LM");
    assert_eq!(config["base_model_name_or_path"], "models/base");
    assert_eq!(config["num_virtual_tokens"], 2);
    assert_eq!(config["token_dim"], 4);
}

#[test]
fn a_template_that_splits_its_virtual_tokens_goes_to_tensorrt_llm_alone() {
    let sandbox = Sandbox::new();
    write_archive(
        &sandbox,
        "p.nemo",
        &[("a", SPLIT, 0.0), ("b", IN_FRONT, 100.0)],
    );
    for form in ["peft", "npy", "prompt-embeds"] {
        let ran = sandbox.expect(
            &["export", "p.nemo", "--to", form, "-o", "x", "--task", "a"],
            2,
        );
        assert!(
            ran.stderr.contains("in front of the text"),
            "{}",
            ran.stderr
        );
        assert!(!sandbox.path("x").exists(), "{form}");
    }
    let several = sandbox.expect(&["export", "p.nemo", "--to", "npy", "-o", "x"], 2);
    assert!(several.stderr.contains("--task a"), "{}", several.stderr);
    sandbox.expect(
        &[
            "export",
            "p.nemo",
            "--to",
            "trt-llm",
            "-o",
            "table.npy",
            "--verify",
        ],
        0,
    );
    let map: serde_json::Value = serde_json::from_str(&sandbox.read("table.json")).unwrap();
    assert_eq!(map["task_vocab_size"], 2);
    assert_eq!(map["tasks"]["b"]["task_id"], 1);
    assert_eq!(
        map["tasks"]["a"]["virtual_token_splits"],
        serde_json::json!([1, 1])
    );
}

#[test]
fn tasks_are_renamed_removed_and_merged_without_a_change_to_their_virtual_tokens() {
    let sandbox = Sandbox::new();
    write_archive(
        &sandbox,
        "one.nemo",
        &[("a", IN_FRONT, 0.0), ("b", SPLIT, 10.0)],
    );
    write_archive(&sandbox, "two.nemo", &[("a", IN_FRONT, 20.0)]);
    let one = hashes(&sandbox, "one.nemo");
    let clash = sandbox.expect(
        &["prompt", "merge", "one.nemo", "two.nemo", "-o", "both.nemo"],
        2,
    );
    assert!(
        clash.stderr.contains("ptune prompt rename two.nemo a a_2"),
        "{}",
        clash.stderr
    );
    sandbox.expect(&["prompt", "rename", "two.nemo", "a", "c"], 0);
    sandbox.expect(
        &["prompt", "merge", "one.nemo", "two.nemo", "-o", "both.nemo"],
        0,
    );
    let both = hashes(&sandbox, "both.nemo");
    assert_eq!(both[..2], one[..]);
    assert_eq!(both[2], hashes(&sandbox, "two.nemo")[0]);
    sandbox.expect(&["prompt", "remove", "both.nemo", "a", "c"], 0);
    assert_eq!(hashes(&sandbox, "both.nemo"), one[1..]);
    let unknown = sandbox.expect(&["prompt", "remove", "both.nemo", "bb"], 2);
    assert!(
        unknown.stderr.contains("did you mean `b`?"),
        "{}",
        unknown.stderr
    );
}

#[test]
fn what_is_no_prompt_file_is_named_for_what_it_is() {
    let sandbox = Sandbox::new();
    sandbox.write("text.npy", "hello");
    sandbox.write("cut.npy", b"\x93NUMPY\x01\x00\xff\xff{");
    sandbox.write(
        "lora/adapter_config.json",
        r#"{"peft_type": "LORA", "task_type": "CAUSAL_LM"}"#,
    );
    for (path, status, said) in [
        ("absent.npy", 2, "absent.npy"),
        ("text.npy", 2, "not a prompt file"),
        ("cut.npy", 1, "cut short"),
        ("lora", 1, "LORA"),
    ] {
        let words = [
            "import",
            path,
            "-o",
            "p.nemo",
            "--task",
            "t",
            "--template",
            IN_FRONT,
        ];
        let ran = sandbox.expect(&words, status);
        assert!(ran.stderr.contains(said), "{path}: {}", ran.stderr);
        assert!(!sandbox.path("p.nemo").exists());
    }
}

fn keys(value: &StateValue) -> Vec<&str> {
    let entries = value.as_dict().into_iter().flatten();
    entries.map(|(key, _)| key.as_str()).collect()
}

#[test]
fn both_generations_of_nemo_hold_a_task_with_the_same_bytes() {
    let sandbox = Sandbox::new();
    // Virtual tokens in the middle are no hindrance in NeMo.
    write_archive(
        &sandbox,
        "a.nemo",
        &[("squad", SPLIT, 0.5), ("boolq", IN_FRONT, 9.0)],
    );
    let before = hashes(&sandbox, "a.nemo");
    let words = |from, form, to| {
        let words = ["export", from, "--to", form, "-o", to, "--task", "squad"];
        sandbox.expect(&[&words[..], &["--verify"]].concat(), 0)
    };
    let ran = words("a.nemo", "nemo-b", "b.nemo");
    assert!(ran.stdout.contains("read back: equal"), "{}", ran.stdout);
    words("b.nemo", "nemo", "again.nemo");
    words("b.nemo", "nemo-b", "b_again.nemo");
    for path in ["b.nemo", "again.nemo", "b_again.nemo"] {
        assert_eq!(hashes(&sandbox, path), before[..1], "{path}");
    }
    let bytes = |path| fs_err::read(sandbox.path(path)).unwrap();
    assert!(bytes("b.nemo") == bytes("b_again.nemo"));
    sandbox.expect(&["export", "a.nemo", "--to", "nemo", "-o", "all.nemo"], 0);
    assert_eq!(hashes(&sandbox, "all.nemo"), before);

    let archive = NemoArchive::open(&sandbox.path("b.nemo")).unwrap();
    assert_eq!(keys(&archive.weights), ["prompt_table", "embeddings"]);
    let table = archive.weights.get("prompt_table").unwrap();
    assert_eq!(keys(table), ["prompt_table.squad.prompt_embeddings.weight"]);
    let embeddings = archive.weights.get("embeddings").unwrap();
    assert_eq!(keys(embeddings), ["weight"]);
    let weight = embeddings.get("weight").unwrap().as_tensor().unwrap();
    assert_eq!(weight.dims(), [2, 4]);
    let config: serde_yaml::Value = serde_yaml::from_str(&archive.model_config).unwrap();
    assert_eq!(config["virtual_prompt_style"], "p-tuning");
    assert_eq!(config["new_tasks"][0], "squad");
    assert_eq!(
        config["existing_tasks"],
        serde_yaml::Value::Sequence(vec![])
    );
    assert_eq!(config["p_tuning"]["encoder_type"], "embedding");
    assert_eq!(config["task_templates"].as_sequence().unwrap().len(), 1);
    assert_eq!(config["nemo_version"], "1.20.0");

    for (words, said) in [
        (&["--to", "nemo-b", "-o", "x.nemo"][..], "--task squad"),
        (&["--to", "nemo", "-o", "x"], "--output x.nemo"),
        (
            &["--to", "nemo", "-o", "x.nemo", "--dtype", "bf16"],
            "--dtype f32",
        ),
    ] {
        let ran = sandbox.expect(&[&["export", "a.nemo"], words].concat(), 2);
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    }
    let words = ["-o", "i.nemo", "--task", "qa", "--template", IN_FRONT];
    let several = sandbox.expect(&[&["import", "a.nemo"], &words[..]].concat(), 2);
    assert!(several.stderr.contains("--to nemo"), "{}", several.stderr);
    sandbox.expect(&[&["import", "b.nemo"], &words[..]].concat(), 0);
    assert_eq!(hashes(&sandbox, "i.nemo")[0].1, before[0].1);
}

/// An archive as NeMo 1.17 and later writes it: one linear layer and another behind ReLU, all weights `weight`.
fn write_generation_b(sandbox: &Sandbox, name: &str, row: &Tensor, config: &str) {
    let tensor = |shape: &[usize], value: f32| {
        StateValue::Tensor(Tensor::full(value, shape, &Device::Cpu).unwrap())
    };
    let dict = |entries: Vec<(&str, StateValue)>| {
        let entries = entries.into_iter();
        StateValue::Dict(
            entries
                .map(|(key, value)| (key.to_owned(), value))
                .collect::<IndexMap<_, _>>(),
        )
    };
    let row = StateValue::Tensor(row.clone());
    let table = dict(vec![("prompt_table.qa.prompt_embeddings.weight", row)]);
    let head = dict(vec![
        ("0.weight", tensor(&[3, 4], 0.5)),
        ("0.bias", tensor(&[3], 1.0)),
        ("2.weight", tensor(&[4, 3], 2.0)),
        ("2.bias", tensor(&[4], 0.25)),
    ]);
    let weights = dict(vec![
        ("prompt_table", table),
        ("embeddings", dict(vec![("weight", tensor(&[2, 4], 1.0))])),
        ("mlp_head", head),
    ]);
    let model_config = config.to_owned();
    let archive = NemoArchive {
        model_config,
        weights,
    };
    archive.write(&sandbox.path(name)).unwrap();
}

#[test]
fn an_encoder_of_generation_b_gives_the_rows_that_nemo_left_at_zero_and_goes_along() {
    let config = |encoder| {
        format!(
            "target: nemo.x.MegatronGPTPromptLearningModel\nvirtual_prompt_style: p-tuning\nnew_tasks: [qa]\n\
             p_tuning: {{encoder_type: {encoder}, num_layers: 2}}\ntask_templates:\n- taskname: qa\n  \
             prompt_template: '{IN_FRONT}'\n  total_virtual_tokens: 2\n  virtual_token_splits: [2]\n"
        )
    };
    let sandbox = Sandbox::new();
    let zeros = Tensor::zeros((2, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
    write_generation_b(&sandbox, "zeros.nemo", &zeros, &config("mlp"));
    // 4 * 0.5 + 1 in each of 3 units, 3 * 3 * 2 + 0.25 behind them.
    let rows = Tensor::full(18.25f32, (2, 4), &Device::Cpu).unwrap();
    write_generation_b(&sandbox, "rows.nemo", &rows, &config("mlp"));
    let expected = hashes(&sandbox, "rows.nemo");
    assert_eq!(hashes(&sandbox, "zeros.nemo"), expected);
    write_generation_b(&sandbox, "other.nemo", &zeros, &config("tpmlp"));
    let ran = sandbox.expect(&["prompt", "list", "other.nemo"], 1);
    assert!(ran.stderr.contains("all zero"), "{}", ran.stderr);

    let trained = (&rows + 1.0).unwrap();
    write_generation_b(&sandbox, "further.nemo", &trained, &config("mlp"));
    for (from, modules) in [
        (
            "zeros.nemo",
            &["prompt_table", "embeddings", "mlp_head"][..],
        ),
        ("rows.nemo", &["prompt_table", "embeddings", "mlp_head"]),
        // Not what this encoder gives: only the rows can go along.
        ("further.nemo", &["prompt_table", "embeddings"]),
    ] {
        let words = [
            "export", from, "--to", "nemo-b", "-o", "out.nemo", "--verify",
        ];
        sandbox.expect(&words, 0);
        let archive = NemoArchive::open(&sandbox.path("out.nemo")).unwrap();
        assert_eq!(keys(&archive.weights), modules, "{from}");
    }
}
