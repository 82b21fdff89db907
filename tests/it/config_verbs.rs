//! `ptune config diff` and `ptune config explain` as a person runs them.

use crate::sandbox::Sandbox;

const FILES: [(&str, &str); 4] = [
    (
        "conf/config.yaml",
        "defaults:\n  - job: a\n  - _self_\nbase: /data\nnames: [x, y]\n",
    ),
    (
        "conf/job/a.yaml",
        "run:\n  name: a_${.size}\n  size: 1\ndir: ${base}/${job.run.name}\nlr: 1e-4\n",
    ),
    (
        "conf/job/b.yaml",
        "run:\n  name: b\n  size: 1\ndir: ${base}/${job.run.name}\nlr: 1e-4\nextra: [1]\n",
    ),
    (
        "old/job_hydra.yaml",
        "run:\n  name: a_1\n  size: 1\ndir: /data/a_1\nlr: 0.0002\n",
    ),
];

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    for (path, text) in FILES {
        sandbox.write(path, text);
    }
    sandbox
}

/// Standard output of `ptune config WORDS` over `conf/`.
fn config(sandbox: &Sandbox, words: &[&str], status: i32) -> String {
    let words = [&["config"], words, &["--config-path", "conf"]].concat();
    sandbox.expect(&words, status).stdout
}

#[test]
fn two_compositions_are_compared_key_by_key_with_the_places_of_their_values() {
    let sandbox = sandbox();
    let found = config(&sandbox, &["diff", "", "job=b job.lr=3e-5 ~base"], 1);
    assert_eq!(
        found,
        "\
~ job.run.name: a_${.size} → b  (conf/job/a.yaml:2 → conf/job/b.yaml:2)
~ job.lr: 0.0001 → 3.0e-05  (conf/job/a.yaml:5 → job.lr=3e-5)
+ job.extra: [1]  (conf/job/b.yaml:6)
- base: /data  (conf/config.yaml:4)
"
    );
    let resolved = config(
        &sandbox,
        &["diff", "", "base=/x", "--resolve", "-p", "job"],
        1,
    );
    assert_eq!(
        resolved,
        "~ job.dir: /data/a_1 → /x/a_1  (conf/job/a.yaml:4 → conf/job/a.yaml:4)\n"
    );
}

#[test]
fn equal_configurations_end_with_status_0_and_common_words_go_to_both() {
    let sandbox = sandbox();
    assert_eq!(config(&sandbox, &["diff", "job=a", "config"], 0), "");
    let both = config(&sandbox, &["diff", "", "job.lr=2", "job.lr=1", "+new=1"], 1);
    assert_eq!(both, "~ job.lr: 1 → 2  (job.lr=1 → job.lr=2)\n");
}

#[test]
fn what_a_stage_wrote_is_compared_with_its_section() {
    let sandbox = sandbox();
    let words = [
        "config",
        "diff",
        "old/job_hydra.yaml",
        "job=a",
        "--config-path=conf",
    ];
    let ran = sandbox.expect(&words, 1);
    assert_eq!(
        ran.stdout,
        "~ job.lr: 0.0002 → 0.0001  (old/job_hydra.yaml:5 → conf/job/a.yaml:5)\n"
    );
    assert!(
        ran.stderr.contains("is compared with `job`"),
        "{}",
        ran.stderr
    );
    let files = ["config", "diff", "conf/job/a.yaml", "conf/job/b.yaml"];
    assert_eq!(sandbox.expect(&files, 1).stdout.lines().count(), 2);
}

#[test]
fn differences_are_json_where_a_program_reads_them() {
    let sandbox = sandbox();
    let text = config(&sandbox, &["diff", "", "names=[x]", "--json"], 1);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        json["differences"],
        serde_json::json!([{
            "key": "names",
            "old": {"value": ["x", "y"], "place": "conf/config.yaml:5"},
            "new": {"value": ["x"], "place": "names=[x]"},
        }])
    );
}

#[test]
fn a_side_that_is_nothing_is_told() {
    let sandbox = sandbox();
    for (words, part) in [
        (&["diff", "", "nowhere.yaml"][..], "nowhere.yaml"),
        (&["diff", "", "job=c"], "`job` has no option `c`"),
        (
            &["diff", "", "job=b", "-p", "job.rnu"],
            "did you mean `job.run`?",
        ),
    ] {
        let words = [&["config"], words, &["--config-path", "conf"]].concat();
        let ran = sandbox.expect(&words, 2);
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    }
}

#[test]
fn explain_follows_interpolations_and_names_the_word_that_chose_a_file() {
    let sandbox = sandbox();
    let told = config(
        &sandbox,
        &["explain", "job.dir", "job=a", "job.run.size=2"],
        0,
    );
    assert_eq!(
        told,
        "\
job.dir = /data/a_2
  1. ${base}/${job.run.name}  conf/job/a.yaml:4, chosen by job=a
  where
    base = /data
      1. /data     conf/config.yaml:4
    job.run.name = a_2
      1. a_${.size}  conf/job/a.yaml:2, chosen by job=a
      where
        job.run.size = 2
          1. 1         conf/job/a.yaml:3, chosen by job=a  (replaced)
          2. 2         command line: job.run.size=2
"
    );
}

#[test]
fn explain_knows_a_key_by_its_last_part_and_by_a_near_spelling() {
    let sandbox = sandbox();
    for (key, hint) in [
        ("size", "did you mean `job.run.size`?"),
        ("job.run.sise", "did you mean `job.run.size`?"),
    ] {
        let words = ["config", "explain", key, "--config-path", "conf"];
        let ran = sandbox.expect(&words, 2);
        assert!(ran.stderr.contains(hint), "{}", ran.stderr);
    }
}
