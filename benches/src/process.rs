//! The cost of another process, as the kernel counts it.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// A process that is watched.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    /// Its CPU time until now, in steps of 10 ms. Measure over seconds.
    pub fn cpu(self) -> anyhow::Result<Duration> {
        parse_cpu_time(&fs::read_to_string(format!("/proc/{}/stat", self.0))?)
    }

    /// Its memory in bytes: what it holds alone, and its part of what it shares.
    pub fn proportional_bytes(self) -> anyhow::Result<u64> {
        parse_pss(&fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0))?)
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

/// Source: proc_pid_stat(5): in ticks of 10 ms. The name in brackets may hold anything, blanks and brackets too; user
/// and system time are the 12th and 13th field after it.
fn parse_cpu_time(stat: &str) -> anyhow::Result<Duration> {
    let fields: Vec<&str> = stat.rsplit(')').next().context("no stat")?.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<u64>().ok());
    let ticks = ticks(11).context("no user time")? + ticks(12).context("no system time")?;
    Ok(Duration::from_millis(ticks * 10))
}

/// Source: proc_pid_smaps(5); the kernel counts in KiB and writes kB.
fn parse_pss(rollup: &str) -> anyhow::Result<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_user_and_system_time_whatever_the_name() {
        let stat = "7 (a) R (b c) S 1 7 7 0 -1 4194560 99 0 0 0 150 50 9 9 20 0 4 0 1234 5 6";
        assert_eq!(parse_cpu_time(stat).unwrap(), Duration::from_secs(2));
        assert!(parse_cpu_time("7 (a) S 1").is_err());
    }

    #[test]
    fn pss_is_not_any_of_the_other_lines() {
        let rollup = "5600-7ff [rollup]\nRss:  900 kB\nPss_Dirty: 1 kB\nPss:     12 kB\nPss_Anon: 3 kB\n";
        assert_eq!(parse_pss(rollup).unwrap(), 12 * 1024);
        assert!(parse_pss("Rss: 900 kB\n").is_err());
    }

    #[test]
    fn this_process_has_used_memory_and_may_open_files() {
        let own = Process(std::process::id());
        assert!(own.proportional_bytes().unwrap() > 100_000);
        assert!(own.cpu().is_ok() && files_max().unwrap() > 10);
    }
}
