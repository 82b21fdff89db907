//! Whole scripts, compared with the synthetic examples written down from the original's renderings.

use indexmap::IndexMap;
use serde_yaml::Value;

use super::job::Command;
use super::{
    Cluster, ClusterType, CommandGroup, Dependency, JobPaths, JobSpec, Resources, Templates,
};
use crate::schema::{ClusterSection, WorkerJob};

fn cluster(cluster_type: ClusterType, directives: &[(&str, Value)]) -> Cluster {
    Cluster {
        cluster_type,
        section: ClusterSection {
            job_name_prefix: "p-".into(),
            srun_args: vec!["--no-container-mount-home".into()],
            directives: directives
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone()))
                .collect::<IndexMap<_, _>>(),
        },
        container: None,
        container_mounts: vec![],
        bcp_no_redirect: true,
        enable_vboost: false,
        short_log_names: false,
        memory_measure: false,
    }
}

fn command(lines: &[&[&str]]) -> Command {
    Command {
        environment: vec![],
        lines: lines
            .iter()
            .map(|words| words.iter().map(|word| (*word).to_owned()).collect())
            .collect(),
    }
}

fn job(name: &str) -> JobSpec {
    JobSpec {
        stage: WorkerJob::PromptLearning,
        name: name.to_owned(),
        paths: JobPaths {
            folder: "/r".into(),
            job_name: name.to_owned(),
        },
        log_file: None,
        state_folder: "/r/results".into(),
        groups: vec![
            CommandGroup {
                commands: vec![command(&[&["first"]]), command(&[&["second"]])],
            },
            CommandGroup {
                commands: vec![command(&[&["third"]])],
            },
        ],
        resources: Resources {
            nodes: 2,
            ntasks_per_node: 4,
            time_limit: Some("0:10:00".into()),
        },
        dependency: None,
        environment: vec![("A".into(), "1".into())],
    }
}

fn text(cluster: &Cluster, job: &JobSpec) -> String {
    cluster.render(job, &Templates::default()).unwrap().0.text
}

#[test]
fn a_slurm_script_of_two_groups_is_laid_out_as_the_original_does() {
    let mut cluster = cluster(
        ClusterType::Slurm,
        &[("account", "acme".into()), ("exclusive", true.into())],
    );
    cluster.container = Some("img".into());
    cluster.container_mounts = vec!["/a:/a".into()];
    cluster.section.srun_args.clear();
    let mut job = job("p-demo");
    job.resources.ntasks_per_node = 1;
    assert_eq!(
        text(&cluster, &job),
        r#"#!/bin/bash

# Parameters
#SBATCH --account=acme
#SBATCH --error=/r/log-p-demo_%j.err
#SBATCH --exclusive
#SBATCH --job-name=p-demo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --output=/r/log-p-demo_%j.out
#SBATCH --time=0:10:00

# setup
export A=1

# command 1
srun --output /r/log-p-demo_%j.out --error /r/log-p-demo_%j.err --container-image img --container-mounts /a:/a bash -c "
  first;
  second "


# command 2
srun --output /r/log-p-demo_%j.out --error /r/log-p-demo_%j.err --container-image img --container-mounts /a:/a bash -c "
  third "
"#
    );
}

#[test]
fn directives_are_sorted_by_key_and_null_and_false_leave_none() {
    let cluster = cluster(
        ClusterType::Slurm,
        &[
            ("nodelist", vec!["n1", "n2"].into()),
            ("gpus_per_task", 1.into()),
            ("gpus_per_node", 8.into()),
            ("overcommit", false.into()),
            ("partition", Value::Null),
            ("mem", 0.into()),
            ("array", "1-3".into()),
            ("reservation", Value::Null),
            ("comment", "two words".into()),
        ],
    );
    let mut job = job("p-demo");
    job.dependency = Some(Dependency::AfterOk("7".into()));
    let (lines, odd) = super::slurm::directives(&cluster, &job);
    assert_eq!(
        lines,
        [
            "--array=1-3",
            "--comment='two words'",
            "--dependency=afterok:7",
            "--error=/r/log-p-demo_%A_%a.err",
            "--gpus-per-node=8",
            "--gpus-per-task=1",
            "--job-name=p-demo",
            "--mem=0",
            "--nodelist=n1,n2",
            "--nodes=2",
            "--ntasks-per-node=4",
            "--output=/r/log-p-demo_%A_%a.out",
            "--time=0:10:00",
        ]
    );
    assert_eq!(odd, []);
}

