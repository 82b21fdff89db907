//! Every key that shapes a training, by what it changes.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde_json::Value;

use crate::sandbox::{Ran, Sandbox};
use crate::tiny_models::{tiny_gpt2, tiny_t5};
use crate::worker_train::{config, losses, metrics, train};

/// A sandbox with a tiny GPT-2, and the place to run trainings of it in.
struct Bench {
    sandbox: Sandbox,
    model: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let model = tiny_gpt2(&sandbox.path("gpt2"));
        Self { sandbox, model }
    }

    fn run(&self, results: &str, changes: &[&str], status: i32) -> Ran {
        let config = config(&self.sandbox, &self.model, results, changes);
        train(&self.sandbox, &config, status)
    }

    /// The losses of a training's steps.
    fn losses(&self, results: &str, changes: &[&str]) -> Vec<f64> {
        self.run(results, changes, 0);
        losses(&self.sandbox, results)
    }

    /// What a training wrote to metrics.jsonl under a key.
    fn logged(&self, results: &str, key: &str) -> Vec<f64> {
        metrics(&self.sandbox, results)
            .iter()
            .filter_map(|line| line[key].as_f64())
            .collect()
    }

    /// After which steps a training validated.
    fn validations(&self, results: &str, changes: &[&str]) -> Vec<u64> {
        self.run(results, changes, 0);
        metrics(&self.sandbox, results)
            .iter()
            .filter(|line| !line["val_loss"].is_null())
            .map(|line| line["step"].as_u64().unwrap())
            .collect()
    }

    /// Names of the files in `checkpoints`.
    fn checkpoints(&self, results: &str) -> Vec<String> {
        names(&self.sandbox.path(&format!("{results}/results/checkpoints")))
            .into_iter()
            .filter(|name| name.ends_with(".safetensors"))
            .collect()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

const PROMPT_TUNING: &str = "model.virtual_prompt_style=prompt-tuning";

#[test]
fn every_optimizer_lowers_the_loss_its_own_way_and_names_of_one_are_one() {
    let bench = Bench::new();
    let run = |name: &str, more: &str| {
        let results = name.replace(|c: char| !c.is_alphanumeric(), "_");
        let optim = format!("model.optim={{name: {name}, {more}, sched: null}}");
        bench.losses(&results, &[PROMPT_TUNING, "trainer.max_steps=24", &optim])
    };
    let adam = "lr: 0.1, weight_decay: 0.1";
    let runs = [
        run("adamw", adam),
        run("adam", adam),
        run("sgd", "lr: 5.0, momentum: 0.5, weight_decay: 0.0"),
        run("adafactor", "lr: 0.3, weight_decay: 1.0e-05"),
    ];
    for (number, one) in runs.iter().enumerate() {
        assert!(one[23] < 0.95 * one[0], "{number}: {one:?}");
        for other in &runs[..number] {
            assert!(one[1..] != other[1..], "two rules make the same steps");
        }
    }
    for alias in [
        "fused_adam",
        "distributed_fused_adam",
        "megatron_fused_adam",
    ] {
        assert_eq!(run(alias, adam), runs[0], "{alias}");
    }
}

#[test]
fn runs_stopped_after_every_step_come_to_the_bytes_of_undisturbed_ones() {
    for optim in [
        "{name: adamw, lr: 0.05}",
        "{name: adam, lr: 0.05, weight_decay: 0.1}",
        "{name: sgd, lr: 1.0, momentum: 0.9, nesterov: true}",
        "{name: adafactor, lr: 0.1, beta1: 0.9}",
        "{name: adafactor, lr: 0.1, relative_step: true, scale_parameter: true}",
    ] {
        let bench = Bench::new();
        let optim = format!("model.optim={optim}");
        let mut changes = vec![
            "trainer.max_steps=5",
            "model.nemo_path=prompt.nemo",
            "trainer.val_check_interval=2",
            "trainer.precision=16",
            "model.native_amp_growth_interval=2",
            &optim,
        ];
        bench.run("whole", &changes, 0);
        let whole = fs_err::read(bench.sandbox.path("prompt.nemo")).unwrap();
        fs_err::remove_file(bench.sandbox.path("prompt.nemo")).unwrap();
        changes.push("exp_manager.max_time_per_run='00:00:00:00'");
        for _ in 0..4 {
            let said = bench.run("parts", &changes, 75).stderr;
            assert!(said.contains("max_time_per_run"), "{said}");
            assert!(!bench.sandbox.path("prompt.nemo").exists());
        }
        bench.run("parts", &changes, 0);
        assert!(
            whole == fs_err::read(bench.sandbox.path("prompt.nemo")).unwrap(),
            "{optim}: the run in parts went another way"
        );
        assert_eq!(
            bench.logged("parts", "loss_scale"),
            bench.logged("whole", "loss_scale")
        );
    }
}

#[test]
fn schedules_give_the_logged_learning_rates() {
    let bench = Bench::new();
    let rates = |results: &str, sched: &str| {
        let sched = format!("model.optim.sched={sched}");
        bench.run(
            results,
            &["trainer.max_steps=6", "model.optim.lr=0.06", &sched],
            0,
        );
        bench.logged(results, "lr")
    };
    let near = |found: Vec<f64>, expected: [f64; 6]| {
        assert_eq!(found.len(), 6);
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() < 1e-9,
                "{found} instead of {expected}"
            );
        }
    };
    near(rates("a", "null"), [0.06; 6]);
    near(
        rates("b", "{name: WarmupPolicy, warmup_steps: 2}"),
        [0.02, 0.04, 0.06, 0.06, 0.06, 0.06],
    );
    near(
        rates("c", "{name: WarmupAnnealing, min_lr: 0.0}"),
        [0.06, 0.05, 0.04, 0.03, 0.02, 0.01],
    );
    near(
        rates(
            "d",
            "{name: WarmupHoldPolicy, warmup_ratio: 0.34, hold_steps: 2}",
        ),
        [0.02, 0.04, 0.06, 0.06, 0.06, 0.06],
    );
    near(
        rates("e", "{name: StepLR, step_size: 2, gamma: 0.5}"),
        [0.06, 0.06, 0.03, 0.03, 0.015, 0.015],
    );
    // 24 rows in batches of 8 are epochs of 3 steps.
    near(
        rates("f", "{name: ExponentialLR, gamma: 0.1}"),
        [0.06, 0.06, 0.06, 0.006, 0.006, 0.006],
    );
}

