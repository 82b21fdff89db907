//! Every shipped file composes and fits its section, and every key of the user guide is there.

use std::path::Path;

use crate::sandbox::Sandbox;

/// Option names of a group, as `group=OPTION` takes them.
fn options(group: &str) -> Vec<String> {
    fn collect(folder: &Path, prefix: &str, found: &mut Vec<String>) {
        for entry in fs_err::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if entry.path().is_dir() {
                collect(&entry.path(), &format!("{prefix}{name}/"), found);
            } else if let Some(stem) = name.strip_suffix(".yaml") {
                found.push(format!("{prefix}{stem}"));
            }
        }
    }
    let mut found = vec![];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("conf")
        .join(group);
    collect(&folder, "", &mut found);
    found.sort();
    assert!(!found.is_empty());
    found
}

#[test]
fn every_option_of_every_stage_composes_and_type_checks() {
    for group in [
        "data_preparation",
        "conversion",
        "prompt_learning",
        "evaluation",
    ] {
        for option in options(group) {
            let sandbox = Sandbox::new();
            let ran = sandbox.ptune(&[
                "--dry-run",
                &format!("{group}={option}"),
                &format!("stages=[{group}]"),
            ]);
            assert!(ran.showed_scripts(), "{group}={option}\n{}", ran.stderr);
            assert!(
                ran.stdout.contains(&format!("worker {group} ")),
                "{}",
                ran.stdout
            );
        }
    }
}

#[test]
fn the_quickstart_composes_and_needs_no_file() {
    let sandbox = Sandbox::new();
    let ran = sandbox.ptune(&["--config-name=quickstart", "--dry-run"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    assert!(
        ran.stdout.contains("worker prompt_learning") && ran.stdout.contains("worker evaluation")
    );
}

#[test]
fn every_key_of_the_user_guide_is_there() {
    let run = |prompt_learning: &str, train_name: &str| -> Vec<String> {
        vec![
            format!("prompt_learning={prompt_learning}/squad"),
            "prompt_learning.run.name=${.task_name}_${.model_train_name}".into(),
            "prompt_learning.run.time_limit=04:00:00".into(),
            "prompt_learning.run.dependency=singleton".into(),
            "prompt_learning.run.convert_name=convert_nemo".into(),
            format!("prompt_learning.run.model_train_name={train_name}"),
            "prompt_learning.run.task_name=squad".into(),
            "prompt_learning.run.results_dir=${base_results_dir}/${.model_train_name}/prompt_learning_${.task_name}".into(),
            "prompt_learning.model.language_model_path=${base_results_dir}/${prompt_learning.run.model_train_name}/\
             ${prompt_learning.run.convert_name}/megatron.nemo"
                .into(),
            "prompt_learning.model.tensor_model_parallel_size=1".into(),
            "prompt_learning.model.pipeline_model_parallel_size=1".into(),
            "prompt_learning.model.sequence_sequence_parallel=True".into(),
            "cluster.partition=null".into(),
            "cluster.account=null".into(),
            "cluster.exclusive=True".into(),
            "cluster.gpus_per_task=1".into(),
            "cluster.gpus_per_node=null".into(),
            "cluster.mem=0".into(),
            "cluster.overcommit=False".into(),
            "cluster.job_name_prefix=nemo-megatron-".into(),
            "stages=[prompt_learning]".into(),
        ]
    };
    for (model, train_name) in [("gpt3", "gpt3_5b"), ("t5", "t5_220m"), ("mt5", "mt5_390m")] {
        let sandbox = Sandbox::new();
        let words = run(model, train_name);
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        words.push("--dry-run");
        let ran = sandbox.ptune(&words);
        assert!(ran.showed_scripts(), "{model}\n{}", ran.stderr);
        assert!(
            ran.stdout.contains("#SBATCH --gpus-per-task=1\n"),
            "{}",
            ran.stdout
        );
        assert!(!ran.stdout.contains("gpus-per-node"), "{}", ran.stdout);
        let saved = sandbox.read(&format!(
            "results/{train_name}/prompt_learning_squad/nemo-megatron-squad_{train_name}_hydra.yaml"
        ));
        let saved: serde_yaml::Value = serde_yaml::from_str(&saved).unwrap();
        assert_eq!(
            saved["model"]["language_model_path"].as_str().unwrap(),
            format!("./results/{train_name}/convert_nemo/megatron.nemo")
        );
    }
}

#[test]
fn the_configuration_can_be_printed_as_hydra_prints_it() {
    let sandbox = Sandbox::new();
    let ran = sandbox.ptune(&[
        "--cfg",
        "job",
        "-p",
        "prompt_learning.run",
        "prompt_learning=t5/squad",
    ]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(
        ran.stdout
            .contains("name: ${.task_name}_${.model_train_name}\n"),
        "{}",
        ran.stdout
    );
    let ran = sandbox.ptune(&["--cfg", "job", "--resolve", "prompt_learning=t5/squad"]);
    assert!(
        ran.stdout.contains("  name: squad_t5_220m\n"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("prompt_learning_config: t5/squad\n"),
        "{}",
        ran.stdout
    );
}

#[test]
fn explain_says_where_a_value_comes_from() {
    let sandbox = Sandbox::new();
    let ran = sandbox.ptune(&[
        "config",
        "explain",
        "prompt_learning.model.optim.lr",
        "prompt_learning=t5/squad",
    ]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let ran_with_word = sandbox.ptune(&[
        "config",
        "explain",
        "prompt_learning.model.optim.lr",
        "prompt_learning=t5/squad",
        "prompt_learning.model.optim.lr=0.3",
    ]);
    assert!(
        ran_with_word
            .stdout
            .starts_with("prompt_learning.model.optim.lr = 0.3\n"),
        "{}",
        ran_with_word.stdout
    );
    assert!(
        ran_with_word.stdout.contains("(replaced)\n"),
        "{}",
        ran_with_word.stdout
    );
    assert!(
        ran.stdout.contains("prompt_learning/t5/squad.yaml:"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("0.001"), "{}", ran.stdout);
}

#[test]
fn a_further_folder_adds_options_and_shadows_none() {
    let sandbox = Sandbox::new();
    let file = "partition: mine\njob_name_prefix: my-\nsrun_args: []\n";
    sandbox.write("own/cluster/bcm.yaml", file);
    sandbox.write("own/cluster/mine.yaml", file);
    let ran = sandbox.scripts(&["--config-dir", "own", "cluster=mine", "--dry-run"]);
    for line in [
        "#SBATCH --partition=mine\n",
        "#SBATCH --job-name=my-squad_gpt3_5b\n",
    ] {
        assert!(ran.stdout.contains(line), "{}", ran.stdout);
    }
    let ran = sandbox.scripts(&["-cd", "own", "--dry-run"]);
    assert!(!ran.stdout.contains("partition=mine"), "{}", ran.stdout);
}

#[test]
fn a_configuration_path_stands_in_for_all_of_the_shipped_files() {
    let sandbox = Sandbox::new();
    sandbox.write("own/config.yaml", "defaults: [cluster: mine]\n");
    sandbox.write("own/cluster/mine.yaml", "partition: mine\n");
    let ran = sandbox.ptune(&["-cp", "own", "--cfg", "job"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stdout, "cluster:\n  partition: mine\n");
    let ran = sandbox.ptune(&["-cp", "own", "cluster=bcm"]);
    assert_eq!(ran.status, Some(2), "{}", ran.stdout);
    assert!(ran.stderr.contains("mine"), "{}", ran.stderr);
}
