//! What the differential fuzzer (tests/differential) found, one row for each class of difference, and texts that are
//! made to hurt: each must end in an error, and soon.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, not tests to the lint"
)]

use std::fmt::Write;

use ptune::config::interpolation::{Graph, ResolverContext};
use ptune::config::override_grammar::parse_override;
use ptune::config::{
    ComposeRequest, Config, ConfigPart, ConfigRepository, ConfigSource, compose, load_text,
};
use ptune::diag::Diagnostic;
use ptune::diag::source::SourceMap;
use ptune::yaml::{Node, to_yaml};

fn load(text: &str) -> Result<Node, Diagnostic> {
    let texts = SourceMap::new();
    let source = texts.add("file.yaml", text);
    load_text(text, source, &texts)
}

/// What a text is written as, or the exception that Hydra's users see.
fn written(text: &str) -> String {
    match load(text) {
        Ok(node) => to_yaml(&node),
        Err(error) => error.code.unwrap_or("no code").to_owned(),
    }
}

fn resolved(text: &str) -> String {
    let root = load(text).unwrap();
    let (mut graph, id) = Graph::new(&root, ResolverContext::default());
    match graph.resolve_strictly(id) {
        Ok(()) => to_yaml(&graph.to_node(id)),
        Err(error) => error.kind.code().to_owned(),
    }
}

#[test]
fn texts_are_read_as_pyyaml_reads_them() {
    for (text, wanted) in [
        // A scalar where only a key can stand is the scanner's mistake, not the parser's.
        ("a: 1\nb\nc: 2\n", "ScannerError"),
        ("o: !e!x \"", "ScannerError"),
        // A file of one text is read twice.
        ("'a: 1'\n", "a: 1\n"),
        ("'1'\n", "AssertionError"),
        ("a: !!binary\n", "a: !!binary \"\"\n"),
        ("a: !!binary off\n", "ConstructorError"),
        ("a: !!bool maybe\n", "KeyError"),
        ("a: !!int\n", "IndexError"),
        ("a: !!int x\n", "ValueError"),
        ("a: !!timestamp x\n", "AttributeError"),
        ("a: !!timestamp 2020-01-01\n", "UnsupportedValueType"),
        ("a: !!map y\n", "ValueError"),
        ("a: !!map [b]\n", "TypeError"),
        ("a: !!null [1]\n", "ConstructorError"),
        // A value that a later key replaces is not looked at.
        ("1: !!set {x}\n1: a\n", "1: a\n"),
        // Errors come level by level.
        ("a:\n  b: !!int x\nc: !unknown y\n", "ConstructorError"),
        // A mapping that another one merged before its turn has its keys twice.
        (
            "x:\n  m: &m\n    <<: {a: 1}\n    a: 2\nn:\n  <<: *m\n",
            "ConstructorError",
        ),
        (
            "n: &m\n  <<: {a: 1}\n  a: 2\nx: {<<: *m}\n",
            "'n':\n  a: 2\nx:\n  a: 2\n",
        ),
    ] {
        assert_eq!(written(text), wanted, "{text}");
    }
}

#[test]
fn long_lines_break_after_an_escape_where_pyyaml_breaks_them() {
    let text = format!("a: \"{}\\t\\tb c\"\n", "x".repeat(75));
    let wanted = format!("a: \"{}\\t\\t\\\n  b c\"\n", "x".repeat(75));
    assert_eq!(written(&text), wanted);
}

#[test]
fn words_are_what_they_are_to_python() {
    let text = |word: &str| match parse_override(word) {
        Ok(parsed) => parsed
            .element()
            .map(ptune::config::override_grammar::Element::to_word)
            .unwrap_or_default(),
        Err(error) => error.code.to_owned(),
    };
    for (word, wanted) in [
        // One key in three spellings.
        ("a={1:x,true:y,1.0:z}", "{1:z}"),
        ("a=sort([nan,2,1,nan,0])", "[nan,0,1,2,nan]"),
        ("a=sort([1,a])", "OverrideParseException"),
        ("a=[choice(1,2)]", "ValidationError"),
        ("a=[choice(1,2)] x", "OverrideParseException"),
        ("a=int(choice(1,choice(2,3)))", "OverrideParseException"),
    ] {
        assert_eq!(text(word), wanted, "{word}");
    }
}