#[test]
fn a_misspelt_directive_is_kept_with_a_warning_and_too_few_gpus_are_noticed() {
    let cluster = cluster(
        ClusterType::Slurm,
        &[("partiton", "a".into()), ("gpus_per_node", 2.into())],
    );
    let (lines, odd) = super::slurm::directives(&cluster, &job("p-demo"));
    assert!(lines.contains(&"--partiton=a".to_owned()));
    assert!(
        odd[0].notes[0].contains("did you mean `partition`?"),
        "{}",
        odd[0]
    );
    assert!(
        odd[1].title.contains("starts 4 tasks on each node"),
        "{}",
        odd[1]
    );
}

#[test]
fn pyxis_options_are_left_out_when_there_is_no_image() {
    let mut cluster = cluster(ClusterType::Slurm, &[]);
    cluster.section.srun_args.push("--mpi=pmix".into());
    let script = text(&cluster, &job("p-demo"));
    assert!(!script.contains("container"), "{script}");
    assert!(script.contains(".err --mpi=pmix bash -c"), "{script}");
}

#[test]
fn a_bcp_script_has_the_originals_bcprun_line_and_keeps_the_exit_status() {
    let mut job = job("demo");
    job.groups.truncate(1);
    let script = text(&cluster(ClusterType::Bcp, &[]), &job);
    let stamp = script
        .split("log-demo_")
        .nth(1)
        .and_then(|rest| rest.get(..11))
        .unwrap();
    assert_eq!(
        script.replace(stamp, "0102_030405"),
        r#"#!/bin/bash

# A group that fails ends the job; `tee` must not hide its exit status.
set -eo pipefail
# A signal is for the tasks, which save: this shell waits for them, and the log is kept to the end.
trap : INT TERM USR1
tee() { trap '' INT TERM USR1; command tee "$@"; }

# setup
export A=1

# command 1
bcprun --nnodes 2 --npernode 4 -no_redirect  --env 'A=1' --cmd "
  first;
  second " 2>&1 | tee -a /r/log-demo_0102_030405.out
"#
    );
}

