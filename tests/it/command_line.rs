//! The command line that ptune shares with every program composed by Hydra.

use crate::sandbox::Sandbox;

fn own_tree() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write(
        "own/config.yaml",
        "defaults: [db: mysql]\nport: 80\nurl: '${port}'\n",
    );
    sandbox.write("own/db/mysql.yaml", "kind: mysql\n");
    sandbox.write("own/db/pg.yaml", "kind: pg\n");
    sandbox
}

fn stdout(sandbox: &Sandbox, words: &[&str]) -> String {
    let ran = sandbox.ptune(words);
    assert_eq!(
        ran.status,
        Some(0),
        "{words:?}\n{}{}",
        ran.stdout,
        ran.stderr
    );
    ran.stdout
}

#[test]
fn options_may_be_written_in_every_way_that_argparse_knows() {
    let sandbox = own_tree();
    let wanted = stdout(&sandbox, &["-cp", "own", "db=pg", "--cfg", "job"]);
    assert_eq!(wanted, "db:\n  kind: pg\nport: 80\nurl: ${port}\n");
    for words in [
        &["-cp=own", "-cjob", "db=pg"][..],
        &["--config-p", "own", "--cfg=job", "db=pg"],
        &["--cf", "job", "-cp", "own", "--", "db=pg"],
        &["-cp", "own", "-cn", "config.yaml", "db=pg", "-c", "job"],
    ] {
        assert_eq!(stdout(&sandbox, words), wanted, "{words:?}");
    }
}

#[test]
fn a_command_line_that_cannot_be_read_says_what_to_type() {
    let sandbox = own_tree();
    for (words, parts) in [
        (
            &["--conf", "job"][..],
            &["--config-path, --config-name, --config-dir"][..],
        ),
        (
            &["--mutlirun"],
            &[
                "there is no option `--mutlirun`",
                "did you mean `--multirun`?",
            ],
        ),
        (&["--info", "db=pg"], &["db=pg --info"]),
        (&["--cfg", "jobs"], &["job, hydra, all", "hint: --cfg job"]),
        (&["--cfg"], &["needs a value"]),
        (&["--cfg", "job", "--multirun"], &["only one of"]),
        (&["--resolve"], &["--cfg job --resolve"]),
        (
            &["-cp", "own/config.yaml"],
            &["--config-path own --config-name config"],
        ),
        (
            &["-cp", "own", "--cfg", "job", "-p", "dbb"],
            &["did you mean `db`?"],
        ),
    ] {
        let ran = sandbox.ptune(words);
        assert_eq!(ran.status, Some(2), "{words:?}\n{}", ran.stdout);
        for part in parts {
            assert!(
                ran.stderr.contains(part),
                "{words:?}: no `{part}` in\n{}",
                ran.stderr
            );
        }
    }
}

#[test]
fn the_help_names_the_commands_the_options_and_the_groups() {
    let sandbox = own_tree();
    let help = stdout(&sandbox, &["--help"]);
    for part in [
        "worker",
        "config",
        "status",
        "logs",
        "cancel",
        "--dry-run",
        "--multirun",
        "cluster: bcm",
    ] {
        assert!(help.contains(part), "no `{part}` in\n{help}");
    }
    let help = stdout(&sandbox, &["-cp", "own", "-h", "db=pg"]);
    assert!(help.contains("db: mysql, pg\n"), "{help}");
}

#[test]
fn a_tree_may_have_a_help_of_its_own() {
    let sandbox = own_tree();
    sandbox.write(
        "own/hydra/help/mine.yaml",
        "app_name: mine\nheader: '== ${.app_name} =='\ntemplate: |\n  ${.header}\n  $APP_CONFIG_GROUPS$$1\n  $CONFIG\n",
    );
    let help = stdout(
        &sandbox,
        &["-cp", "own", "--help", "--resolve", "hydra/help=mine"],
    );
    assert_eq!(
        help,
        "== mine ==\ndb: mysql, pg\n$1\ndb:\n  kind: mysql\nport: 80\nurl: 80\n\n\n"
    );
    sandbox.write("own/hydra/help/odd.yaml", "template: costs $NOTHING\n");
    let ran = sandbox.ptune(&["-cp", "own", "--help", "hydra/help=odd"]);
    assert_eq!(ran.status, Some(2));
    assert!(ran.stderr.contains("`$NOTHING`"), "{}", ran.stderr);
    let help = stdout(
        &sandbox,
        &["-cp", "own", "--help", "hydra.help.header=Mine"],
    );
    assert!(help.starts_with("Mine\n"), "{help}");
}

#[test]
fn listings_come_before_values_are_composed() {
    let sandbox = own_tree();
    let tree = stdout(
        &sandbox,
        &["-cp", "own", "--info", "defaults-tree", "nope=1"],
    );
    assert!(
        tree.contains("  config:\n    db: mysql\n    _self_\n"),
        "{tree}"
    );
    let list = stdout(&sandbox, &["-cp", "own", "--info", "defaults", "nope=1"]);
    assert!(list.contains("| db/mysql "), "{list}");
    let ran = sandbox.ptune(&["-cp", "own", "--info", "searchpath", "nope=1"]);
    assert_eq!(ran.status, Some(2), "{}", ran.stdout);
    let path = stdout(
        &sandbox,
        &["-cp", "own", "-cd", "own/db", "--info", "searchpath"],
    );
    let rows: Vec<&str> = path
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .collect();
    let providers: Vec<&str> = rows
        .iter()
        .filter_map(|row| row.split(' ').next())
        .collect();
    assert_eq!(
        providers,
        ["Provider", "hydra", "main", "command-line", "schema"],
        "{path}"
    );
    assert!(path.contains("file:///"), "{path}");
}
