//! A folder of its own for a test, and the `ptune` program run in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A temporary folder and what is done in it.
pub(crate) struct Sandbox {
    folder: tempfile::TempDir,
}

/// What a run of the program left.
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Whether this was a dry run that came to its end; files that are not there make its status 2.
    pub(crate) fn showed_scripts(&self) -> bool {
        let of_paths = self.stderr.contains("BAD  paths");
        self.stdout.contains("#!/bin/bash")
            && (self.status == Some(0) || (self.status == Some(2) && of_paths))
    }
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, text).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs_err::read_to_string(self.path(name)).unwrap()
    }

    /// A shell script that can be run.
    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.write(name, format!("#!/bin/bash\n{text}"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        path
    }

    /// The program, in this folder, with none of the variables that change what it does.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ptune"));
        command.args(words).current_dir(self.folder.path());
        command.env("PTUNE_OFFLINE", "1");
        command.env("XDG_STATE_HOME", self.path("state"));
        command.env("XDG_CACHE_HOME", self.path("cache"));
        for name in [
            "NEMO_LAUNCHER_DEBUG",
            "NEMO_LAUNCHER_CI",
            "NEMO_LAUNCHER_MEMORY_MEASURE",
            "PTUNE_LOG",
            "PTUNE_LOG_FILE",
            "RANK",
            "WORLD_SIZE",
        ] {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn ptune(&self, words: &[&str]) -> Ran {
        self.ran(self.command(words).output().unwrap())
    }

    /// Runs the program and expects `status`, and never a panic.
    #[track_caller]
    pub(crate) fn expect(&self, words: &[&str], status: i32) -> Ran {
        let ran = self.ptune(words);
        assert!(!ran.stderr.contains("panicked at"), "{}", ran.stderr);
        assert_eq!(
            ran.status,
            Some(status),
            "stdout:\n{}\nstderr:\n{}",
            ran.stdout,
            ran.stderr
        );
        ran
    }

    /// Runs a dry run of which the scripts alone matter: its inputs may be missing, which it reports with status 2.
    #[track_caller]
    pub(crate) fn scripts(&self, words: &[&str]) -> Ran {
        let ran = self.ptune(words);
        assert!(!ran.stderr.contains("panicked at"), "{}", ran.stderr);
        assert!(ran.showed_scripts(), "{}\n{}", ran.stdout, ran.stderr);
        ran
    }

    pub(crate) fn ran(&self, output: Output) -> Ran {
        let text = |bytes| self.normalised(&String::from_utf8_lossy(bytes));
        Ran {
            status: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// `text` with what differs from run to run replaced: this folder, times of day in the names of logs, the program.
    pub(crate) fn normalised(&self, text: &str) -> String {
        let real = |path: &Path| path.canonicalize().unwrap().display().to_string();
        let mut text = text
            .replace(&real(self.folder.path()), "/sandbox")
            .replace(&self.folder.path().display().to_string(), "/sandbox")
            .replace(env!("CARGO_BIN_EXE_ptune"), "/bin/ptune");
        // log-NAME_MMDD_HHMMSS.out
        let mut from = 0;
        while let Some(at) = text[from..].find(".out").map(|at| at + from) {
            from = at + 4;
            let is_stamp = at >= 11
                && text.is_char_boundary(at - 11)
                && text[at - 11..at].bytes().enumerate().all(|(index, byte)| {
                    if index == 4 {
                        byte == b'_'
                    } else {
                        byte.is_ascii_digit()
                    }
                });
            if is_stamp {
                text.replace_range(at - 11..at, "0102_030405");
            }
        }
        text
    }
}