#[test]
fn without_the_log_tab_bcprun_gets_an_empty_flag_as_before() {
    let mut cluster = cluster(ClusterType::Bcp, &[]);
    cluster.bcp_no_redirect = false;
    let mut job = job("demo");
    job.environment = vec![("A".into(), "it's a b".into())];
    let script = text(&cluster, &job);
    assert!(
        script.contains(r#"--npernode 4   --env 'A=it'"'"'s a b' --cmd "#),
        "{script}"
    );
    assert!(script.contains(r#"export A='it'"'"'s a b'"#), "{script}");
    // Every group gets the job's own size.
    assert_eq!(script.matches("--nnodes 2 --npernode 4").count(), 2);
}

#[test]
fn the_last_command_of_a_local_script_takes_the_shells_place() {
    let mut job = job("demo");
    job.resources.nodes = 1;
    job.groups[1].commands[0] = command(&[&["third", "a b"], &["--flag"]]);
    assert_eq!(
        text(&cluster(ClusterType::Interactive, &[]), &job),
        "#!/bin/bash\n\nset -e\n\n# setup\nexport A=1\n\n# command 1\nfirst\nsecond\n\n# command 2\n\
         exec third 'a b' \\\n  --flag\n"
    );
    job.resources.nodes = 2;
    let error = cluster(ClusterType::Interactive, &[])
        .render(&job, &Templates::default())
        .unwrap_err();
    assert!(error.to_string().contains("asks for 2 nodes"), "{error}");
}

#[test]
fn words_with_blanks_quotes_and_dollars_reach_the_command_unchanged() {
    let words = ["printf", "%s|", "a b", "it's", "$HOME", "\"q\"", "\\"];
    let mut job = job("p-demo");
    job.environment.clear();
    job.groups = vec![CommandGroup {
        commands: vec![command(&[&words])],
    }];
    let script = text(&cluster(ClusterType::Slurm, &[]), &job);
    // Stands in for srun: runs what follows its own options.
    let script =
        format!("srun() {{ while [ \"$1\" != bash ]; do shift; done; \"$@\"; }}\n{script}");
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "a b|it's|$HOME|\"q\"|\\|"
    );
}

#[test]
fn a_template_in_a_folder_replaces_the_programs_own_and_unknown_names_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let templates = Templates {
        folder: Some(folder.path().to_owned()),
    };
    let path = folder.path().join("local.sh.j2");
    let mut job = job("demo");
    job.resources.nodes = 1;
    let cluster = cluster(ClusterType::Interactive, &[]);
    fs_err::write(&path, "#!/bin/zsh\n{{ exports | join(' ') }}\n").unwrap();
    assert_eq!(
        cluster.render(&job, &templates).unwrap().0.text,
        "#!/bin/zsh\nA=1"
    );
    fs_err::write(&path, "{{ exprots }}\n").unwrap();
    let error = format!("{:#}", cluster.render(&job, &templates).unwrap_err());
    assert!(
        error.contains("local.sh.j2") && error.contains("undefined"),
        "{error}"
    );
}

/// Runs a script whose only command is `exit STATUS`, or what `command` says, with functions in the place of Slurm's
/// programs, and returns its exit status and output.
fn run_slurm_script(
    folder: &std::path::Path,
    directives: &[(&str, Value)],
    command_line: &[&str],
    job_state: &str,
) -> (Option<i32>, String) {
    let mut job = job("p-demo");
    job.paths.folder = folder.to_owned();
    job.state_folder = folder.join("results");
    job.groups = vec![CommandGroup {
        commands: vec![command(&[command_line])],
    }];
    let cluster = cluster(ClusterType::Slurm, directives);
    let bin = folder.join("bin");
    for (name, text) in [
        (
            "srun",
            "while [ \"$1\" != bash ]; do shift; done; exec \"$@\"",
        ),
        (
            "scontrol",
            &format!("echo \"scontrol $*\"; echo ' JobState={job_state} '"),
        ),
    ] {
        fs_err::create_dir_all(&bin).unwrap();
        let path = bin.join(name);
        fs_err::write(&path, format!("#!/bin/bash\n{text}\n")).unwrap();
        use std::os::unix::fs::PermissionsExt;
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let script = format!("PATH={}:$PATH\n{}", bin.display(), text(&cluster, &job));
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .env("SLURM_JOB_ID", "7")
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr),
    )
}

#[test]
fn a_job_that_stopped_after_saving_is_put_back_into_the_queue_and_a_failed_one_is_not() {
    let run = |requeue: bool, status: &str, state: &str| {
        let folder = tempfile::tempdir().unwrap();
        let requeue = [("requeue", requeue.into())];
        let (code, said) = run_slurm_script(folder.path(), &requeue, &["exit", status], state);
        (code, said.contains("scontrol requeue 7\n"))
    };
    assert_eq!(run(true, "75", "RUNNING"), (Some(75), true));
    assert_eq!(run(true, "1", "RUNNING"), (Some(1), false));
    assert_eq!(run(true, "0", "RUNNING"), (Some(0), false));
    assert_eq!(run(false, "75", "RUNNING"), (Some(75), false));
    // Killed: it may go on from what it saved before. By the state of the job, nobody wants that here.
    assert_eq!(run(true, "137", "RUNNING"), (Some(137), true));
    assert_eq!(run(true, "137", "CANCELLED"), (Some(137), false));
    // Somebody cancelled it.
    assert_eq!(run(true, "75", "CANCELLED"), (Some(75), false));
}

