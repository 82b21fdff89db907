//! Command lines to job scripts: `--dry-run` writes and shows them.

use crate::sandbox::Sandbox;

/// Script texts of a dry run.
fn scripts(sandbox: &Sandbox, words: &[&str]) -> String {
    let mut all = vec!["--dry-run", "ptune_path=ptune"];
    all.extend(words);
    sandbox.scripts(&all).stdout
}

/// `#SBATCH` lines of a dry run, without that word.
fn directives(words: &[&str]) -> Vec<String> {
    let sandbox = Sandbox::new();
    scripts(&sandbox, words)
        .lines()
        .filter_map(|line| line.strip_prefix("#SBATCH --"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn without_preemption_the_whole_script_is_the_originals() {
    let sandbox = Sandbox::new();
    assert_eq!(
        scripts(
            &sandbox,
            &[
                "prompt_learning=gpt3/squad",
                "cluster.signal=null",
                "cluster.requeue=null",
            ]
        ),
        r#"# /sandbox/results/gpt3_5b/prompt_learning_squad/nemo-megatron-squad_gpt3_5b_submission.sh
#!/bin/bash

# Parameters
#SBATCH --dependency=singleton
#SBATCH --error=/sandbox/results/gpt3_5b/prompt_learning_squad/log-nemo-megatron-squad_gpt3_5b_%j.err
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --job-name=nemo-megatron-squad_gpt3_5b
#SBATCH --mem=0
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --output=/sandbox/results/gpt3_5b/prompt_learning_squad/log-nemo-megatron-squad_gpt3_5b_%j.out
#SBATCH --time=04:00:00

# setup
export TRANSFORMERS_OFFLINE=0
export TORCH_NCCL_AVOID_RECORD_STREAMS=1
export NCCL_NVLS_ENABLE=0

# command 1
srun --output /sandbox/results/gpt3_5b/prompt_learning_squad/log-nemo-megatron-squad_gpt3_5b_%j.out --error /sandbox/results/gpt3_5b/prompt_learning_squad/log-nemo-megatron-squad_gpt3_5b_%j.err bash -c "
  CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 ptune worker prompt_learning \
  --config /sandbox/results/gpt3_5b/prompt_learning_squad/nemo-megatron-squad_gpt3_5b_hydra.yaml "

"#
    );
}

#[test]
fn a_container_brings_its_mounts_and_pyxis_options() {
    let sandbox = Sandbox::new();
    let script = scripts(
        &sandbox,
        &[
            "launcher_scripts_path=/opt/launcher_scripts",
            "container=nvcr.io/nvidia/nemo:24.09",
            "container_mounts=[/lustre,/a:/b]",
            "data_dir=/data",
        ],
    );
    assert!(
        script.contains(
            ".err --container-image nvcr.io/nvidia/nemo:24.09 --container-mounts \
             /opt/launcher_scripts:/opt/launcher_scripts,/data:/data,\
             /opt/launcher_scripts/results:/opt/launcher_scripts/results,/lustre:/lustre,/a:/b \
             --no-container-mount-home bash -c \""
        ),
        "{script}"
    );
    fs_err::remove_dir_all("/opt/launcher_scripts").ok();
}

#[test]
fn the_user_guides_bcp_command_lines_write_their_scripts() {
    for (model, train_name, nemo) in [
        ("gpt3", "gpt3_5b", "megatron_gpt"),
        ("t5", "t5_220m", "megatron_t5"),
        ("mt5", "mt5_390m", "megatron_mt5"),
    ] {
        let sandbox = Sandbox::new();
        let results = sandbox.path("results").display().to_string();
        let script = scripts(
            &sandbox,
            &[
                &format!("prompt_learning={model}/squad"),
                "stages=prompt_learning",
                "cluster_type=bcp",
                "launcher_scripts_path=/opt/NeMo-Megatron-Launcher/launcher_scripts",
                "data_dir=/mount/data",
                &format!("base_results_dir={results}"),
                &format!("prompt_learning.run.model_train_name={train_name}"),
                &format!(
                    "prompt_learning.model.language_model_path=/mount/results/{train_name}/convert_nemo/results/{nemo}.nemo"
                ),
            ],
        );
        let folder = format!("/sandbox/results/{train_name}/prompt_learning_squad");
        let job = format!("squad_{train_name}");
        assert_eq!(
            script,
            format!(
                r#"# {folder}/{job}_submission.sh
#!/bin/bash

# A group that fails ends the job; `tee` must not hide its exit status.
set -eo pipefail
# A signal is for the tasks, which save: this shell waits for them, and the log is kept to the end.
trap : INT TERM USR1
tee() {{ trap '' INT TERM USR1; command tee "$@"; }}

# setup
export TRANSFORMERS_OFFLINE=0
export TORCH_NCCL_AVOID_RECORD_STREAMS=1
export NCCL_NVLS_ENABLE=0
export SLURM_NTASKS_PER_NODE=8
export CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7

# command 1
bcprun --nnodes 1 --npernode 8 -no_redirect  --env 'TRANSFORMERS_OFFLINE=0' --env 'TORCH_NCCL_AVOID_RECORD_STREAMS=1' --env 'NCCL_NVLS_ENABLE=0' --env 'SLURM_NTASKS_PER_NODE=8' --env 'CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7' --cmd "
  ptune worker prompt_learning \
  --config {folder}/{job}_hydra.yaml " 2>&1 | tee -a {folder}/log-{job}_0102_030405.out

"#
            )
        );
        let saved = sandbox.read(&format!(
            "results/{train_name}/prompt_learning_squad/{job}_hydra.yaml"
        ));
        let saved: serde_yaml::Value = serde_yaml::from_str(&saved).unwrap();
        assert_eq!(
            saved["model"]["language_model_path"].as_str().unwrap(),
            format!("/mount/results/{train_name}/convert_nemo/results/{nemo}.nemo")
        );
        assert_eq!(
            saved["model"]["data"]["train_ds"][0],
            "/mount/data/prompt_data/v1.1/squad_train.jsonl"
        );
    }
}

#[test]
fn a_chain_waits_stage_by_stage() {
    let words = [
        "stages=[data_preparation,prompt_learning,evaluation]",
        "prompt_learning=t5/squad",
        "evaluation=prompt_t5/squad",
    ];
    let waits = |more: &[&str]| {
        let mut all = words.to_vec();
        all.extend(more);
        directives(&all)
            .into_iter()
            .filter(|line| line.starts_with("dependency"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        waits(&[]),
        [
            "dependency=singleton",
            "dependency=afterany:JOB_ID_OF_nemo-megatron-prepare_squad",
            "dependency=afterany:JOB_ID_OF_nemo-megatron-squad_t5_220m",
        ]
    );
    assert_eq!(
        waits(&["stage_dependency=afterok"])[1],
        "dependency=afterok:JOB_ID_OF_nemo-megatron-prepare_squad"
    );
}

/// Words, and what they change in the `#SBATCH` lines of the default command line: `-` lines go, `+` lines come.
#[test]
fn words_change_the_lines_that_they_are_about_and_no_others() {
    let default = directives(&[]);
    for (words, gone, come) in [
        (
            &["cluster.partition=gpu"][..],
            &[][..],
            &["partition=gpu"][..],
        ),
        (&["cluster.account=a b"], &[], &["account='a b'"]),
        (&["cluster.exclusive=False"], &["exclusive"], &[]),
        (
            &["cluster.exclusive=user"],
            &["exclusive"],
            &["exclusive=user"],
        ),
        (&["cluster.gpus_per_node=null"], &["gpus-per-node=8"], &[]),
        (
            &["cluster.gpus_per_node=4"],
            &["gpus-per-node=8"],
            &["gpus-per-node=4"],
        ),
        (&["cluster.gpus_per_task=1"], &[], &["gpus-per-task=1"]),
        (&["cluster.mem=64"], &["mem=0"], &["mem=64GB"]),
        (&["cluster.mem=1.5"], &["mem=0"], &["mem=1536MB"]),
        (&["cluster.mem=null"], &["mem=0"], &[]),
        (&["cluster.overcommit=True"], &[], &["overcommit"]),
        (&["cluster.overcommit=False"], &[], &[]),
        (&["cluster.nodelist=n[1-4]"], &[], &["nodelist='n[1-4]'"]),
        (&["cluster.nodelist=[n1,n2]"], &[], &["nodelist=n1,n2"]),
        (&["+cluster.reservation=maint"], &[], &["reservation=maint"]),
        (&["+cluster.reservation=null"], &[], &[]),
        (&["+cluster.mail_type=END"], &[], &["mail-type=END"]),
        (
            &["+cluster.qos=high", "+cluster.constraint=a100"],
            &[],
            &["constraint=a100", "qos=high"],
        ),
        (
            &["prompt_learning.run.time_limit=2-00:00:00"],
            &["time=04:00:00"],
            &["time=2-00:00:00"],
        ),
        (
            &["prompt_learning.run.time_limit=null"],
            &["time=04:00:00"],
            &[],
        ),
        (
            &["prompt_learning.run.dependency=null"],
            &["dependency=singleton"],
            &[],
        ),
        (
            &["prompt_learning.run.dependency=afterok:12"],
            &["dependency=singleton"],
            &["dependency=afterok:12"],
        ),
        (
            &[
                "prompt_learning.trainer.num_nodes=2",
                "prompt_learning.model.global_batch_size=128",
            ],
            &["nodes=1"],
            &["nodes=2"],
        ),
        (
            &["prompt_learning.trainer.devices=2"],
            &["ntasks-per-node=8"],
            &["ntasks-per-node=2"],
        ),
        (
            &["+prompt_learning.run.nodes=4"],
            &["nodes=1"],
            &["nodes=4"],
        ),
        (
            &["+prompt_learning.run.ntasks_per_node=1"],
            &["ntasks-per-node=8"],
            &["ntasks-per-node=1"],
        ),
    ] {
        let words_and_quotes: Vec<String> = words
            .iter()
            .map(|word| match word.split_once('=') {
                // What a person writes in the shell for a value with a blank or a bracket in it.
                Some((key, value)) if value.contains(' ') || value.contains("n[") => {
                    format!("{key}='{value}'")
                }
                _ => (*word).to_owned(),
            })
            .collect();
        let words: Vec<&str> = words_and_quotes.iter().map(String::as_str).collect();
        let mut expected: Vec<String> = default
            .iter()
            .filter(|line| !gone.contains(&line.as_str()))
            .cloned()
            .collect();
        expected.extend(come.iter().map(|line| (*line).to_owned()));
        expected.sort();
        let mut found = directives(&words);
        found.sort();
        assert_eq!(found, expected, "{words:?}");
    }
}

#[test]
fn environment_variables_are_exported_quoted_and_null_ones_are_not() {
    let sandbox = Sandbox::new();
    let script = scripts(
        &sandbox,
        &[
            "env_vars.NCCL_DEBUG=INFO",
            "+env_vars.MY_FLAG='a b;c'",
            "env_vars.NCCL_NVLS_ENABLE=null",
        ],
    );
    assert!(script.contains("export NCCL_DEBUG=INFO\n"), "{script}");
    assert!(script.contains("export MY_FLAG='a b;c'\n"), "{script}");
    assert!(!script.contains("NCCL_NVLS_ENABLE"), "{script}");
}

#[test]
fn tensor_parallel_jobs_get_one_cuda_connection() {
    let sandbox = Sandbox::new();
    let script = scripts(
        &sandbox,
        &["prompt_learning.model.tensor_model_parallel_size=2"],
    );
    assert!(
        script.contains(
            "  CUDA_DEVICE_MAX_CONNECTIONS=1 CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 ptune worker"
        ),
        "{script}"
    );
}

#[test]
fn boost_clocks_and_memory_measurement_get_steps_of_their_own() {
    let sandbox = Sandbox::new();
    let script = scripts(&sandbox, &["enable_vboost=True"]);
    assert!(
        script.contains("# enable vboost\nsrun --ntasks=1 --output /sandbox/results/"),
        "{script}"
    );
    let output = sandbox
        .command(&["--dry-run"])
        .env("NEMO_LAUNCHER_MEMORY_MEASURE", "1")
        .output()
        .unwrap();
    let script = sandbox.ran(output).stdout;
    assert!(
        script.contains("# run memory measure\nsrun --ntasks=1 --ntasks-per-node=1"),
        "{script}"
    );
    assert!(script.contains(" --overlap bash -c"), "{script}");
}

#[test]
fn a_results_folder_holds_what_the_original_puts_there() {
    let sandbox = Sandbox::new();
    let output = sandbox
        .command(&["prompt_learning=t5/squad", "prompt_learning.run.name=a b"])
        .env("NEMO_LAUNCHER_DEBUG", "1")
        .output()
        .unwrap();
    assert!(sandbox.ran(output).showed_scripts());
    let folder = "results/t5_220m/prompt_learning_squad";
    assert!(sandbox.path(&format!("{folder}/results")).is_dir());
    let name = "nemo-megatron-a b";
    assert!(
        sandbox
            .path(&format!("{folder}/{name}_submission.sh"))
            .is_file()
    );
    let command = sandbox.read(&format!("{folder}/launcher_cmd.log"));
    assert!(
        command.ends_with(" \\\n  prompt_learning=t5/squad \\\n  'prompt_learning.run.name=a b'"),
        "{command}"
    );
    let saved: serde_yaml::Value =
        serde_yaml::from_str(&sandbox.read(&format!("{folder}/{name}_hydra.yaml"))).unwrap();
    let keys: Vec<&str> = saved
        .as_mapping()
        .unwrap()
        .keys()
        .filter_map(|key| key.as_str())
        .collect();
    assert_eq!(keys, ["run", "trainer", "exp_manager", "model"]);
    assert_eq!(saved["model"]["model_parallel_size"], 1);
    let manifest: serde_json::Value =
        serde_json::from_str(&sandbox.read(&format!("{folder}/job.json"))).unwrap();
    assert_eq!(manifest["choices"]["prompt_learning"], "t5/squad");
    assert_eq!(manifest["job_id"], serde_json::Value::Null);
}

#[test]
fn two_stages_that_would_write_the_same_files_are_refused() {
    let sandbox = Sandbox::new();
    let ran = sandbox.ptune(&[
        "--dry-run",
        "stages=[prompt_learning,evaluation]",
        "prompt_learning.run.name=a",
        "evaluation.run.name=a",
        "prompt_learning.run.results_dir=r",
        "evaluation.run.results_dir=r",
    ]);
    assert_eq!(ran.status, Some(2));
    assert!(
        ran.stderr.contains("would write the same files"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_section_that_no_stage_reads_may_stay_without_its_values() {
    let sandbox = Sandbox::new();
    let words = ["evaluation.run.model_train_name=${oc.env:NOT_SET_ANYWHERE}"];
    scripts(&sandbox, &words);
    let mut words = words.to_vec();
    words.extend(["--dry-run", "stages=[evaluation]"]);
    let ran = sandbox.expect(&words, 2);
    assert!(ran.stderr.contains("NOT_SET_ANYWHERE"), "{}", ran.stderr);
}
