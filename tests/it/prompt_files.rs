//! `ptune export`, `ptune import` and `ptune prompt`, as whole commands.

use candle_core::{Device, Tensor};
use ptune::export::nemo::PromptArchive;
use ptune::schema::{PromptLearningModel, TaskTemplateSection};

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