#[test]
fn what_a_function_gives_is_not_part_of_the_tree() {
    for (text, wanted) in [
        ("a: ${oc.decode:'[1]'}\n", "UnsupportedValueType"),
        ("a: ${oc.create:[1]}\n", "a:\n- 1\n"),
        (
            "l: [1]\na: ${multiply:${l},2}\n",
            "InterpolationResolutionError",
        ),
        ("a: '\\${'\nb: x${a}\n", "GrammarParseError"),
        (
            "x: \"${oc.decode:'{k: 1}'}\"\na: ${x.k}\n",
            "UnsupportedValueType",
        ),
        (
            "a: x${x.k}\nx: \"${oc.decode:'{k: 1}'}\"\n",
            "InterpolationResolutionError",
        ),
    ] {
        assert_eq!(resolved(text), wanted, "{text}");
    }
}

fn composed(files: &[(&str, &str)], words: &[&str]) -> Result<Config, Diagnostic> {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }
    let repository = ConfigRepository::new(vec![ConfigSource::Folder(folder.path().to_owned())]);
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    compose(&ComposeRequest {
        repository: &repository,
        config_name: Some("config"),
        overrides: &words,
    })
}

fn code_of(files: &[(&str, &str)], words: &[&str]) -> &'static str {
    match composed(files, words) {
        Ok(_) => "ok",
        Err(error) => error.code.unwrap_or("no code"),
    }
}

#[test]
fn the_primary_file_is_read_before_the_words_are_looked_at() {
    let files = [("config.yaml", "defaults: [1]\n"), ("db/x.yaml", "a: 1\n")];
    assert_eq!(code_of(&files, &["++db=x"]), "ValueError");
    let files = [("config.yaml", "a: 1\n"), ("db/x.yaml", "a: 1\n")];
    assert_eq!(code_of(&files, &["++db=x"]), "ConfigCompositionException");
}

#[test]
fn a_name_on_the_way_through_a_list_is_another_mistake_than_at_its_end() {
    let files = [("config.yaml", "l: [1]\n")];
    assert_eq!(code_of(&files, &["l.x=1"]), "ValueError");
    assert_eq!(code_of(&files, &["l.x.y=1"]), "TypeError");
}

#[test]
fn the_hydra_part_has_hydras_types() {
    let files = [("config.yaml", "k: 1\n")];
    for (word, wanted) in [
        ("hydra.env=x", "ok"),
        ("hydra.job.chdir='3'", "ok"),
        ("+hydra.launcher.x=1", "ok"),
        ("+hydra.overrides={x:1}", "ConfigCompositionException"),
        ("hydra.sweeper._target_={x:1}", "ConfigCompositionException"),
        (
            "hydra.runtime.config_sources=[a]",
            "ConfigCompositionException",
        ),
    ] {
        assert_eq!(code_of(&files, &[word]), wanted, "{word}");
    }
    let files = [("config.yaml", "hydra: {launcher: {x: 1}}\n")];
    assert_eq!(code_of(&files, &[]), "ConfigCompositionException");
    let files = [("config.yaml", "k: 1\n")];
    let config = composed(
        &files,
        &["~hydra/launcher=basic", "hydra.overrides.task=[x]"],
    )
    .unwrap();
    let hydra = config.print(ConfigPart::Hydra, None, false).unwrap();
    assert!(hydra.contains("\n  launcher: ???\n"), "{hydra}");
    assert!(hydra.contains("\n    task:\n    - x\n"), "{hydra}");
    let files = [("config.yaml", "hydra: {mode: RUN}\nk: is ${hydra:mode}\n")];
    let job = composed(&files, &[])
        .unwrap()
        .print(ConfigPart::Job, None, true)
        .unwrap();
    assert_eq!(job, "k: is RunMode.RUN\n");
}