#[test]
fn unknown_names_are_refused_with_the_nearest_and_idle_keys_are_told() {
    let bench = Bench::new();
    for (change, near) in [
        ("model.optim.name=adafctor", "adafactor"),
        ("model.optim.sched.name=CosineAnealing", "CosineAnnealing"),
        (
            "exp_manager.checkpoint_callback_params={monitor: val_los}",
            "val_loss",
        ),
    ] {
        let said = bench.run("a", &[change], 2).stderr;
        assert!(said.contains(&format!("did you mean `{near}`?")), "{said}");
    }
    let said = bench
        .run(
            "b",
            &[
                "trainer.max_steps=1",
                "model.optim.momentum=0.9",
                "model.optim.sched.hold_steps=2",
                "exp_manager.create_wandb_logger=True",
                "exp_manager.wandb_logger_kwargs={project: prompts}",
            ],
            0,
        )
        .stderr;
    for idle in [
        "`model.optim.momentum`",
        "`model.optim.sched.hold_steps`",
        "wandb sync --sync-tensorboard --project prompts",
    ] {
        assert!(said.contains(idle), "`{idle}` is missing in\n{said}");
    }
}

#[test]
fn clipping_bounds_the_step_by_norm_or_number_by_number() {
    let bench = Bench::new();
    let run = |results: &str, clip: &str, algorithm: &str| {
        let clip = format!("trainer.gradient_clip_val={clip}");
        let algorithm = format!("trainer.gradient_clip_algorithm={algorithm}");
        let optim = "model.optim={name: sgd, lr: 1.0, weight_decay: 0.0, sched: null}";
        bench.losses(
            results,
            &[
                PROMPT_TUNING,
                "trainer.max_steps=6",
                optim,
                &clip,
                &algorithm,
            ],
        )
    };
    let free = run("free", "null", "norm");
    assert_eq!(free, run("zero", "0.0", "value"));
    assert_eq!(free, run("far", "1.0e+6", "norm"));
    let norm = run("norm", "0.01", "norm");
    let value = run("value", "0.01", "value");
    assert!(free != norm && free != value && norm != value);
    // Steps of no size leave everything as it is.
    run("still", "1.0e-12", "value");
    let still = bench.logged("still", "val_loss");
    assert!((still[0] - still[1]).abs() < 1e-5, "{still:?}");
    let moved = bench.logged("norm", "val_loss");
    assert!((moved[0] - moved[1]).abs() > 1e-4, "{moved:?}");
    let norms = bench.logged("norm", "grad_norm");
    assert!(
        norms.iter().all(|norm| *norm > 0.01),
        "logged before clipping"
    );
}

