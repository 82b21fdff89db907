//! How a job can stand, in words.

use std::fmt;

/// How a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Written and never handed over (a dry run).
    Written,
    /// A stage of a chain on this machine whose turn has not come.
    Waits,
    /// In the queue, with Slurm's reason.
    Queued(String),
    /// In the queue for good: the job it waits for did not end as it had to.
    NeverStarts,
    /// Running.
    Running,
    /// Ended well.
    Done,
    /// Told to stop; its state is saved, and the same command goes on from there.
    Stopped,
    /// Ended badly.
    Failed(String),
    /// Cancelled by somebody.
    Cancelled,
    /// Ran into its time limit.
    TimeLimit,
    /// Killed for memory.
    OutOfMemory,
    /// Displaced by a job of higher priority.
    Preempted,
    /// Its node failed.
    NodeFailure,
    /// Nobody knows any more.
    Unknown(String),
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written => f.write_str("written, not handed over"),
            Self::Waits => f.write_str("waits for the stage before it"),
            Self::Queued(reason) if reason.is_empty() || reason == "None" => f.write_str("queued"),
            Self::Queued(reason) => write!(f, "queued ({reason})"),
            Self::NeverStarts => {
                f.write_str("will never start: the job before it did not end well")
            }
            Self::Running => f.write_str("running"),
            Self::Done => f.write_str("done"),
            Self::Stopped => f.write_str("stopped after saving"),
            Self::Failed(how) => write!(f, "failed ({how})"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::TimeLimit => f.write_str("ended by its time limit"),
            Self::OutOfMemory => f.write_str("ended: out of memory"),
            Self::Preempted => f.write_str("pre-empted"),
            Self::NodeFailure => f.write_str("ended: its node failed"),
            Self::Unknown(why) => write!(f, "unknown ({why})"),
        }
    }
}

impl JobState {
    /// Whether its logs may say why it ended.
    pub fn is_bad_end(&self) -> bool {
        matches!(
            self,
            Self::Failed(_) | Self::TimeLimit | Self::OutOfMemory | Self::NodeFailure
        )
    }

    /// Whether nothing more will happen by itself.
    pub fn has_ended(&self) -> bool {
        !matches!(self, Self::Queued(_) | Self::Running | Self::Waits)
    }
}
