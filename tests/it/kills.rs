//! A training that is killed (SIGKILL) at any moment: whatever stands under its final name is whole, the same command
//! goes on, and the end is the bytes of an undisturbed run.
//!
//! Twelve kills here; `PTUNE_KILLS=200 cargo test --release --test it kills -- --nocapture` tries as many as it says, and
//! `PTUNE_KILLS_SEED` chooses other moments.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ptune::sys::rng::SeededRng;

use crate::sandbox::Sandbox;
use crate::tiny_models::tiny_gpt2;
use crate::worker_train::config;

const STEPS: usize = 30;
const RESULTS: &str = "run/results";

/// When a process is killed, after its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// Anywhere between its start and its end.
    Anywhere,
    /// At the start: reading, tokenising, resuming.
    Start,
    /// After a number of further steps, in the middle of one.
    Step,
    /// While a checkpoint is being written: an unfinished file is there.
    Checkpoint,
    /// After the last step: last checkpoint, best state, archive, report.
    End,
}

const MOMENTS: [Moment; 5] = [
    Moment::Anywhere,
    Moment::Start,
    Moment::Step,
    Moment::Checkpoint,
    Moment::End,
];

fn setting(name: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a setting of this test alone")]
    let value = std::env::var(name).ok();
    value.map_or(default, |value| value.parse().unwrap())
}

fn write_inputs(sandbox: &Sandbox) {
    tiny_gpt2(&sandbox.path("gpt2"));
    let rows: String = (0..24)
        .map(|row| {
            let answer = if row % 2 == 0 { "even" } else { "odd" };
            format!("{{\"taskname\":\"squad\",\"context\":\"row {row}\",\"question\":\"kind\",\"answer\":\"{answer}\"}}\n")
        })
        .collect();
    // States saved at validations and between, accumulation, more than one pass over shuffled rows. The path of the model
    // is relative, since the archive, which two sandboxes must have alike, tells it.
    let steps = format!("trainer.max_steps={STEPS}");
    let changes = [
        &steps,
        "trainer.val_check_interval=3",
        "exp_manager.checkpoint_callback_params={save_top_k: 2, every_n_train_steps: 4}",
        "model.global_batch_size=7",
        "model.micro_batch_size=1",
    ];
    config(sandbox, Path::new("gpt2"), "run", &changes);
    sandbox.write("train.jsonl", rows);
}

fn start(sandbox: &Sandbox) -> Child {
    sandbox
        .command(&["worker", "prompt_learning", "--config", "run.yaml"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(
            fs_err::OpenOptions::new()
                .create(true)
                .append(true)
                .open(sandbox.path("log"))
                .unwrap()
                .into_parts()
                .0,
        ))
        .spawn()
        .unwrap()
}

/// All files below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    let Ok(entries) = fs_err::read_dir(folder) else {
        return found;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    name.starts_with(".ptune-")
}

/// Each start writes one of its own.
fn is_event_file(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    name.starts_with("events.out.tfevents.")
}

/// Records of TensorBoard: length, its checksum, bytes, their checksum.
fn check_records(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        bytes = &bytes[12 + usize::try_from(length).unwrap() + 4..];
    }
}

/// Metrics without what a clock says.
fn metrics(text: &str) -> Vec<serde_json::Value> {
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "a torn line: {text}"
    );
    text.lines()
        .map(|line| {
            let mut object: serde_json::Value = serde_json::from_str(line).unwrap();
            for key in ["step_seconds", "validation_seconds"] {
                object.as_object_mut().unwrap().shift_remove(key);
            }
            object
        })
        .collect()
}

/// Fails where a file that stands under its final name is not whole. Returns the names of those looked at.
fn check_files(sandbox: &Sandbox) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for path in files(&sandbox.path(RESULTS)) {
        if is_unfinished(&path) {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = || fs_err::read_to_string(&path).unwrap();
        match path
            .extension()
            .map(|end| end.to_string_lossy().into_owned())
            .as_deref()
        {
            Some("safetensors") => {
                let checkpoints = ptune::train::CheckpointFolder::new(sandbox.path(RESULTS));
                assert!(checkpoints.load(&path).unwrap().is_some());
                sandbox.expect(&["inspect", path.to_str().unwrap()], 0);
            }
            Some("nemo") => {
                let archive = ptune::export::nemo::PromptArchive::open(&path).unwrap();
                assert_eq!(archive.tasks["squad"].dims(), [5, 16]);
                sandbox.expect(&["inspect", path.to_str().unwrap()], 0);
            }
            Some("jsonl") => {
                metrics(&text());
            }
            Some("json") => {
                serde_json::from_str::<serde_json::Value>(&text()).unwrap();
            }
            Some("html") => assert!(text().trim_end().ends_with("</html>")),
            _ if is_event_file(&path) => {
                check_records(&fs_err::read(&path).unwrap());
                names.insert("events.out.tfevents".to_owned());
                continue;
            }
            _ => assert_eq!(name, "in_use", "a file of unknown kind"),
        }
        names.insert(name);
    }
    names
}

