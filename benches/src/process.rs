//! What another process costs, as the kernel counts it.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// A process that is watched.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    /// Its time on a CPU until now, in steps of 10 ms: measure over seconds.
    pub fn cpu(self) -> anyhow::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // The name in brackets may hold blanks; user and system time are the 12th and 13th field after it.
        let fields: Vec<&str> = stat.rsplit(')').next().context("no stat")?.split_whitespace().collect();
        let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<u64>().ok());
        let ticks = ticks(11).context("no user time")? + ticks(12).context("no system time")?;
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Its memory in bytes: what it holds alone, and its part of what it shares.
    pub fn proportional_bytes(self) -> anyhow::Result<u64> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }
}

/// How many files this process may have open.
pub fn files_max() -> anyhow::Result<usize> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line =
        limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no limit of files")?;
    Ok(line.split_whitespace().next().context("no limit of files")?.parse().unwrap_or(usize::MAX))
}

/// The machine's load average over a minute.
pub fn load_average() -> anyhow::Result<String> {
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(load.split(' ').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_memory_and_may_open_files() {
        let own = Process(std::process::id());
        assert!(own.proportional_bytes().unwrap() > 100_000);
        assert!(own.cpu().is_ok() && files_max().unwrap() > 10);
    }
}
