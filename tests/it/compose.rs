//! Composition seen from outside: case folders with their expected text, and parsers that must never panic.
//!
//! A case is a folder with `conf/`, `cmd.txt` (name of the primary file, then one word a line; `--resolve` resolves)
//! and `expected.txt`. `PTUNE_BLESS=1` writes the expected texts anew; read the difference before committing it.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, not tests to the lint"
)]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use ptune::config::interpolation::grammar::{parse_element, parse_text};
use ptune::config::override_grammar::parse_override;
use ptune::config::{
    ComposeRequest, Config, ConfigPart, ConfigRepository, ConfigSource, ResolvedConfig, compose,
};
use ptune::diag::{Class, Diagnostic};
use ptune::yaml::{Node, Value, parse, to_yaml};
use serde::Deserialize;

fn cases(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cases")
        .join(kind);
    let mut cases: Vec<PathBuf> = fs_err::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

fn compose_in(folder: &Path, name: &str, words: &[&str]) -> Result<Config, Diagnostic> {
    let repository = ConfigRepository::new(vec![ConfigSource::Folder(folder.to_owned())]);
    let overrides: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    compose(&ComposeRequest {
        repository: &repository,
        config_name: Some(name),
        overrides: &overrides,
    })
}

fn run(case: &Path) -> Result<String, Diagnostic> {
    let command = fs_err::read_to_string(case.join("cmd.txt")).unwrap();
    let mut lines = command.lines();
    let name = lines.next().unwrap();
    let (flags, words): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with("--"));
    let config = compose_in(&case.join("conf"), name, &words)?;
    config.print(ConfigPart::Job, None, flags.contains(&"--resolve"))
}

fn check(case: &Path, found: &str) {
    let found = found.replace(&case.join("conf").display().to_string(), "conf");
    let expected = case.join("expected.txt");
    if ptune::sys::env_vars::get("PTUNE_BLESS").is_some() {
        fs_err::write(&expected, &found).unwrap();
    }
    let wanted = fs_err::read_to_string(&expected).unwrap_or_default();
    assert_eq!(found, wanted, "case {}", case.display());
}

#[test]
fn every_case_composes_to_its_expected_text() {
    for case in cases("compose") {
        check(&case, &run(&case).unwrap());
    }
}

#[test]
fn every_mistake_is_told_as_expected() {
    for case in cases("compose_errors") {
        let diagnostic = run(&case).unwrap_err();
        assert_eq!(diagnostic.class, Class::Configuration);
        check(&case, &format!("{diagnostic}\n"));
    }
}

fn temporary(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }
    folder
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Section {
    steps: u32,
    name: String,
}

#[test]
fn a_section_becomes_a_type_and_a_value_that_does_not_fit_is_shown_with_its_line() {
    let folder = temporary(&[("config.yaml", "run:\n  steps: ${n}\n  name: a\nn: 3\n")]);
    let section = |words: &[&str]| {
        compose_in(folder.path(), "config", words)
            .unwrap()
            .resolve()
            .unwrap()
            .extract::<Section>("run")
    };
    assert_eq!(
        section(&[]).unwrap(),
        Section {
            steps: 3,
            name: "a".to_owned()
        }
    );

    let wrong = section(&["run.steps=many"]).unwrap_err();
    assert!(wrong.title.starts_with("`run.steps`: "), "{wrong}");
    assert_eq!(wrong.locations[0].source, "<command line>");

    let unknown = section(&["+run.nam=b"]).unwrap_err();
    assert_eq!(unknown.hints, ["did you mean `name`?"]);

    let missing = section(&["run.steps=???", "run.name=???"]).unwrap_err();
    assert_eq!(missing.title, "2 values must be given");
    assert_eq!(
        missing.notes,
        [
            "`run.steps` is ???: <command line>:1:1",
            "`run.name` is ???: <command line>:1:15"
        ]
    );
}

