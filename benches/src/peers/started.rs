//! A server that this program started.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};

/// A server in its own process; killed when dropped.
#[derive(Debug)]
pub(super) struct Started {
    child: Child,
    /// Its output, in an unnamed file. An unread pipe would fill up and block the server.
    said: File,
}

impl Started {
    /// Starts it. If it ends early, the error contains its output.
    pub(super) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let said = tempfile::tempfile()?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said.try_clone()?);
        let child = command.spawn().with_context(|| format!("start {program}"))?;
        Ok(Self { child, said })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails if it has ended, with its output.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the server ended with {status}: {}", self.last_words()),
        }
    }

    /// The end of its output.
    pub(super) fn last_words(&self) -> String {
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

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const LAST_WORDS_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_ends_early_says_why() {
        let mut server =
            Started::start(Command::new("sh").args(["-c", "echo no such option >&2; exit 3"])).unwrap();
        let error = loop {
            if let Err(error) = server.check() {
                break error.to_string();
            }
            std::thread::yield_now();
        };
        assert!(error.contains("no such option") && error.contains('3'), "{error}");
    }
}