#[test]
fn a_job_that_comes_no_further_leaves_the_queue_and_progress_starts_the_count_again() {
    let folder = tempfile::tempdir().unwrap();
    let directives = [
        ("requeue", true.into()),
        ("requeue_without_progress", 2.into()),
    ];
    let saved = folder.path().join("results/checkpoints/last.safetensors");
    fs_err::create_dir_all(saved.parent().unwrap()).unwrap();
    let requeued = |step: &str| {
        fs_err::write(&saved, step).unwrap();
        run_slurm_script(folder.path(), &directives, &["exit", "75"], "RUNNING")
            .1
            .contains("scontrol requeue 7\n")
    };
    assert!(requeued("step 1"));
    assert!(requeued("step 1"));
    assert!(requeued("step 2"));
    assert!(requeued("step 2"));
    assert!(!requeued("step 2"));
}

#[test]
fn a_job_that_is_killed_again_before_it_saved_anything_leaves_the_queue() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("results/checkpoints/last.safetensors");
    fs_err::create_dir_all(saved.parent().unwrap()).unwrap();
    let requeued = |step: &str| {
        fs_err::write(&saved, step).unwrap();
        let (code, said) = run_slurm_script(
            folder.path(),
            &[("requeue", true.into())],
            &["exit", "137"],
            "RUNNING",
        );
        assert_eq!(code, Some(137), "the status tells how it ended");
        said.contains("scontrol requeue 7\n")
    };
    assert!(requeued("step 1"));
    assert!(requeued("step 2"));
    assert!(!requeued("step 2"));
}

#[test]
fn signals_to_the_shell_reach_the_tasks_and_their_exit_status_is_the_scripts() {
    for signal in ["USR1", "TERM"] {
        let folder = tempfile::tempdir().unwrap();
        // The command signals the shell that started srun, and saves when the signal comes back to it.
        let work = format!(
            "trap 'echo saved; exit 75' {signal}; kill -{signal} $PPID; for i in $(seq 200); do sleep 0.05; done; exit 1"
        );
        let (code, said) = run_slurm_script(
            folder.path(),
            &[("signal", "B:USR1@120".into())],
            &["bash", "-c", &work],
            "RUNNING",
        );
        assert_eq!((code, said.as_str()), (Some(75), "saved\n"), "{signal}");
    }
}

#[test]
fn an_array_has_one_header_and_a_script_for_each_task() {
    use super::slurm::array;
    let cluster = array::cluster_for(&cluster(ClusterType::Slurm, &[]), 2, Some(1));
    let mut jobs = [job("p-demo"), job("p-demo")];
    jobs[1].paths.folder = "/r/it's 2".into();
    let script = array::render(&cluster, &jobs, "/a".as_ref(), &Templates::default()).unwrap();
    assert_eq!(
        script.text,
        r#"#!/bin/bash

# Parameters
#SBATCH --array=0-1%1
#SBATCH --error=/a/log-p-demo_%A_%a.err
#SBATCH --job-name=p-demo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --output=/a/log-p-demo_%A_%a.out
#SBATCH --time=0:10:00

# Each task is a job with a script of its own.
scripts=(
  /r/p-demo_submission.sh
  '/r/it'"'"'s 2/p-demo_submission.sh'
)
exec bash "${scripts[$SLURM_ARRAY_TASK_ID]}"
"#
    );
    // A task's own logs are named by the array's number as well.
    assert!(text(&cluster, &jobs[0]).contains("srun --output /r/log-p-demo_%A_%a.out "));
    jobs[1].resources.nodes = 3;
    let error = array::render(&cluster, &jobs, "/a".as_ref(), &Templates::default()).unwrap_err();
    assert!(
        error.to_string().contains("all jobs of an array"),
        "{error}"
    );
}