#[test]
fn accumulated_batches_are_one_larger_batch() {
    let bench = Bench::new();
    let small = ["model.global_batch_size=4", "model.micro_batch_size=4"];
    let mut twice = small.to_vec();
    twice.push("trainer.accumulate_grad_batches=2");
    let accumulated = bench.losses("accumulated", &twice);
    assert_eq!(accumulated, bench.losses("large", &[]));
    assert!(accumulated != bench.losses("small", &small));
    assert_eq!(
        bench.logged("accumulated", "consumed_samples")[..2],
        [8.0, 16.0]
    );
}

#[test]
fn half_precision_scales_the_loss_by_powers_of_two_that_change_nothing_else() {
    let bench = Bench::new();
    let whole = bench.losses("whole", &[]);
    let changes = ["trainer.precision=16", "model.native_amp_growth_interval=3"];
    let half = bench.losses("half", &changes);
    assert_eq!(whole, half, "on the cpu numbers are f32");
    let scales = bench.logged("half", "loss_scale");
    let expected: Vec<f64> = (0..12).map(|step| 2f64.powi(32 + step / 3)).collect();
    assert_eq!(scales, expected);
    assert!(bench.logged("whole", "loss_scale").is_empty());
    // bf16 is rounded and needs no scale.
    let brain = bench.losses("brain", &["trainer.precision=bf16"]);
    assert!(bench.logged("brain", "loss_scale").is_empty());
    assert!(brain != whole);
    for (brain, whole) in brain.iter().zip(&whole) {
        assert!((brain / whole - 1.0).abs() < 0.02, "{brain} and {whole}");
    }
}

#[test]
fn steps_that_overflow_are_left_out_until_the_scale_is_small_enough() {
    let bench = Bench::new();
    let changes = [
        "trainer.precision=16",
        "model.native_amp_init_scale=1.0e+42",
        "trainer.max_steps=24",
    ];
    let said = bench.run("a", &changes, 0).stderr;
    assert!(said.contains("changed nothing"), "{said}");
    let lines = metrics(&bench.sandbox, "a");
    let steps: Vec<&Value> = lines.iter().filter(|line| !line["lr"].is_null()).collect();
    assert_eq!(steps.len(), 24);
    let is_skipped = |line: &&&Value| line["skipped"] == true;
    let skipped = steps.iter().take_while(is_skipped).count();
    assert!((3..20).contains(&skipped), "{skipped}");
    assert_eq!(steps.iter().filter(is_skipped).count(), skipped);
    let scale = |step: usize| steps[step]["loss_scale"].as_f64().unwrap();
    assert!(
        (scale(1) - 1e42).abs() < 1e30,
        "hysteresis forgives the first"
    );
    assert!((scale(2) - 5e41).abs() < 1e30, "and no more");
    assert!(steps[skipped]["grad_norm"].as_f64().unwrap() > 0.0);
    assert!(steps[0]["grad_norm"].is_null());
    // A step that is left out moves nothing: the same rows have the same loss as in a run that took it.
    let first = steps[0]["loss"].as_f64().unwrap();
    assert!((first - bench.losses("b", &["trainer.max_steps=1"])[0]).abs() < 1e-12);
}

#[test]
fn time_limits_end_a_run_after_the_step_at_hand() {
    let bench = Bench::new();
    let over = bench
        .run("over", &["trainer.max_time='00:00:00:00'"], 0)
        .stderr;
    assert!(
        over.contains("`trainer.max_time` is over after step 1"),
        "{over}"
    );
    assert_eq!(losses(&bench.sandbox, "over").len(), 1);
    assert!(bench.sandbox.path("over/results/prompt.nemo").is_file());
    // Without steps or epochs the time alone ends it.
    let changes = ["trainer.max_time={seconds: 1}", "trainer.max_steps=-1"];
    let alone = bench.losses("alone", &changes);
    assert!(alone.len() > 1, "{alone:?}");
    // More time is more training.
    let more = bench
        .run("over", &["trainer.max_time='00:01:00:00'"], 0)
        .stderr;
    assert!(more.contains("resuming at step 1"), "{more}");
    assert_eq!(losses(&bench.sandbox, "over").len(), 12);
}

