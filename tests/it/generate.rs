//! `ptune generate`, as a whole command, on tiny random models.

use std::io::Write;
use std::process::Stdio;

use candle_core::{Device, Tensor};
use ptune::export::nemo::PromptArchive;
use ptune::schema::{PromptLearningModel, TaskTemplateSection};
use ptune::sys::rng::SeededRng;

use crate::sandbox::Sandbox;
use crate::tiny_models::{tiny_gpt2, tiny_t5};

const HIDDEN: usize = 16;
const VIRTUAL: usize = 3;

/// A model and an archive of these tasks for it, with random virtual tokens.
fn prepared(tasks: &[&str], t5: bool) -> Sandbox {
    let sandbox = Sandbox::new();
    let model = if t5 {
        tiny_t5(&sandbox.path("model"))
    } else {
        tiny_gpt2(&sandbox.path("model"))
    };
    let mut rng = SeededRng::new(11, 0);
    let rows: Vec<(&str, Tensor)> = tasks
        .iter()
        .map(|task| {
            let numbers = rng.normals(VIRTUAL * HIDDEN, 0.7);
            let rows = Tensor::from_vec(numbers, (VIRTUAL, HIDDEN), &Device::Cpu).unwrap();
            (*task, rows)
        })
        .collect();
    let section = |task: &&str| TaskTemplateSection {
        taskname: (*task).to_owned(),
        prompt_template: "<|VIRTUAL_PROMPT_0|>{context} <|VIRTUAL_PROMPT_1|>{question} {answer}"
            .into(),
        total_virtual_tokens: VIRTUAL,
        virtual_token_splits: vec![2, 1],
        answer_field: Some("answer".into()),
        truncate_field: Some("context".into()),
        ..TaskTemplateSection::default()
    };
    let settings = PromptLearningModel {
        language_model_path: model,
        task_templates: tasks.iter().map(section).collect(),
        ..PromptLearningModel::default()
    };
    let named = rows.iter().map(|(task, rows)| (*task, rows));
    PromptArchive::new(settings, "32", named, t5)
        .unwrap()
        .write(&sandbox.path("tuning/results/prompt.nemo"))
        .unwrap();
    sandbox
}

