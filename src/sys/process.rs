//! Processes of this machine, told apart from later ones with the same number.

use std::path::Path;

/// Name of this machine.
pub fn host_name() -> Option<String> {
    let text = fs_err::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(text.trim().to_owned())
}

/// When a process started, in ticks since the machine did; none where there is no such process.
pub fn start_time(process: u32) -> Option<u64> {
    let text =
        fs_err::read_to_string(Path::new("/proc").join(process.to_string()).join("stat")).ok()?;
    // The name, which may hold anything, ends at the last bracket; the start is the 22nd field.
    text.rsplit(')')
        .next()?
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

/// How often this machine's kernel has killed a process for memory.
pub fn kills_for_memory() -> Option<u64> {
    let text = fs_err::read_to_string("/proc/vmstat").ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?
        .parse()
        .ok()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_started_and_one_that_has_ended_has_not() {
        assert!(start_time(std::process::id()).is_some());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert_eq!(start_time(child.id()), None);
    }
}
