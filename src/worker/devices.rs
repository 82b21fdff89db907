//! Which device a job runs on, and in which number format.

use anyhow::Result;
use candle_core::{DType, Device};

use crate::diag::Diagnostic;
use crate::schema::{Accelerator, Precision};
use crate::sys::env_vars;

/// The device that `trainer.accelerator` asks for. Where this build or machine has no GPU the CPU is taken, and said so.
pub(super) fn device(accelerator: Accelerator) -> Result<Device> {
    if accelerator == Accelerator::Cpu {
        return Ok(Device::Cpu);
    }
    if cfg!(feature = "cuda") {
        match Device::new_cuda(0) {
            Ok(device) => return Ok(device),
            Err(error) => {
                tracing::warn!("no CUDA device can be used ({error}): this job runs on the CPU");
            }
        }
    } else if accelerator == Accelerator::Gpu {
        tracing::warn!(
            "this build of ptune has no CUDA: the job runs on the CPU (`trainer.accelerator=cpu` says so without this \
             warning; `cargo build --release --features cuda` makes a build for GPUs)"
        );
    }
    Ok(Device::Cpu)
}

/// The type that the frozen weights are held in on `device`.
pub(super) fn dtype(precision: Precision, device: &Device) -> DType {
    let asked = match precision {
        Precision::Float32 => DType::F32,
        Precision::Float16 => DType::F16,
        Precision::BFloat16 => DType::BF16,
    };
    // The CPU has kernels for bf16; what it would gain by f16 it would lose by widening.
    if device.is_cpu() && asked == DType::F16 {
        tracing::info!("precision {precision} becomes 32 on the CPU, where it is exact and faster");
        return DType::F32;
    }
    asked
}

/// What this task does in its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// All the work.
    Works,
    /// Nothing: another task of the job does the work.
    Watches,
}

/// Whether a model can be shared out so.
///
/// # Errors
/// When a model-parallel size above 1 is asked for.
pub(super) fn check_model_parallel(
    tensor_parallel: usize,
    pipeline_parallel: usize,
) -> Result<(), Diagnostic> {
    if tensor_parallel * pipeline_parallel > 1 {
        return Err(Diagnostic::configuration(format!(
            "tensor_model_parallel_size {tensor_parallel} and pipeline_model_parallel_size {pipeline_parallel} need {} \
             devices for one model, and this version of ptune runs a model on one",
            tensor_parallel * pipeline_parallel
        ))
        .hint("set both to 1")
        );
    }
    Ok(())
}

/// The role of this task among those that the scheduler started.
///
/// One task of a job works; a job of several is right all the same, only not faster, and says so.
///
/// # Errors
/// When a model-parallel size above 1 is asked for.
pub(super) fn role(tensor_parallel: usize, pipeline_parallel: usize) -> Result<Role> {
    check_model_parallel(tensor_parallel, pipeline_parallel)?;
    let (rank, world_size) = rank_and_world_size(&env_vars::get);
    if rank > 0 {
        tracing::info!("task {rank} of {world_size} has nothing to do: task 0 does the work");
        return Ok(Role::Watches);
    }
    if world_size > 1 {
        tracing::warn!(
            "this job was started as {world_size} tasks, and this version of ptune uses one device: task 0 does all the \
             work (devices=1 num_nodes=1 in the `trainer` section asks for no more than that)"
        );
    }
    Ok(Role::Works)
}

/// Number of this task and of all tasks, as Slurm, Open MPI or PyTorch's launchers tell them.
fn rank_and_world_size(variable: &dyn Fn(&str) -> Option<String>) -> (usize, usize) {
    let number = |name: &str| variable(name).and_then(|text| text.parse::<usize>().ok());
    [
        (env_vars::RANK, env_vars::WORLD_SIZE),
        (
            env_vars::OMPI_COMM_WORLD_RANK,
            env_vars::OMPI_COMM_WORLD_SIZE,
        ),
        (env_vars::SLURM_PROCID, env_vars::SLURM_NTASKS),
    ]
    .into_iter()
    .find_map(|(rank, size)| {
        let rank = number(rank)?;
        // Base Command Platform may tell the one without the other, and two tasks may never both be the first.
        Some((rank, number(size).unwrap_or(rank + 1)))
    })
    .unwrap_or((0, 1))
}

/// The most memory that this process has held, in bytes.
#[cfg(target_os = "linux")]
pub(super) fn peak_memory_bytes() -> Option<u64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// The most memory that this process has held, in bytes.
#[cfg(not(target_os = "linux"))]
pub(super) fn peak_memory_bytes() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_launcher_tells_a_task_its_number_and_one_that_tells_no_size_is_believed() {
        let told = |variables: &[(&str, &str)]| {
            rank_and_world_size(&|name| {
                let found = variables.iter().find(|(key, _)| *key == name)?;
                Some(found.1.to_owned())
            })
        };
        assert_eq!(told(&[]), (0, 1));
        assert_eq!(
            told(&[("SLURM_PROCID", "3"), ("SLURM_NTASKS", "8")]),
            (3, 8)
        );
        assert_eq!(
            told(&[("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")]),
            (1, 2)
        );
        // What was started for one rank of a job counts before what is said of the job.
        assert_eq!(
            told(&[
                ("SLURM_PROCID", "0"),
                ("SLURM_NTASKS", "1"),
                ("RANK", "5"),
                ("WORLD_SIZE", "6")
            ]),
            (5, 6)
        );
        assert_eq!(
            told(&[("RANK", "2")]),
            (2, 3),
            "two tasks are never both the first"
        );
        assert_eq!(
            told(&[("WORLD_SIZE", "4")]),
            (0, 1),
            "a size alone is no number"
        );
    }
}