#[test]
fn one_question_a_file_and_a_pipe_give_the_same_answers() {
    for t5 in [false, true] {
        let sandbox = prepared(&["squad"], t5);
        let prompt = "tuning/results/prompt.nemo";
        let words = ["context=a house", "question=what?"];
        let one = |more: &[&str]| {
            let line = [
                &["generate", prompt][..],
                &words,
                &["--max-tokens", "9"],
                more,
            ]
            .concat();
            sandbox.expect(&line, 0).stdout
        };
        let answer = one(&[]);
        assert_eq!(answer.lines().count(), 1, "{answer:?}");
        assert!(!answer.trim().is_empty());
        assert_eq!(one(&["--stream"]).trim_end(), answer.trim_end());
        assert_ne!(
            one(&["--json", "--logprob"]),
            one(&["--json", "--logprob", "--no-virtual-tokens"])
        );

        // A file of rows, of which none has to name the only task; from the folder of the tuning.
        let row = "{\"context\":\"a house\",\"question\":\"what?\"}\n";
        let other = "{\"context\":\"b\",\"question\":\"q\",\"taskname\":\"squad\"}\n";
        sandbox.write("rows.jsonl", format!("{other}{row}"));
        sandbox.expect(
            &[
                "generate",
                "tuning",
                "-i",
                "rows.jsonl",
                "-o",
                "out.jsonl",
                "--max-tokens",
                "9",
            ],
            0,
        );
        let lines: Vec<serde_json::Value> = sandbox
            .read("out.jsonl")
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["question"], "what?");
        assert_eq!(lines[1]["prediction"], answer.trim_end());

        let mut child = sandbox
            .command(&["generate", prompt, "--input", "-", "--max-tokens", "9"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(row.as_bytes()).unwrap();
        drop(stdin);
        let ran = sandbox.ran(child.wait_with_output().unwrap());
        assert_eq!((ran.status, &ran.stdout), (Some(0), &answer));
    }
}

#[test]
fn an_adapter_of_peft_answers_with_a_template_or_bare_text() {
    let sandbox = prepared(&["squad"], false);
    // PEFT knows virtual tokens in front alone.
    let settings = PromptArchive::open(&sandbox.path("tuning/results/prompt.nemo")).unwrap();
    let sections = vec![TaskTemplateSection {
        taskname: "squad".into(),
        prompt_template: "<|VIRTUAL_PROMPT_0|>{text}".into(),
        total_virtual_tokens: VIRTUAL,
        virtual_token_splits: vec![VIRTUAL],
        ..TaskTemplateSection::default()
    }];
    let front = settings
        .with_tasks(settings.tasks.clone(), sections)
        .unwrap();
    front.write(&sandbox.path("front.nemo")).unwrap();
    sandbox.expect(
        &[
            "export",
            "front.nemo",
            "--to",
            "peft",
            "-o",
            "adapter",
            "--base-model",
            "some/name",
        ],
        0,
    );
    let nemo = sandbox.expect(&["generate", "front.nemo", "hello there"], 0);
    let peft = sandbox.expect(&["generate", "adapter", "hello there", "-m", "model"], 0);
    assert_eq!(peft.stdout, nemo.stdout);
    let templated = sandbox.expect(
        &[
            "generate",
            "adapter",
            "who=there",
            "-m",
            "model",
            "--template",
            "<|VIRTUAL_PROMPT_0|>hello {who}",
        ],
        0,
    );
    assert_eq!(templated.stdout, nemo.stdout);
    sandbox.write(
        "answered.jsonl",
        r#"{"who": "there", "answer": "this is not for the model to see"}"#,
    );
    let answered = sandbox.expect(
        &[
            "generate",
            "adapter",
            "--input",
            "answered.jsonl",
            "-m",
            "model",
            "--template",
            "<|VIRTUAL_PROMPT_0|>hello {who} {answer}",
        ],
        0,
    );
    assert_eq!(answered.stdout, nemo.stdout);
    let missing = sandbox.expect(&["generate", "adapter", "hello"], 2).stderr;
    assert!(
        missing.contains("some/name") && missing.contains("--model FOLDER"),
        "{missing}"
    );
}

#[test]
fn what_does_not_fit_is_told_with_what_would() {
    let sandbox = prepared(&["squad", "boolq"], false);
    let prompt = "tuning/results/prompt.nemo";
    sandbox.write("rows.jsonl", "{\"taskname\":\"squad\",\"context\":\"c\",\"question\":\"q\"}\n{\"taskname\":\"squad\",\"contxt\":\"c\"}\n");
    for (line, told) in [
        (
            &[][..],
            &[
                "there is no question",
                "task `boolq` has the fields context, question",
                "context=\"…\"",
            ][..],
        ),
        (&["question=q"], &["several tasks", "--task squad"]),
        (
            &["--task", "squat", "question=q"],
            &["no task `squat`", "--task squad"],
        ),
        (
            &["--task", "squad", "question=q"],
            &[
                "also needs `context`",
                "--task squad context=\"…\" question=\"…\"",
            ],
        ),
        (
            &["--task", "squad", "qestion=q"],
            &["no field `qestion`", "did you mean `question=…`?"],
        ),
        (
            &[
                "--task",
                "squad",
                "context=c",
                "question=q",
                "--model",
                "nowhere",
            ],
            &["the base model is not at nowhere", "--model FOLDER"],
        ),
        (
            &[
                "--task",
                "squad",
                "context=c",
                "question=q",
                "--temperature",
                "0",
            ],
            &["temperature", "must be above 0"],
        ),
        (&["question=q", "--input", "rows.jsonl"], &["not both"]),
        (&["--input", "none.jsonl"], &["none.jsonl"]),
    ] {
        let stderr = sandbox
            .expect(&[&["generate", prompt][..], line].concat(), 2)
            .stderr;
        for text in told {
            assert!(stderr.contains(text), "{line:?}: {stderr}");
        }
    }
    // A row is told with the user's file, not with our copy.
    let stderr = sandbox
        .ptune(&["generate", prompt, "-i", "rows.jsonl"])
        .stderr;
    assert!(
        stderr.contains("rows.jsonl:2") && !stderr.contains("questions.jsonl"),
        "{stderr}"
    );
    let stderr = sandbox.expect(&["generate", "model", "x"], 2).stderr;
    assert!(stderr.contains("no prompt archive in model"), "{stderr}");
}

#[test]
fn settings_that_do_not_go_together_are_told_by_the_names_of_their_options() {
    let sandbox = Sandbox::new();
    let words = [
        "--num-beams",
        "2",
        "--temperature",
        "0",
        "--max-tokens",
        "0",
    ];
    let ran = sandbox.expect(&[&["generate", "p.nemo", "text=a"], &words[..]].concat(), 2);
    for option in ["`--num-beams`", "`--temperature`", "`--max-tokens`"] {
        assert!(ran.stderr.contains(option), "{}", ran.stderr);
    }
    assert!(!ran.stderr.contains("greedy"), "{}", ran.stderr);
}
