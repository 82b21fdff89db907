//! Shell completion as a shell asks for it.

use std::process::Command;

use crate::sandbox::Sandbox;

/// Words that our scripts are offered for a line, each with a blank where it ends there.
fn offered(sandbox: &Sandbox, line: &str) -> Vec<String> {
    let mut command = sandbox.command(&["-sc", "query=candidates"]);
    let ran = sandbox.ran(command.env("COMP_LINE", line).output().unwrap());
    assert_eq!(ran.status, Some(0), "{line}: {}", ran.stderr);
    assert_eq!(ran.stderr, "", "{line}");
    let word = |line: &str| line.split('\t').next().unwrap().to_owned();
    ran.stdout.lines().map(word).collect()
}

#[test]
fn verbs_options_groups_options_of_groups_and_keys_are_offered() {
    let sandbox = Sandbox::new();
    for (line, expected) in [
        ("ptune conf", &["config "][..]),
        ("./bin/ptune --dry", &["--dry-run "]),
        ("ptune --cfg=h", &["--cfg=hydra "]),
        ("ptune -cn qu", &["quickstart "]),
        (
            "ptune prompt_learning=t",
            &["prompt_learning=t5/squad ", "prompt_learning=t5/xquad "],
        ),
        ("ptune cluster", &["cluster.", "cluster=", "cluster_type="]),
        (
            "ptune cluster_type=b",
            &["cluster_type=bcm ", "cluster_type=bcp "],
        ),
        ("ptune ~cluster_t", &["~cluster_type "]),
        (
            "ptune stages=[evaluation,c",
            &[
                "stages=[evaluation,conversion,",
                "stages=[evaluation,conversion] ",
            ],
        ),
        (
            "ptune prompt_learning=t5/squad prompt_learning.model.optim.l",
            &[
                "prompt_learning.model.optim.lr=",
                "prompt_learning.model.optim.lr_relative_to_embeddings=",
            ],
        ),
        ("ptune debug=", &["debug=false ", "debug=true "]),
        ("ptune config explain cluster.part", &["cluster.partition "]),
        ("ptune 'a b' cluster=", &["cluster=bcm "]),
        // A slip in a word before does not silence the others.
        ("ptune nonsense=1 a==b[ cluster=b", &["cluster=bcm "]),
        ("ptune nothing_like_this", &[]),
    ] {
        assert_eq!(offered(&sandbox, line), expected, "{line}");
    }
}

#[test]
fn files_are_offered_for_paths_and_folders_for_folders() {
    let sandbox = Sandbox::new();
    sandbox.write("rows/train.jsonl", "");
    sandbox.write("rows/more/x", "");
    assert_eq!(
        offered(&sandbox, "ptune data_dir=./rows/"),
        ["data_dir=./rows/more/", "data_dir=./rows/train.jsonl "]
    );
    assert_eq!(offered(&sandbox, "ptune --config-dir ro"), ["rows/"]);
    assert_eq!(offered(&sandbox, "ptune status rows/"), ["rows/more/"]);
}

#[test]
fn the_options_of_the_line_say_where_the_configuration_is() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "own/main.yaml",
        "defaults:\n  - db@source: a\n  - _self_\nport: '1,2'\n",
    );
    sandbox.write("own/db/a.yaml", "x: 1\n");
    sandbox.write("own/db/deep/b.yaml", "y: 1\n");
    let at = |rest: &str| {
        offered(
            &sandbox,
            &format!("ptune -cp own --config-name=main {rest}"),
        )
    };
    assert_eq!(at("db@source=d"), ["db@source=deep/b "]);
    assert_eq!(at("d"), ["db@source="]);
    assert_eq!(at("+d"), ["+db/", "+db="]);
    // A text that would be read as something else comes with quotes.
    assert_eq!(at("port="), ["port='1,2' "]);
    assert_eq!(at("db@source=deep/b source."), ["source.y="]);
}

#[test]
fn scripts_made_for_hydra_are_answered_as_hydra_answers() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "own/config.yaml",
        "defaults:\n  - db: a\n  - _self_\nport: 1\n",
    );
    sandbox.write("own/db/a.yaml", "x: 1\n");
    let ask = |shell: &str, line: &str| {
        let query = format!("query={shell}");
        let mut command = sandbox.command(&["-cp", "own", "-sc", &query]);
        sandbox
            .ran(command.env("COMP_LINE", line).output().unwrap())
            .stdout
    };
    assert_eq!(ask("bash", "app "), "db. db= hydra hydra. port=\n");
    assert_eq!(ask("fish", "python3 app.py d"), "db.\ndb=\n");
    assert_eq!(ask("zsh", "app nothing"), "\n");
}

#[test]
fn what_cannot_be_done_is_told_to_those_who_call_by_hand() {
    let sandbox = Sandbox::new();
    for (words, part) in [
        (&["-sc"][..], "needs one of"),
        (&["-sc", "install=bash", "query=bash"], "needs one of"),
        (&["-sc", "install=bsh"], "did you mean `install=bash`?"),
        (&["-sc", "query=bash"], "COMP_LINE"),
    ] {
        let ran = sandbox.ptune(words);
        assert_eq!(ran.status, Some(2), "{words:?}");
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    }
}

/// What Bash puts in for the word before the cursor.
fn bash_replies(sandbox: &Sandbox, line: &str, typed: &str) -> String {
    let script = sandbox.ptune(&["-sc", "install=bash"]).stdout;
    let program = sandbox
        .command(&[])
        .get_program()
        .to_string_lossy()
        .into_owned();
    let name = program.rsplit('/').next().unwrap().to_owned();
    let line = line.replacen("ptune", &program, 1);
    let text = format!(
        "{script}\nCOMP_LINE={line:?} COMP_POINT={} _{name}_complete {program:?} {typed:?} ''\n\
         printf '<%s>' \"${{COMPREPLY[@]}}\"\n",
        line.chars().count()
    );
    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile", "-c", &text]);
    bash.current_dir(sandbox.path(""));
    let ran = sandbox.ran(bash.output().unwrap());
    assert_eq!(ran.stderr, "", "{line}");
    ran.stdout
}

#[test]
fn bash_is_given_the_part_of_a_word_that_it_replaces() {
    let sandbox = Sandbox::new();
    sandbox.write("a b.jsonl", "");
    for (line, typed, expected) in [
        ("ptune clu", "clu", "<cluster.><cluster=><cluster_type=>"),
        ("ptune cluster=b", "b", "<bcm >"),
        ("ptune cluster=", "", "<bcm >"),
        ("ptune data_dir=./a", "./a", "<./a\\ b.jsonl >"),
        ("ptune nothing=x cluster_type=i", "i", "<interactive >"),
        ("ptune nothing_like_this", "nothing_like_this", "<>"),
    ] {
        assert_eq!(bash_replies(&sandbox, line, typed), expected, "{line}");
    }
}