/// What must not depend on how often a run was killed: contents by name, metrics without times.
fn outcome(sandbox: &Sandbox) -> BTreeMap<String, Vec<u8>> {
    let root = sandbox.path(RESULTS);
    files(&root)
        .into_iter()
        .filter(|path| !is_event_file(path))
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            let contents = match name.as_str() {
                "metrics.jsonl" => {
                    serde_json::to_vec(&metrics(&sandbox.read("run/results/metrics.jsonl")))
                        .unwrap()
                }
                // Times, and the number of a process.
                "report.html" | "checkpoints/in_use" => vec![],
                _ => fs_err::read(&path).unwrap(),
            };
            (name, contents)
        })
        .collect()
}

fn lines(sandbox: &Sandbox) -> usize {
    fs_err::read_to_string(sandbox.path("run/results/metrics.jsonl"))
        .unwrap_or_default()
        .matches("\"loss\"")
        .count()
}

/// Waits until `moment` has come, or the process has ended.
fn wait_for(
    moment: Moment,
    child: &mut Child,
    sandbox: &Sandbox,
    rng: &mut SeededRng,
    whole: Duration,
) {
    let mut ended = || child.try_wait().unwrap().is_some();
    let share = |rng: &mut SeededRng, of: Duration| of.mul_f64(rng.uniform());
    let begun = lines(sandbox);
    match moment {
        Moment::Anywhere => std::thread::sleep(share(rng, whole)),
        Moment::Start => std::thread::sleep(share(rng, whole / 6)),
        Moment::Step => {
            let further = 1 + rng.below(STEPS / 5);
            while lines(sandbox) < begun + further && lines(sandbox) < STEPS && !ended() {
                std::thread::sleep(Duration::from_micros(200));
            }
            std::thread::sleep(share(rng, Duration::from_millis(8)));
        }
        Moment::Checkpoint => {
            let which = 1 + rng.below(4);
            for _ in 0..which {
                std::thread::sleep(share(rng, Duration::from_millis(3)));
                while !ended()
                    && !files(&sandbox.path(RESULTS))
                        .iter()
                        .any(|path| is_unfinished(path))
                {}
            }
        }
        Moment::End => {
            while lines(sandbox) < STEPS && !ended() {
                std::thread::sleep(Duration::from_micros(200));
            }
            std::thread::sleep(share(rng, whole / 5));
        }
    }
}

#[test]
fn a_run_killed_at_any_moment_goes_on_to_the_bytes_of_an_undisturbed_one() {
    let kills = setting("PTUNE_KILLS", 12);
    let seed = setting("PTUNE_KILLS_SEED", 20);
    let mut rng = SeededRng::new(seed, 0);
    let sandbox = Sandbox::new();
    write_inputs(&sandbox);
    let started = Instant::now();
    assert!(
        start(&sandbox).wait().unwrap().success(),
        "{}",
        sandbox.read("log")
    );
    let whole = started.elapsed();
    check_files(&sandbox);
    let undisturbed = outcome(&sandbox);
    let expected = [
        "checkpoints/best.safetensors",
        "checkpoints/last.safetensors",
        "metrics.jsonl",
        "prompt.nemo",
    ];
    assert!(
        expected.iter().all(|name| undisturbed.contains_key(*name)),
        "{:?}",
        undisturbed.keys()
    );

    let (mut done, mut runs) = (0, 0);
    let mut by_moment: BTreeMap<Moment, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut unfinished = 0;
    let mut killed_in_this_run = 0;
    fs_err::remove_dir_all(sandbox.path("run")).unwrap();
    loop {
        let mut child = start(&sandbox);
        let mut moment = None;
        if done < kills {
            let chosen = MOMENTS[rng.below(MOMENTS.len())];
            wait_for(chosen, &mut child, &sandbox, &mut rng, whole);
            child.kill().unwrap();
            moment = Some(chosen);
        }
        let status = child.wait().unwrap();
        seen.extend(check_files(&sandbox));
        if !status.success() {
            assert_eq!(
                status.code(),
                None,
                "it failed by itself:\n{}",
                sandbox.read("log")
            );
            unfinished += u64::from(
                files(&sandbox.path(RESULTS))
                    .iter()
                    .any(|path| is_unfinished(path)),
            );
            done += 1;
            *by_moment.entry(moment.unwrap()).or_default() += 1;
            killed_in_this_run += 1;
            continue;
        }
        // It came to its end: as if nothing had been.
        let found = outcome(&sandbox);
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            undisturbed.keys().collect::<Vec<_>>(),
            "after {killed_in_this_run} kills"
        );
        for (name, contents) in &undisturbed {
            assert!(
                found[name] == *contents,
                "`{name}` differs after {killed_in_this_run} kills"
            );
        }
        runs += 1;
        killed_in_this_run = 0;
        if done >= kills {
            break;
        }
        fs_err::remove_dir_all(sandbox.path("run")).unwrap();
    }
    println!(
        "{done} kills (seed {seed}) in {runs} runs of {STEPS} steps and {:.2} s: {by_moment:?}; {unfinished} while a file was \
         being written; files read: {seen:?}; {:.0} s in all",
        whole.as_secs_f64(),
        started.elapsed().as_secs_f64()
    );
}
