//! The dry run: what can be known about the jobs of a command line where they are launched, before any of them waits in
//! a queue. What lies inside of checkpoints and rows is looked at by whoever the caller names.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::check_inputs::{BUILTIN, hints, is_prepared_at_launch};
use super::{Plan, PlannedJob, Settings};
use crate::config::ResolvedConfig;
use crate::diag::Diagnostic;
use crate::diag::checklist::Checklist;
use crate::launch::ClusterType;
use crate::launch::paths::absolute;
use crate::schema::{Evaluation, PromptLearning, WorkerJob, read_section};

/// Tells which stage of the same command line writes a path, where one does.
pub type WrittenBy<'a> = dyn Fn(&Path) -> Option<&'static str> + 'a;

/// Looks into the files that a job reads, adds what it finds to the list, and returns how many rows the job trains on
/// where it knows that.
pub type LookInside<'a> =
    dyn FnMut(WorkerJob, &ResolvedConfig, &WrittenBy<'_>, &mut Checklist) -> Option<usize> + 'a;

/// One list for each job of `plan`, in order.
///
/// # Errors
/// The current folder cannot be found, or a section that was read before cannot be read again.
pub fn dry_run(
    plan: &Plan,
    settings: &Settings,
    inside: &mut LookInside<'_>,
) -> Result<Vec<Checklist>> {
    let mut written: Vec<(PathBuf, &'static str)> = vec![];
    let mut lists = vec![];
    for job in &plan.jobs {
        let mut list = Checklist::new(format!("{}: {}", job.key(), job.spec.name));
        let by = |path: &Path| {
            let path = absolute(path).ok()?;
            let made = written.iter().find(|(made, _)| *made == path);
            made.map(|(_, stage)| *stage)
        };
        paths(job, plan, settings, &by, &mut list)?;
        match job.spec.stage {
            WorkerJob::PromptLearning => {
                let section: PromptLearning = read_section(&job.section, "")?;
                sizes(&section, &mut list);
                let rows = inside(job.spec.stage, &job.section, &by, &mut list);
                steps(
                    &section,
                    rows.or_else(|| count(&section.model.data.train_ds)),
                    &mut list,
                );
            }
            WorkerJob::Evaluation => {
                let section: Evaluation = read_section(&job.section, "")?;
                let plan = section.plan();
                list.good(
                    "batches",
                    format!("{} rows at once", grouped(plan.batch_size)),
                );
                inside(job.spec.stage, &job.section, &by, &mut list);
            }
            WorkerJob::Conversion => {
                inside(job.spec.stage, &job.section, &by, &mut list);
            }
            WorkerJob::DataPreparation => {}
        }
        artifacts(job, &mut list);
        for output in &job.outputs {
            written.push((absolute(output)?, job.key()));
        }
        lists.push(list);
    }
    Ok(lists)
}

/// What the job reads: there, or written by a job before it, or fetched when the jobs are launched.
fn paths(
    job: &PlannedJob,
    plan: &Plan,
    settings: &Settings,
    by: &WrittenBy<'_>,
    list: &mut Checklist,
) -> Result<()> {
    let (mut there, mut made, mut fetched) = (0, vec![], 0);
    let mut missing = vec![];
    for input in &job.inputs {
        let entry = (format!("{}.{}", job.key(), input.key), input.path.clone());
        if input.path.to_string_lossy().starts_with(BUILTIN) {
            there += 1;
        } else if let Some(stage) = by(&input.path) {
            if !made.contains(&stage) {
                made.push(stage);
            }
        } else if seen_from_here(&input.path, settings)?.exists() {
            there += 1;
            if let Some(problem) = outside_of_container(&entry, settings)? {
                list.odd("paths", problem);
            }
        } else if is_prepared_at_launch(&input.path, plan, settings) {
            fetched += 1;
        } else if !missing.contains(&entry) {
            missing.push(entry);
        }
    }
    let mut parts = vec![];
    if there > 0 || (missing.is_empty() && made.is_empty() && fetched == 0) {
        parts.push(format!("{there} there"));
    }
    if !made.is_empty() {
        parts.push(format!("the others are written by {}", made.join(", ")));
    }
    if fetched > 0 {
        parts.push(format!("{fetched} made of SQuAD's files at the launch"));
    }
    if !parts.is_empty() {
        list.good("paths", parts.join(", "));
    }
    for (key, path) in &missing {
        let mut problem =
            Diagnostic::configuration(format!("`{key}`: there is nothing at `{}`", path.display()));
        // Advice about all of them stands behind the last.
        if Some(path) == missing.last().map(|(_, path)| path) {
            for hint in hints(&missing, settings) {
                problem = problem.hint(hint);
            }
        }
        list.bad("paths", problem);
    }
    Ok(())
}

/// Where a path that the job uses lies on this machine: elsewhere where a container's mount says so.
fn seen_from_here(path: &Path, settings: &Settings) -> Result<PathBuf> {
    let path = absolute(path)?;
    let found = mounts(settings).find_map(|(outside, inside)| {
        let rest = path.strip_prefix(inside).ok()?;
        Some(Path::new(outside).join(rest))
    });
    Ok(match found {
        Some(found) if !path.exists() => found,
        _ => path,
    })
}

/// A path that exists here and that no mount brings into the container.
fn outside_of_container(entry: &(String, PathBuf), settings: &Settings) -> Result<Option<String>> {
    let path = absolute(&entry.1)?;
    if mounts(settings).next().is_none()
        || mounts(settings).any(|(_, inside)| path.starts_with(inside))
    {
        return Ok(None);
    }
    Ok(Some(format!(
        "`{}`: no mount brings {} into the container: container_mounts=[{}]",
        entry.0,
        path.display(),
        path.parent().unwrap_or(&path).display()
    )))
}

/// Mounts of the container that Slurm starts the job in: outside and inside.
fn mounts(settings: &Settings) -> impl Iterator<Item = (&str, &str)> {
    let cluster = &settings.cluster;
    let has_container = cluster.cluster_type == ClusterType::Slurm && cluster.container.is_some();
    let mounts = has_container.then_some(cluster.container_mounts.as_slice());
    mounts.into_iter().flatten().map(|mount| {
        let mut parts = mount.split(':');
        let outside = parts.next().unwrap_or_default();
        (outside, parts.next().unwrap_or(outside))
    })
}

/// How devices and batches divide. The section's own checks have refused what does not.
fn sizes(section: &PromptLearning, list: &mut Checklist) {
    let (trainer, model) = (&section.trainer, &section.model);
    let devices = trainer.devices.saturating_mul(trainer.num_nodes);
    let (tensor, pipeline) = (
        model.tensor_model_parallel_size,
        model.pipeline_model_parallel_size,
    );
    let data = devices / tensor.saturating_mul(pipeline).max(1);
    list.good(
        "devices",
        format!(
            "{} x {} = {devices}: tensor parallel {tensor} x pipeline parallel {pipeline} x data parallel {data}",
            counted(trainer.num_nodes, "node"),
            counted(trainer.devices, "device")
        ),
    );
    list.good(
        "batches",
        format!(
            "global {} = micro {} x accumulation {} x data parallel {data}",
            model.global_batch_size,
            model.micro_batch_size,
            model.micro_batches(data)
        ),
    );
}

/// Steps of the training, and what is odd about the other numbers of steps.
fn steps(section: &PromptLearning, rows: Option<usize>, list: &mut Checklist) {
    let name = "steps";
    let Some(rows) = rows else {
        list.unchecked(name, "they follow from the rows, which were not read");
        return;
    };
    let model = &section.model;
    let per_step = model.rows_per_step(&section.trainer);
    let Some(plan) = section.step_plan(rows) else {
        let problem = Diagnostic::configuration("nothing limits the training");
        list.bad(name, problem.hint("prompt_learning.trainer.max_steps=1000"));
        return;
    };
    if plan.epoch == 0 {
        let problem = Diagnostic::configuration(format!(
            "`prompt_learning.model.global_batch_size` {} is more than the {} to train on",
            per_step,
            counted(rows, "row")
        ));
        list.bad(
            name,
            problem.hint(format!("prompt_learning.model.global_batch_size={rows}")),
        );
        return;
    }
    if plan.total == usize::MAX {
        list.good(
            name,
            format!(
                "{} of {} an epoch, until `trainer.max_time` is over",
                counted(plan.epoch, "step"),
                counted(per_step, "row")
            ),
        );
        return;
    }
    let epochs = plan.total as f64 / plan.epoch as f64;
    let left_over = rows % per_step.max(1);
    let left_over = match left_over {
        0 => String::new(),
        rows => format!(", {} left over", counted(rows, "row")),
    };
    list.good(
        name,
        format!(
            "{} of {} an epoch{left_over}; {} in all, {epochs:.1} epochs",
            counted(plan.epoch, "step"),
            counted(per_step, "row"),
            grouped(plan.total)
        ),
    );
    if !model.data.validation_ds.is_empty() {
        let interval = plan.validation_interval;
        if interval > plan.total {
            list.odd(
                "validation",
                format!(
                    "every {} steps is never before the end at {}: \
                     prompt_learning.trainer.val_check_interval={}",
                    grouped(interval),
                    grouped(plan.total),
                    (plan.total / 10).max(1)
                ),
            );
        } else {
            // The last step validates as well.
            let times = plan.total.div_ceil(interval);
            list.good(
                "validation",
                format!(
                    "every {}, {}",
                    counted(interval, "step"),
                    counted(times, "time")
                ),
            );
        }
    }
    let Some(schedule) = &model.optim.sched else {
        return;
    };
    let limit = schedule.max_steps.unwrap_or(plan.total);
    let key = "prompt_learning.model.optim.sched";
    let steps = limit as u64;
    let (warmup, hold) = (schedule.warmup(steps), schedule.hold(steps));
    let constant = schedule.constant(steps);
    if constant + hold > 0 && warmup.saturating_add(constant).saturating_add(hold) > steps {
        let problem = Diagnostic::configuration(format!(
            "`{key}`: {warmup} warm-up, {hold} hold and {constant} constant steps do not fit into {limit} steps"
        ));
        list.bad(
            "schedule",
            problem.hint(format!(
                "{key}.warmup_steps={} {key}.constant_steps=0",
                limit / 10
            )),
        );
    } else if warmup >= steps {
        list.odd(
            "schedule",
            format!(
                "{warmup} warm-up steps of {limit}, the rate never reaches `optim.lr`: {key}.warmup_steps={}",
                limit / 10
            ),
        );
    }
}

/// What will be there when the job has ended.
fn artifacts(job: &PlannedJob, list: &mut Checklist) {
    let mut paths: Vec<PathBuf> = job.outputs.clone();
    if job.spec.stage == WorkerJob::PromptLearning {
        paths.push(job.spec.state_folder.join("metrics.jsonl"));
        paths.push(job.spec.state_folder.join("checkpoints"));
    }
    let mut name = "writes";
    for path in paths {
        let path = absolute(&path).unwrap_or(path);
        list.good(name, path.display().to_string());
        name = "";
    }
}

/// Rows of files, as lines that are not blank; nothing where one cannot be read.
fn count(paths: &[PathBuf]) -> Option<usize> {
    let mut rows = 0;
    for path in paths {
        let file = std::io::BufReader::new(fs_err::File::open(path).ok()?);
        for line in file.split(b'\n') {
            rows += usize::from(!line.ok()?.trim_ascii().is_empty());
        }
    }
    Some(rows)
}

/// `1 row`, `1,234 rows`.
fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

/// `1234567` as `1,234,567`.
fn grouped(number: usize) -> String {
    crate::diag::checklist::grouped(number as u64)
}
