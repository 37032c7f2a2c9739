//! A process that this program started, and what the kernel says it has used.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

/// A server of its own; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// What it says, in a file without a name: a pipe that nobody reads would fill up and stop it.
    said: File,
}

impl Process {
    /// Starts it. What it says is told if it ends early.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let said = tempfile::tempfile()?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said.try_clone()?);
        let child = command.spawn().with_context(|| format!("start {program}"))?;
        Ok(Self { child, said })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// That it has not ended; otherwise an error with what it said.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the server ended with {status}: {}", self.last_words()),
        }
    }

    /// The end of what it has said.
    pub fn last_words(&self) -> String {
        let mut said = Vec::new();
        let mut file = &self.said;
        let read = file.rewind().and_then(|()| file.read_to_end(&mut said));
        let from = said.len().saturating_sub(LAST_WORDS_BYTES);
        read.map_or_else(
            |error| error.to_string(),
            |_| String::from_utf8_lossy(&said[from..]).trim().to_owned(),
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The time a process has had on a CPU, all its threads together, in the kernel's ticks of 10 ms.
pub fn cpu_time(process: u32) -> anyhow::Result<Duration> {
    parse_cpu_time(&std::fs::read_to_string(format!("/proc/{process}/stat"))?)
}

/// What a process holds in memory, its share of what it shares with others counted as its part, in bytes.
pub fn pss_bytes(process: u32) -> anyhow::Result<u64> {
    parse_pss(&std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?)
}

/// The machine's load of the last minute.
pub fn load_average() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().context("a load")?.parse()?)
}

/// Source: proc_pid_stat(5), fields 14 and 15. The name, field 2, may hold anything, blanks and brackets too.
fn parse_cpu_time(stat: &str) -> anyhow::Result<Duration> {
    let (_, fields) = stat.rsplit_once(") ").context("no process name")?;
    let mut ticks = fields.split(' ').skip(11).map(str::parse::<u64>);
    let (user, system) = (ticks.next().context("no user time")??, ticks.next().context("no system time")??);
    Ok(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

/// Source: proc_pid_smaps(5); the kernel counts in KiB and writes kB.
fn parse_pss(rollup: &str) -> anyhow::Result<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// `USER_HZ`, which Linux has not changed on any machine this runs on.
const TICKS_PER_SECOND: u64 = 100;

const LAST_WORDS_BYTES: usize = 1024;

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
    fn this_process_has_used_something() {
        let own = std::process::id();
        // Three ticks and more.
        let busy_until = std::time::Instant::now() + Duration::from_millis(60);
        while std::time::Instant::now() < busy_until || cpu_time(own).unwrap().is_zero() {}
        assert!(pss_bytes(own).unwrap() > 100 * 1024);
        assert!(load_average().unwrap() >= 0.0);
    }

    #[test]
    fn a_server_that_ends_early_says_why() {
        let mut process =
            Process::start(Command::new("sh").args(["-c", "echo no such option >&2; exit 3"])).unwrap();
        let error = loop {
            if let Err(error) = process.check() {
                break error.to_string();
            }
            std::thread::yield_now();
        };
        assert!(error.contains("no such option") && error.contains('3'), "{error}");
    }
}