#[test]
fn nesting_without_end_is_refused() {
    let deep =
        |open: &str, close: &str| format!("a: {}{}\n", open.repeat(5000), close.repeat(5000));
    assert_eq!(written(&deep("[", "]")), "ComposerError");
    assert_eq!(written(&deep("{a: ", "}")), "ComposerError");
    let mut anchors = "- &a0 [1]\n".to_owned();
    for level in 1..2000 {
        writeln!(anchors, "- &a{level} [*a{}]", level - 1).unwrap();
    }
    assert_eq!(written(&anchors), "ConstructorError");
    for (open, close) in [("[", "]"), ("{a:", "}"), ("int(", ")"), ("'", "")] {
        let word = format!("a={}1{}", open.repeat(5000), close.repeat(5000));
        assert!(parse_override(&word).is_err(), "{open}");
    }
    let mut chain = String::new();
    let mut within = String::new();
    for level in 0..3000 {
        writeln!(chain, "a{level}: ${{a{}}}", level + 1).unwrap();
        writeln!(within, "a{level}: ['${{a{}}}']", level + 1).unwrap();
    }
    assert_eq!(resolved(&chain), "InterpolationResolutionError");
    assert_eq!(resolved(&within), "InterpolationResolutionError");
    let mut calls = String::new();
    for level in 0..3000 {
        let open = "[".repeat(30);
        let close = "]".repeat(30);
        writeln!(
            calls,
            "a{level}: \"${{oc.create:{open}${{a{}}}{close}}}\"",
            level + 1
        )
        .unwrap();
    }
    assert_eq!(resolved(&calls), "InterpolationResolutionError");
    let text = format!("a: \"{}a{}\"\n", "${".repeat(5000), "}".repeat(5000));
    assert_eq!(written(&text), "GrammarParseError");
}

#[test]
fn keys_without_end_are_refused() {
    let files = [("config.yaml", "k: 1\n"), ("db/x.yaml", "a: 1\n")];
    let long = vec!["a"; 20_000].join(".");
    for word in [
        format!("+{long}=1"),
        format!("++k.{long}=1"),
        format!("+db@{long}=x"),
    ] {
        assert_ne!(code_of(&files, &[&word]), "ok");
    }
    let header = format!("# @package {}\na: 1\n", vec!["a"; 100].join("."));
    let mut nested = vec![("config.yaml".to_owned(), "defaults: [l0]\n".to_owned())];
    for level in 0..60 {
        nested.push((
            format!("l{level}.yaml"),
            format!(
                "{}defaults: ['l{}@{}']\n",
                "",
                level + 1,
                vec!["b"; 150].join(".")
            ),
        ));
    }
    nested.push(("l60.yaml".to_owned(), header));
    let files: Vec<(&str, &str)> = nested
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    assert_ne!(code_of(&files, &[]), "ok");
}

#[test]
fn values_that_multiply_are_refused() {
    let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    let mut merges = "a0: &a0 {k: 1}\n".to_owned();
    let mut texts = "a0: xxxxxxxxxx\n".to_owned();
    let mut lists = "a0: [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    let mut calls = "a40: x\n".to_owned();
    for level in 1..40 {
        let before = level - 1;
        let alias = format!("*a{before}");
        writeln!(
            aliases,
            "a{level}: &a{level} [{}]",
            [alias.as_str(); 10].join(", ")
        )
        .unwrap();
        writeln!(
            merges,
            "a{level}: &a{level} {{<<: [{}]}}",
            [alias.as_str(); 10].join(", ")
        )
        .unwrap();
        let value = format!("${{a{before}}}");
        writeln!(texts, "a{level}: '{}'", value.repeat(10)).unwrap();
        writeln!(lists, "a{level}: ['{}']", [value.as_str(); 10].join("', '")).unwrap();
        let later = format!("${{a{}}}", level + 1);
        writeln!(calls, "a{level}: '{}'", later.repeat(3)).unwrap();
    }
    assert_eq!(written(&aliases), "ConstructorError");
    assert_eq!(written(&merges), "ConstructorError");
    assert_eq!(resolved(&texts), "InterpolationResolutionError");
    assert_eq!(resolved(&lists), "InterpolationResolutionError");
    assert_eq!(resolved(&calls), "InterpolationResolutionError");
}

#[test]
fn sweeps_and_numbers_without_end_are_refused() {
    for word in [
        "a=range(1e300)",
        "a=range(0,1,1e-300)",
        "a=range(0,10000000000)",
        "a=range(0,1,0)",
        "a=range(0,inf)",
    ] {
        let parsed = parse_override(word).unwrap();
        assert!(parsed.value.unwrap().sweep_words().is_err(), "{word}");
    }
    let digits = "9".repeat(100_000);
    assert_eq!(written(&format!("a: {digits}\n")), "ValueError");
    assert!(parse_override(&format!("a={digits}")).is_err());
}