#[test]
fn validations_come_when_they_are_asked_for() {
    let bench = Bench::new();
    let every = |results: &str, interval: &str, more: &[&str]| {
        let interval = format!("trainer.val_check_interval={interval}");
        let mut changes = vec![interval.as_str()];
        changes.extend(more);
        bench.validations(results, &changes)
    };
    // Epochs of 3 steps; 0.7 of one are 2, counted from its start.
    assert_eq!(every("a", "0.7", &[]), [2, 5, 8, 11, 12]);
    assert_eq!(every("b", "5", &[]), [5, 10, 12]);
    assert_eq!(
        every("c", "1.0", &["trainer.check_val_every_n_epoch=2"]),
        [6, 12]
    );
    assert_eq!(every("d", "3", &["trainer.limit_val_batches=0"]), [0; 0]);
    assert_eq!(
        every("e", "1.0", &["trainer.limit_train_batches=2"]),
        [2, 4, 6, 8, 10, 12]
    );
}

#[test]
fn batches_of_a_validation_weigh_the_same_and_limits_leave_some_out() {
    let bench = Bench::new();
    // The last 4 of 20 rows have longer answers, so that weights matter.
    let row = |row: usize| {
        let answer = if row < 16 { "no" } else { "a longer answer" };
        format!(
            "{{\"taskname\":\"squad\",\"context\":\"row {row}\",\"question\":\"kind\",\"answer\":\"{answer}\"}}\n"
        )
    };
    let rows = |rows: std::ops::Range<usize>| rows.map(row).collect::<String>();
    bench.sandbox.write("all.jsonl", rows(0..20));
    bench.sandbox.write("end.jsonl", rows(16..20));
    let first = |results: &str, changes: &[&str]| {
        let mut all = vec!["trainer.max_steps=1"];
        all.extend(changes);
        bench.run(results, &all, 0);
        bench.logged(results, "val_loss")[0]
    };
    let all = "model.data.validation_ds=[all.jsonl]";
    let end = first("end", &["model.data.validation_ds=[end.jsonl]"]);
    let one = first("one", &[all, "trainer.limit_val_batches=1"]);
    let two = first("two", &[all, "trainer.limit_val_batches=2"]);
    let near = |found: f64, expected: f64| {
        assert!(
            (found - expected).abs() < 1e-6,
            "{found} instead of {expected}"
        );
    };
    near(first("whole", &[all]), (2.0 * two + end) / 3.0);
    near(
        first("drop", &[all, "model.validation_drop_last=True"]),
        two,
    );
    near(first("share", &[all, "trainer.limit_val_batches=0.4"]), one);
    let larger = [all, "model.validation_global_batch_size=16"];
    near(first("larger", &larger), f64::midpoint(two, end));
    assert!((one - two).abs() > 1e-6 && (two - end).abs() > 1e-3);
    // A left-over batch is one micro-batch, however small those are.
    let small = [
        "model.data.validation_ds=[end.jsonl]",
        "model.validation_micro_batch_size=3",
    ];
    near(first("small", &small), end);
}

#[test]
fn early_stopping_waits_for_its_patience_and_heeds_its_thresholds() {
    let bench = Bench::new();
    let steps = |results: &str, params: &str, more: &[&str]| {
        let params = format!("exp_manager.early_stopping_callback_params={params}");
        let mut changes = vec![
            "trainer.val_check_interval=1",
            "model.optim.lr=1.0e-9",
            "exp_manager.create_early_stopping_callback=True",
            &params,
        ];
        changes.extend(more);
        let said = bench.run(results, &changes, 0).stderr;
        (losses(&bench.sandbox, results).len(), said)
    };
    let (count, said) = steps("a", "{patience: 3}", &[]);
    assert_eq!(count, 4, "the first is the best, and three more");
    assert!(
        said.contains("val_loss did not improve in 3 validations"),
        "{said}"
    );
    assert_eq!(steps("b", "{patience: 3, min_delta: -1}", &[]).0, 4);
    assert_eq!(steps("c", "{stopping_threshold: 100.0}", &[]).0, 1);
    assert_eq!(steps("d", "{divergence_threshold: 0.01}", &[]).0, 1);
    let training = "{monitor: reduced_train_loss, stopping_threshold: 100.0}";
    assert_eq!(steps("e", training, &["model.data.validation_ds=[]"]).0, 1);
    // What is not measured stops nothing, and is told.
    let (count, said) = steps("f", "{patience: 1}", &["model.data.validation_ds=[]"]);
    assert_eq!(count, 12);
    assert!(said.contains("no validation rows"), "{said}");
    let off = ["exp_manager.create_early_stopping_callback=False"];
    assert_eq!(steps("g", "{patience: 1}", &off).0, 12);
}

