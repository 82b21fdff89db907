//! `ptune --config-name=quickstart`, whole: the promise of the README's first command.

use crate::sandbox::Sandbox;

#[test]
fn the_quickstart_answers_unseen_questions_with_its_virtual_tokens_and_not_without() {
    let sandbox = Sandbox::new();
    let ran = sandbox.expect(&["--config-name=quickstart", "base_results_dir=results"], 0);
    let metrics: serde_json::Value =
        serde_json::from_str(&sandbox.read("results/quickstart/evaluation/results/metrics.json"))
            .unwrap();
    let with = metrics["exact_match"].as_f64().unwrap();
    let without = metrics["without_virtual_tokens"]["exact_match"]
        .as_f64()
        .unwrap();
    assert!(with >= 80.0, "exact match with virtual tokens: {with}");
    assert!(
        without <= 40.0,
        "exact match without virtual tokens: {without}"
    );
    assert_eq!(metrics["count"], 200);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    for artifact in [
        "quickstart_prompt.nemo",
        "metrics.jsonl",
        "predictions.jsonl",
        "metrics.json",
    ] {
        assert!(
            said.contains(artifact),
            "the end does not say where {artifact} is:\n{said}"
        );
    }
    assert!(
        said.contains("next:"),
        "the end does not say what to type next:\n{said}"
    );
}

#[test]
fn a_builtin_that_does_not_exist_is_named_with_those_that_do() {
    let sandbox = Sandbox::new();
    let ran = sandbox.ptune(&[
        "--config-name=quickstart",
        "base_results_dir=results",
        "prompt_learning.model.data.train_ds=[builtin:quickstart/trian.jsonl]",
    ]);
    assert_eq!(ran.status, Some(2), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("builtin:quickstart/train.jsonl"),
        "{}",
        ran.stderr
    );
}
