//! Somebody at a shell: runs verbs of the built program against a test's hub, and knows how they end.
//!
//! Only an integration test knows where the program is: `env!("CARGO_BIN_EXE_portcullis")`.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::process::Command;

use crate::{TestHub, within};

/// A shell that has the connection string of a shared access policy in its environment.
#[derive(Clone, Debug)]
pub struct Shell {
    program: &'static str,
    login: String,
    pub ca: PathBuf,
}

/// How a verb ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Shell {
    /// Signs in with a policy of the hub.
    pub fn new(program: &'static str, hub: &TestHub, policy: &str) -> Self {
        let policies = hub.hub.policies();
        let key = policies.find(policy).expect("a policy of the hub").keys.primary.to_base64();
        Self::with_key(program, hub, policy, &key)
    }

    /// Signs in with any name and key.
    pub fn with_key(program: &'static str, hub: &TestHub, policy: &str, key: &str) -> Self {
        let (host, port) = (hub.hub.hosts.primary(), hub.https.port());
        Self {
            program,
            login: format!("HostName={host}:{port};SharedAccessKeyName={policy};SharedAccessKey={key}"),
            ca: hub.data_dir().join("ca.pem"),
        }
    }

    /// A verb, ready to be run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command
            .args(arguments)
            .env("PORTCULLIS_CONNECTION_STRING", &self.login)
            .env("PORTCULLIS_CA", &self.ca)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a verb to its end.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(within(self.command(arguments).output()).await.expect("the program runs"))
    }

    /// What a verb that must succeed prints.
    pub async fn print(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments).await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.err);
        ended.out
    }

    /// The JSON a verb that must succeed prints.
    pub async fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.print(arguments).await).expect("JSON")
    }

    /// What a verb that must fail with this exit code, and print nothing, says.
    pub async fn refused(&self, code: i32, arguments: &[&str]) -> String {
        let ended = self.run(arguments).await;
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.err);
        assert_eq!(ended.out, "", "{arguments:?}");
        ended.err
    }
}

impl Ended {
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program prints text");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}