#[test]
fn answers_are_scored_at_each_validation_as_the_evaluation_scores_them() {
    for is_t5 in [false, true] {
        let sandbox = Sandbox::new();
        let model = if is_t5 {
            tiny_t5(&sandbox.path("t5"))
        } else {
            tiny_gpt2(&sandbox.path("gpt2"))
        };
        let changes = [
            "model.report_validation_metric=True",
            "model.decoder_seq_length=5",
            "model.inference={tokens_to_generate: 5}",
            "trainer.val_check_interval=20",
            "trainer.max_steps=60",
            "model.optim.lr=0.3",
            PROMPT_TUNING,
            "exp_manager.checkpoint_callback_params={save_best_model: false}",
        ];
        let config = config(&sandbox, &model, "a", &changes);
        train(&sandbox, &config, 0);
        let lines = metrics(&sandbox, "a");
        let scored: Vec<&Value> = lines
            .iter()
            .filter(|line| !line["val_f1"].is_null())
            .collect();
        assert_eq!(scored.len(), 3);
        sandbox.write(
            "eval.yaml",
            format!(
                "
run: {{name: eval, task_name: squad, results_dir: eval}}
trainer: {{devices: 1, num_nodes: 1, accelerator: cpu, precision: 32}}
data: {{test_ds: [train.jsonl], global_batch_size: 4, micro_batch_size: 4}}
inference: {{greedy: true, tokens_to_generate: 5}}
language_model_path: {}
virtual_prompt_model_file: a/results/prompt.nemo
pred_file_path: eval/predictions.txt
",
                model.display()
            ),
        );
        sandbox.expect(&["worker", "evaluation", "--config", "eval.yaml"], 0);
        let found = walk(&sandbox.path("eval"), "metrics.json");
        let evaluated: Value =
            serde_json::from_str(&fs_err::read_to_string(found).unwrap()).unwrap();
        for (ours, theirs) in [
            ("val_exact_match", "exact_match"),
            ("val_f1", "f1"),
            ("val_accuracy", "accuracy"),
            ("val_rouge_l", "rouge_l"),
        ] {
            assert_eq!(scored[2][ours], evaluated[theirs], "{ours}, T5: {is_t5}");
        }
    }
}

fn walk(folder: &Path, name: &str) -> PathBuf {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|found| found == name) {
                return path;
            }
        }
    }
    panic!("there is no {name}");
}

#[test]
fn a_monitored_score_decides_which_states_are_kept_under_names_with_it() {
    let sandbox = Sandbox::new();
    let model = tiny_t5(&sandbox.path("t5"));
    let changes = [
        "model.report_validation_metric=True",
        "model.decoder_seq_length=5",
        "trainer.val_check_interval=10",
        "trainer.max_steps=50",
        "model.optim.lr=0.3",
        PROMPT_TUNING,
        "exp_manager.checkpoint_callback_params={monitor: val_rouge_l, mode: max, save_top_k: 2, filename: \
         'p--{val_rouge_l:.2f}-{step}'}",
    ];
    let path = config(&sandbox, &model, "a", &changes);
    let said = train(&sandbox, &path, 0).stderr;
    let mut best: Vec<(f64, u64)> = metrics(&sandbox, "a")
        .iter()
        .filter_map(|line| Some((line["val_rouge_l"].as_f64()?, line["step"].as_u64()?)))
        .collect();
    assert_eq!(best.len(), 5);
    best.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut expected: Vec<String> = best[..2]
        .iter()
        .map(|(score, step)| format!("p--val_rouge_l={score:.2}-step={step}.safetensors"))
        .collect();
    expected.extend(["best.safetensors".to_owned(), "last.safetensors".to_owned()]);
    expected.sort();
    let found: Vec<String> = names(&sandbox.path("a/results/checkpoints"))
        .into_iter()
        .filter(|name| name.ends_with(".safetensors"))
        .collect();
    assert_eq!(found, expected);
    assert!(
        said.contains(&format!("taking the virtual tokens of step {}", best[0].1)),
        "{said}"
    );
    let wrong = [
        &changes[..6],
        &["exp_manager.checkpoint_callback_params={monitor: val_f1, mode: min}"],
    ]
    .concat();
    let path = config(&sandbox, &model, "b", &wrong);
    let said = train(&sandbox, &path, 2).stderr;
    assert!(said.contains("must be `max`"), "{said}");
}

