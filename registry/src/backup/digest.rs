//! Reads or writes through a SHA-256.

use std::io::{self, BufRead, Read, Write};

use sha2::{Digest, Sha256};

/// A stream, and the digest of all that went through it.
pub(super) struct Digested<T> {
    inner: T,
    digest: Sha256,
}

impl<T> Digested<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { inner, digest: Sha256::new() }
    }

    /// The stream, and the digest as a line of hex.
    pub(super) fn finish(self) -> (T, String) {
        let digest = self.digest.finalize();
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        (self.inner, hex + "\n")
    }
}

impl<T: BufRead> Digested<T> {
    /// The next line, with its end; an error when it is no text or longer than `bytes_max`.
    pub(super) fn line(&mut self, bytes_max: u64) -> io::Result<String> {
        let mut line = Vec::new();
        (&mut self.inner).take(bytes_max).read_until(b'\n', &mut line)?;
        self.digest.update(&line);
        String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

impl<T: Read> Read for Digested<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.digest.update(&buffer[..count]);
        Ok(count)
    }
}

impl<T: Write> Write for Digested<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.digest.update(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The length of the line `finish` gives.
pub(super) const LINE_BYTES: usize = 65;
