//! Words in a job's logs that say how it ended, for jobs of which nothing better is known than a number or nothing at all.

use super::{JobState, last_lines};
use crate::schema::JobManifest;

/// What Slurm's step daemon, the kernel, CUDA and Rust's allocator write.
const WORDS: [(&str, JobState); 9] = [
    ("DUE TO TIME LIMIT", JobState::TimeLimit),
    ("DUE TO PREEMPTION", JobState::Preempted),
    ("DUE TO NODE FAILURE", JobState::NodeFailure),
    ("oom_kill event", JobState::OutOfMemory),
    ("oom-kill event", JobState::OutOfMemory),
    ("Out Of Memory", JobState::OutOfMemory),
    ("CUDA_ERROR_OUT_OF_MEMORY", JobState::OutOfMemory),
    ("CUDA out of memory", JobState::OutOfMemory),
    ("memory allocation of ", JobState::OutOfMemory),
];

/// How the last lines of a job's logs say that it ended.
pub(super) fn end(manifest: &JobManifest) -> Option<JobState> {
    last_lines(manifest).iter().rev().find_map(|line| {
        WORDS
            .iter()
            .find(|(words, _)| line.contains(words))
            .map(|(_, state)| state.clone())
    })
}
