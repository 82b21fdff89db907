//! The ranks of a job on this machine: the same command several times, each told its number, their output side by side,
//! ended together. What `torchrun` is to the original.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::signals::{Forwarded, end_with_parent, send_to_group};
use super::submit::{exit_status, runtime};
use crate::sys::env_vars;
use crate::sys::shutdown::EXIT_STOPPED;

/// How long output is waited for once all ranks have ended: a process that they left behind may hold it open.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// Starts `count` processes of `command` with `RANK`, `LOCAL_RANK`, `WORLD_SIZE` and `LOCAL_WORLD_SIZE`, and returns the
/// exit status of the first that failed, or 75 where one stopped after saving, or 0.
///
/// Their output comes line by line on standard output and error, and in `log`; where there are several, `[RANK] ` stands
/// in front of each line. SIGINT, SIGTERM and SIGUSR1 are passed on to all. A rank that fails ends the others: SIGTERM,
/// and SIGKILL after `grace`. A rank that ends well, or because of a signal that was passed on, ends nobody.
///
/// # Errors
/// The log cannot be opened, or the command cannot be started.
pub fn run(count: usize, command: &[String], log: Option<&Path>, grace: Duration) -> Result<i32> {
    let (program, words) = command.split_first().context("there is no command")?;
    let output = Output::open(log)?;
    runtime()?.block_on(async {
        let mut signals = Forwarded::listen()?;
        let mut ranks = Ranks::default();
        let mut readers = JoinSet::new();
        for rank in 0..count {
            let mut command = Command::new(program);
            command
                .args(words)
                .env(env_vars::RANK, rank.to_string())
                .env(env_vars::LOCAL_RANK, rank.to_string())
                .env(env_vars::WORLD_SIZE, count.to_string())
                .env(env_vars::LOCAL_WORLD_SIZE, count.to_string())
                .env_remove(env_vars::PTUNE_LOG_FILE)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .process_group(0);
            end_with_parent(&mut command);
            let started = command
                .spawn()
                .with_context(|| format!("starting rank {rank}: `{program}`"));
            let mut child = match started {
                Ok(child) => child,
                Err(error) => {
                    ranks.send(libc::SIGKILL);
                    return Err(error);
                }
            };
            let tag = if count > 1 {
                format!("[{rank}] ")
            } else {
                String::new()
            };
            if let Some(pipe) = child.stdout.take() {
                readers.spawn(copy(pipe, output.clone(), tag.clone(), Stream::Output));
            }
            if let Some(pipe) = child.stderr.take() {
                readers.spawn(copy(pipe, output.clone(), tag, Stream::Error));
            }
            ranks.add(child);
        }
        while let Some(deadline) = ranks.deadline_while_running() {
            tokio::select! {
                Some(ended) = ranks.waiting.join_next() => {
                    let (rank, status) = ended.context("waiting for a rank")?;
                    if ranks.note_end(rank, status?, grace) {
                        let what = format!("rank {rank} ended with exit status {}", ranks.status());
                        output.line("ptune: ", format!("{what}; the others are asked to end\n").as_bytes(), Stream::Error);
                    }
                }
                signal = signals.next() => ranks.pass_on(signal),
                () = sleep_until(deadline) => ranks.send(libc::SIGKILL),
            }
        }
        let all_read = async { while readers.join_next().await.is_some() {} };
        // What a process left behind still writes is nobody's.
        let _ = timeout(LAST_OUTPUT, all_read).await;
        Ok(ranks.status())
    })
}

/// The processes, and what is known of their ends.
#[derive(Default)]
struct Ranks {
    waiting: JoinSet<(usize, std::io::Result<i32>)>,
    /// Process of each rank that runs; each leads a group.
    running: Vec<Option<u32>>,
    passed_on: Vec<i32>,
    failed: Option<i32>,
    stopped: Option<i32>,
    deadline: Option<Instant>,
}

impl Ranks {
    fn add(&mut self, mut child: tokio::process::Child) {
        let rank = self.running.len();
        self.running.push(child.id());
        self.waiting
            .spawn(async move { (rank, child.wait().await.map(exit_status)) });
    }

    /// When the ranks that still run are killed; none when all have ended.
    fn deadline_while_running(&self) -> Option<Instant> {
        const FAR: Duration = Duration::from_secs(86_400 * 365);
        let is_running = self.running.iter().any(Option::is_some);
        is_running.then(|| self.deadline.unwrap_or_else(|| Instant::now() + FAR))
    }

    fn send(&mut self, signal: i32) {
        for leader in &self.running {
            send_to_group(*leader, signal);
        }
        if signal == libc::SIGKILL {
            self.deadline = None;
        }
    }

    fn pass_on(&mut self, signal: i32) {
        self.passed_on.push(signal);
        self.send(signal);
    }

    /// Whether it is the first failure, after which the others are told to end.
    fn note_end(&mut self, rank: usize, status: i32, grace: Duration) -> bool {
        self.running[rank] = None;
        let was_told = status == EXIT_STOPPED || self.passed_on.contains(&(status - 128));
        if status == 0 {
            return false;
        }
        if was_told && (status == EXIT_STOPPED || !self.passed_on.is_empty()) {
            let status = if self.stopped == Some(EXIT_STOPPED) {
                EXIT_STOPPED
            } else {
                status
            };
            self.stopped = Some(status);
            return false;
        }
        if self.failed.is_some() {
            return false;
        }
        self.failed = Some(status);
        self.deadline = Some(Instant::now() + grace);
        self.send(libc::SIGTERM);
        self.running.iter().any(Option::is_some)
    }

    fn status(&self) -> i32 {
        self.failed.or(self.stopped).unwrap_or(0)
    }
}

#[derive(Clone, Copy)]
enum Stream {
    Output,
    Error,
}

/// Where the lines of all ranks go.
#[derive(Clone)]
struct Output {
    log: Option<Arc<Mutex<std::fs::File>>>,
}

impl Output {
    fn open(log: Option<&Path>) -> Result<Self> {
        let open = |path| {
            fs_err::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map(|file| Arc::new(Mutex::new(file.into_parts().0)))
        };
        Ok(Self {
            log: log.map(open).transpose()?,
        })
    }

    /// One line in one write, so that those of two ranks never mix. Whoever closed a stream does not want it.
    fn line(&self, tag: &str, line: &[u8], stream: Stream) {
        let mut text = [tag.as_bytes(), line].concat();
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        let _ = match stream {
            Stream::Output => {
                let mut out = std::io::stdout().lock();
                out.write_all(&text).and_then(|()| out.flush())
            }
            Stream::Error => std::io::stderr().lock().write_all(&text),
        };
        if let Some(mut log) = self.log.as_ref().and_then(|log| log.lock().ok()) {
            let _ = log.write_all(&text);
        }
    }
}

async fn copy(pipe: impl AsyncRead + Unpin, output: Output, tag: String, stream: Stream) {
    let mut reader = BufReader::new(pipe);
    let mut line = vec![];
    while let Ok(1..) = reader.read_until(b'\n', &mut line).await {
        output.line(&tag, &line, stream);
        line.clear();
    }
}
