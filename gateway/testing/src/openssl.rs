//! Certificates as people make them: with `openssl`, by the recipes every tutorial has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::tools;
use super::x509::Shown;

/// A directory in which `openssl` works.
pub struct OpenSsl {
    program: PathBuf,
    directory: TempDir,
}

impl OpenSsl {
    #[expect(clippy::new_without_default, reason = "each one is a directory of its own")]
    pub fn new() -> Self {
        Self { program: tools::openssl(), directory: TempDir::new().expect("a temporary directory") }
    }

    /// Runs `openssl` with arguments that are parted by blanks.
    pub fn run(&self, arguments: &str) {
        let mut command = Command::new(&self.program);
        let output = command.args(arguments.split_whitespace()).current_dir(self.directory.path()).output();
        let output = output.expect("openssl runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}\n{said}");
    }

    /// Makes `{name}.pem` and `{name}-key.pem`: self-signed, good for a day, with more arguments of `openssl req`.
    pub fn self_signed(&self, name: &str, subject: &str, more: &str) {
        self.run(&format!(
            "req -x509 -nodes -days 1 -subj {subject} -keyout {name}-key.pem -out {name}.pem {more}"
        ));
    }

    /// Makes `{name}.pem` and `{name}-key.pem`, signed by the CA in `{ca}.pem`, with `extensions` a line each.
    pub fn signed(&self, name: &str, subject: &str, ca: &str, extensions: &str, more: &str) {
        self.request(name, subject, "rsa:2048");
        self.sign(name, ca, extensions, more);
    }

    /// Makes `{name}.csr` and `{name}-key.pem`.
    pub fn request(&self, name: &str, subject: &str, key: &str) {
        self.run(&format!(
            "req -new -newkey {key} -nodes -subj {subject} -keyout {name}-key.pem -out {name}.csr"
        ));
    }

    /// Makes `{name}.pem` of `{name}.csr`.
    pub fn sign(&self, name: &str, ca: &str, extensions: &str, more: &str) {
        let mut command = format!(
            "x509 -req -days 1 -in {name}.csr -CA {ca}.pem -CAkey {ca}-key.pem -CAcreateserial -out {name}.pem"
        );
        if !extensions.is_empty() {
            fs::write(self.path("extensions"), extensions).expect("a file");
            command += " -extfile extensions";
        }
        self.run(&format!("{command} {more}"));
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).expect("openssl made the file")
    }

    /// What a client shows that has `{name}.pem` and its key, and sends `others` along.
    pub fn shown(&self, name: &str, others: &[&str]) -> Shown {
        let mut chain = self.read(&format!("{name}.pem"));
        others.iter().for_each(|other| chain += &self.read(&format!("{other}.pem")));
        Shown::from_pem(&chain, &self.read(&format!("{name}-key.pem")))
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}