#[test]
fn a_resolved_configuration_reads_back_equal_and_an_unresolved_file_is_refused() {
    let folder = temporary(&[(
        "config.yaml",
        "a: {b: '${c}', d: 'yes', e: 1e-5}\nc: [1, '2']\n",
    )]);
    let resolved = compose_in(folder.path(), "config", &[])
        .unwrap()
        .resolve()
        .unwrap();
    let text = resolved.to_yaml();
    let again = ResolvedConfig::from_text("job.yaml", &text).unwrap();
    assert_eq!(again.to_yaml(), text);
    assert_eq!(again.get_str("a.d"), Some("yes"));

    let refused = ResolvedConfig::from_text("job.yaml", "a: 1\nb: ${a}\n").unwrap_err();
    assert_eq!(refused.locations[0].to_string(), "job.yaml:2:4");
}

#[test]
fn the_life_of_a_value_is_told_from_its_first_file_to_the_last_word() {
    let folder = temporary(&[
        ("config.yaml", "defaults:\n- base\n- _self_\nlr: 2\n"),
        ("base.yaml", "lr: 1\n"),
    ]);
    let config = compose_in(folder.path(), "config", &["lr=3"]).unwrap();
    let explanation = config.explain("lr").unwrap();
    let told: Vec<(Option<&str>, bool)> = explanation
        .steps
        .iter()
        .map(|step| (step.value.as_deref(), step.replaced))
        .collect();
    assert_eq!(
        told,
        [(Some("1"), true), (Some("2"), true), (Some("3"), false)]
    );
    assert!(
        explanation.steps[1].place.ends_with("config.yaml:4"),
        "{explanation}"
    );
    assert_eq!(explanation.steps[2].place, "command line: lr=3");
    assert_eq!(
        config.explain("lrr").unwrap_err().hints,
        ["did you mean `lr`?"]
    );
}

#[test]
fn choices_are_visible_to_interpolations_and_to_the_program() {
    let folder = temporary(&[
        (
            "config.yaml",
            "defaults:\n- model: t5\nname: ${hydra:runtime.choices.model}_run\n",
        ),
        ("model/t5.yaml", "x: 1\n"),
        ("model/gpt3/squad.yaml", "x: 2\n"),
    ]);
    let config = compose_in(folder.path(), "config", &["model=gpt3/squad"]).unwrap();
    assert_eq!(config.choice("model"), Some("gpt3/squad"));
    assert_eq!(
        config.resolve().unwrap().get_str("name"),
        Some("gpt3/squad_run")
    );
}

/// Trees of values that a configuration can hold.
fn values() -> impl Strategy<Value = Node> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|value| Value::Int(value.into())),
        any::<f64>()
            .prop_filter("not a number equals nothing", |value| !value.is_nan())
            .prop_map(Value::Float),
        "[ -~\\n\\u{e9}\\u{1f600}]{0,100}".prop_map(Value::Str),
        "(yes|no|on|[0-9:_.e+-]{1,8}|~|null|0x1f|<<|=)".prop_map(Value::Str),
    ];
    scalar
        .prop_map(Node::computed)
        .prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5)
                    .prop_map(|items| Node::computed(Value::List(items))),
                prop::collection::vec(("[ -~]{0,12}", inner), 0..5).prop_map(|pairs| {
                    let pairs = pairs
                        .into_iter()
                        .map(|(key, node)| (key.as_str().into(), node));
                    Node::computed(Value::Map(pairs.collect()))
                }),
            ]
        })
}

proptest! {
    #[test]
    fn the_yaml_parser_never_panics(text in "[ \\n\\t\\-?:,\\[\\]{}#&*!|>'\"%@`a-c0-2~<=.\\\\$é]{0,60}") {
        let _ = parse(&text, ptune::diag::source::SourceId(0));
    }

    #[test]
    fn the_parsers_of_words_and_interpolations_never_panic(text in "[ \\t${}\\[\\](),:=.'\"\\\\a-c0-2~+@/é_e-]{0,40}") {
        let _ = parse_override(&text);
        let _ = parse_override(&format!("a={text}"));
        let _ = parse_text(&text);
        let _ = parse_element(&text);
    }

    #[test]
    fn what_is_written_reads_back_as_it_was(node in values()) {
        let root = Node::computed(Value::Map([("k".into(), node)].into_iter().collect()));
        let text = to_yaml(&root);
        let again = parse(&text, ptune::diag::source::SourceId(0));
        prop_assert!(again.is_ok(), "{text:?}: {again:?}");
        let again = again.unwrap().unwrap();
        prop_assert_eq!(to_yaml(&again), text);
    }
}
