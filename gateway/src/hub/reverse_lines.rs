//! Reads the lines of a file from its end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// The lines of a file from the last to the first, without line ends. Holds one block and one line in memory.
pub(crate) struct Backwards {
    file: File,
    /// The position in the file where `read` begins.
    position: u64,
    /// Bytes that were read and not returned yet.
    read: Vec<u8>,
}

impl Backwards {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let position = file.metadata()?.len();
        let mut lines = Self { file, position, read: Vec::new() };
        lines.read_block()?;
        if lines.read.last() == Some(&b'\n') {
            lines.read.pop();
        }
        Ok(lines)
    }

    /// The next line; none after the first line of the file.
    pub(crate) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.read.iter().rposition(|byte| *byte == b'\n') {
                let line = self.read.split_off(end + 1);
                self.read.pop();
                return Ok(Some(line));
            }
            if self.position == 0 {
                let first = std::mem::take(&mut self.read);
                return Ok(Some(first).filter(|line| !line.is_empty()));
            }
            self.read_block()?;
        }
    }

    fn read_block(&mut self) -> io::Result<()> {
        let length = BLOCK_BYTES.min(self.position);
        self.position -= length;
        self.file.seek(SeekFrom::Start(self.position))?;
        let mut block = Vec::with_capacity(length as usize + self.read.len());
        (&self.file).take(length).read_to_end(&mut block)?;
        block.append(&mut self.read);
        self.read = block;
        Ok(())
    }
}

const BLOCK_BYTES: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn backwards(text: &str) -> Vec<String> {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("lines");
        fs::write(&path, text).unwrap();
        let mut lines = Backwards::open(&path).unwrap();
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            found.push(String::from_utf8(line).unwrap());
        }
        found
    }

    #[test]
    fn lines_come_from_the_last_to_the_first_whatever_their_length() {
        assert_eq!(backwards(""), [""; 0]);
        assert_eq!(backwards("a"), ["a"]);
        assert_eq!(backwards("a\nb\n"), ["b", "a"]);
        assert_eq!(backwards("a\n\nb"), ["b", "", "a"]);
        let long = ["x".repeat(200_000), "y".repeat(65_536), "z".to_owned(), "w".repeat(65_535)];
        let mut expected = long.to_vec();
        expected.reverse();
        assert_eq!(backwards(&format!("{}\n", long.join("\n"))), expected);
    }
}