#[test]
fn checkpoints_are_written_as_they_are_asked_for() {
    let bench = Bench::new();
    bench.run("none", &["exp_manager.create_checkpoint_callback=False"], 0);
    assert_eq!(bench.checkpoints("none"), [""; 0]);
    assert!(bench.sandbox.path("none/results/prompt.nemo").is_file());
    bench.run(
        "few",
        &["exp_manager.checkpoint_callback_params={save_top_k: 0}"],
        0,
    );
    assert_eq!(
        bench.checkpoints("few"),
        ["best.safetensors", "last.safetensors"]
    );
    // The archive of the best state so far is there while the run is not over.
    let stopped = [
        "exp_manager.max_time_per_run='00:00:00:00'",
        "trainer.val_check_interval=1",
        "model.save_nemo_on_validation_end=True",
    ];
    bench.run("early", &stopped, 75);
    assert!(bench.sandbox.path("early/results/prompt.nemo").is_file());
    bench.run("late", &stopped[..2], 75);
    assert!(!bench.sandbox.path("late/results/prompt.nemo").exists());
}

#[test]
fn tensorboard_files_hold_the_values_under_nemos_names() {
    let bench = Bench::new();
    let events = |results: &str| -> Vec<PathBuf> {
        let folder = bench.sandbox.path(&format!("{results}/results"));
        names(&folder)
            .into_iter()
            .filter(|name| name.starts_with("events.out.tfevents."))
            .map(|name| folder.join(name))
            .collect()
    };
    bench.run("with", &["trainer.max_steps=2"], 0);
    let found = events("with");
    assert_eq!(found.len(), 1);
    let bytes = fs_err::read(&found[0]).unwrap();
    for tag in [
        "reduced_train_loss",
        "lr",
        "val_loss",
        "consumed_samples",
        "train_step_timing in s",
    ] {
        let count = bytes
            .windows(tag.len())
            .filter(|window| *window == tag.as_bytes())
            .count();
        assert!(
            count >= if tag == "val_loss" { 1 } else { 2 },
            "{tag}: {count}"
        );
    }
    bench.run(
        "without",
        &["exp_manager.create_tensorboard_logger=False"],
        0,
    );
    assert!(events("without").is_empty());
}

#[test]
fn virtual_tokens_that_nothing_follows_are_told_before_training() {
    let bench = Bench::new();
    let template = "model.task_templates=[{taskname: squad, prompt_template: '{context} {question} {answer} \
                    <|VIRTUAL_PROMPT_0|>', total_virtual_tokens: 2, virtual_token_splits: [2]}]";
    let said = bench
        .run("a", &[template, "model.data.add_eos=False"], 1)
        .stderr;
    assert!(said.contains("would never be trained"), "{said}");
    assert!(said.contains("1 of task `squad`"), "{said}");
    assert!(losses_or_none(&bench, "a").is_empty());
    bench.run("b", &[template, "model.data.add_eos=True"], 0);
}

fn losses_or_none(bench: &Bench, results: &str) -> Vec<f64> {
    let path = bench
        .sandbox
        .path(&format!("{results}/results/metrics.jsonl"));
    if path.exists() {
        losses(&bench.sandbox, results)
    } else {
        vec![]
    }
}

#[test]
fn a_model_whose_numbers_are_not_finite_is_stopped_with_the_layers_name() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    let path = sandbox.path("gpt2/model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let bias = tensors["h.1.mlp.c_fc.bias"].dims().to_vec();
    let nan = Tensor::full(f32::NAN, bias, &Device::Cpu).unwrap();
    tensors.insert("h.1.mlp.c_fc.bias".to_owned(), nan);
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let path = config(&sandbox, &model, "a", &[]);
    let said = train(&sandbox, &path, 1).stderr;
    assert!(said.contains("layer 1, feed-forward"), "{said}");
    assert!(!sandbox.path("a/results/prompt.nemo").exists());
}
