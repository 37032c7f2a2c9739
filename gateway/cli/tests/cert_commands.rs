//! The certificate workflow as a person does it: mint, enrol, verify, inspect, connect, rotate; one command each.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use portcullis_testing::x509::Shown;
use portcullis_testing::{TestHub, within};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

/// Somebody at a shell in a directory of their own.
struct Shell {
    login: String,
    ca: String,
    directory: TempDir,
}

impl Shell {
    fn of(hub: &TestHub) -> Self {
        let policies = hub.hub.policies();
        let key = policies.find("iothubowner").unwrap().keys.primary.to_base64();
        let (host, port) = (hub.hub.hosts.primary(), hub.https.port());
        Self {
            login: format!(
                "HostName={host}:{port};SharedAccessKeyName=iothubowner;SharedAccessKey={}",
                key.as_str()
            ),
            ca: hub.data_dir().join("ca.pem").display().to_string(),
            directory: TempDir::new().unwrap(),
        }
    }

    /// Exit code, standard output and standard error of a command line.
    async fn run(&self, line: &str) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command
            .args(line.split_whitespace())
            .env("PORTCULLIS_CONNECTION_STRING", &self.login)
            .env("PORTCULLIS_CA", &self.ca)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = within(command.output()).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// What a command line that must succeed prints.
    async fn print(&self, line: &str) -> String {
        let (code, out, err) = self.run(line).await;
        assert_eq!(code, Some(0), "{line}: {err}");
        out
    }

    async fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.print(line).await).unwrap()
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.directory.path().join(file)).unwrap()
    }

    fn mode(&self, file: &str) -> u32 {
        fs::metadata(self.directory.path().join(file)).unwrap().permissions().mode() & 0o777
    }

    /// What a device shows that was given `{name}.pem` and its key.
    fn shown(&self, name: &str) -> Shown {
        Shown::from_pem(&self.read(&format!("{name}.pem")), &self.read(&format!("{name}-key.pem")))
    }
}

#[tokio::test]
async fn from_a_ca_of_ones_own_to_a_connected_device_and_module() {
    let hub = TestHub::start().await;
    let shell = Shell::of(&hub);
    let made = shell.json("cert ca create --name fleet").await;
    assert_eq!((&made["certificate"], &made["key"]), (&"./fleet.pem".into(), &"./fleet-key.pem".into()));
    assert_eq!((shell.mode("fleet.pem"), shell.mode("fleet-key.pem")), (0o644, 0o600));
    shell.print("cert ca create --name line-1 --signed-by fleet.pem").await;
    let issue = "cert device issue --device-id pump-7 --ca-cert line-1.pem";
    let (_, out, err) = shell.run(issue).await;
    assert!(!format!("{out}{err}").contains("PRIVATE"), "{out}{err}");
    assert_eq!(shell.mode("pump-7-key.pem"), 0o600);
    // Nothing is ever overwritten.
    let before = shell.read("pump-7-key.pem");
    let (code, _, err) = shell.run(issue).await;
    assert_eq!((code, shell.read("pump-7-key.pem")), (Some(4), before), "{err}");

    let create = "identity create -d pump-7 --am x509_ca";
    shell.print(&format!("device-{create}")).await;
    shell.print(&format!("module-{create} -m camera")).await;
    shell.print("cert device issue -d pump-7 -m camera --ca-cert line-1.pem").await;
    // Before the CA is enrolled, enrolled and not verified, and verified.
    let inspect = "cert inspect pump-7.pem -d pump-7";
    let (code, out, _) = shell.run(inspect).await;
    assert!(code == Some(1) && out.contains("would not admit pump-7"), "{out}");
    assert!(out.contains("the chain ends at issuer CN=fleet, which is no enrolled CA"), "{out}");
    shell.print("cert ca enrol --name fleet fleet.pem").await;
    let (code, out, _) = shell.run(inspect).await;
    assert!(code == Some(1) && out.contains("enrolled but not verified"), "{out}");
    let verified = shell.json("cert ca verify --name fleet --ca-cert fleet.pem").await;
    assert_eq!(verified["verification"], "proven");
    let out = shell.print(inspect).await;
    assert!(out.contains("subject     CN=pump-7") && out.contains("The hub would admit pump-7"), "{out}");
    let (code, out, _) = shell.run("cert inspect pump-7.pem -d pump-7 -m camera").await;
    let reason = r#"common name is "pump-7" and must be "pump-7/camera""#;
    assert!(code == Some(1) && out.contains(reason), "{out}");

    hub.connect_x509("pump-7", &shell.shown("pump-7")).await.unwrap().settle().await;
    let mut camera = hub.connect_x509("pump-7/camera", &shell.shown("pump-7-camera")).await.unwrap();
    camera.settle().await;
    let listed = shell.print("cert ca list -o table").await;
    assert!(listed.contains("fleet") && listed.contains("true") && listed.contains("CN=fleet"), "{listed}");
    shell.print("cert ca remove --name fleet").await;
    assert!(camera.closed().await);
    assert_eq!(shell.json("cert ca list").await, serde_json::json!([]));
    assert_eq!(shell.run("cert ca remove --name fleet").await.0, Some(3));
    hub.stop().await;
}

#[tokio::test]
async fn t412_a_ca_whose_key_is_kept_elsewhere_is_verified_in_two_steps_or_marked() {
    let hub = TestHub::start().await;
    let shell = Shell::of(&hub);
    shell.print("cert ca create --name fleet").await;
    shell.print("cert ca create --name other").await;
    shell.print("cert ca enrol --name fleet fleet.pem").await;
    let (_, out, err) = shell.run("cert ca verify --name fleet").await;
    let code: Value = serde_json::from_str(&out).unwrap();
    let code = code["verificationCode"].as_str().unwrap();
    assert!(err.contains(&format!("-subj '/CN={code}'")), "{err}");
    shell.print(&format!("cert device issue -d {code} --ca-cert other.pem --name wrong")).await;
    let (exit, _, err) = shell.run("cert ca verify --name fleet --proof wrong.pem").await;
    assert!(exit == Some(1) && err.contains("stays unverified"), "{err}");
    shell.print(&format!("cert device issue -d {code} --ca-cert fleet.pem --name proof")).await;
    // The file has the CA's certificate behind the proof, as a device's has.
    let proof = shell.read("proof.pem");
    let alone = &proof[..proof.rfind("-----BEGIN").unwrap()];
    fs::write(shell.directory.path().join("proof.pem"), alone).unwrap();
    let verified = shell.json("cert ca verify --name fleet --proof proof.pem").await;
    assert_eq!(verified["verified"], true);

    let marked = shell.json("cert ca enrol --name other --verified other.pem").await;
    assert_eq!((&marked["verified"], &marked["verification"]), (&true.into(), &"asserted".into()));
    assert_eq!(marked["reason"], "marked verified on enrolment");
    // A file with the CA's key in it does not leave this machine unnoticed: the hub refuses it.
    let both = format!("{}{}", shell.read("fleet.pem"), shell.read("fleet-key.pem"));
    fs::write(shell.directory.path().join("both.pem"), both).unwrap();
    let (exit, _, err) = shell.run("cert ca enrol --name both both.pem").await;
    assert!(exit == Some(1) && err.contains("private key") && !err.contains("BEGIN"), "{err}");
    hub.stop().await;
}

#[tokio::test]
async fn t414_a_thumbprint_is_rotated_without_losing_the_connection() {
    let hub = TestHub::start().await;
    let shell = Shell::of(&hub);
    let (_, _, next) = shell.run("cert device issue -d pump-7 --self-signed").await;
    // It says the command that registers the device; do as it says.
    let register = next.lines().find_map(|line| line.strip_prefix("Next: portcullis ")).unwrap();
    shell.print(register).await;
    let thumbprint = shell.print("cert thumbprint pump-7.pem").await;
    assert!(register.contains(thumbprint.trim()), "{register}");
    assert_eq!(shell.print("cert thumbprint --sha1 pump-7.pem").await.trim().len(), 40);
    let mut client = hub.connect_x509("pump-7", &shell.shown("pump-7")).await.unwrap();

    assert_eq!(shell.run("cert device rotate -d pump-7 --finish").await.0, Some(1));
    shell.print("cert device issue -d pump-7 --self-signed --name new").await;
    shell.print("cert device rotate -d pump-7 --new new.pem").await;
    client.settle().await;
    let mut client = hub.connect_x509("pump-7", &shell.shown("new")).await.unwrap();
    shell.print("cert device rotate -d pump-7 --finish").await;
    client.settle().await;
    assert!(hub.connect_x509("pump-7", &shell.shown("pump-7")).await.is_err());
    let (code, out, _) = shell.run("cert inspect pump-7.pem -d pump-7").await;
    assert!(code == Some(1) && out.contains(thumbprint.trim()) && out.contains("registered: "), "{out}");
    client.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn without_a_hub_the_file_alone_is_judged_and_that_is_said() {
    let hub = TestHub::start().await;
    let shell = Shell::of(&hub);
    shell.print("cert ca create --name fleet").await;
    shell.print("cert device issue -d pump-7 --ca-cert fleet.pem").await;
    hub.stop().await;
    let (code, out, err) = shell.run("cert inspect pump-7.pem -d pump-7").await;
    assert_eq!(code, Some(0));
    assert!(
        err.contains("the hub could not be reached") && out.contains("Judged by the file alone"),
        "{out}{err}"
    );
    let out = shell.print("cert inspect pump-7.pem -d pump-7 --ca-cert fleet.pem").await;
    assert!(out.contains("A hub that has CN=fleet enrolled and verified would admit pump-7"), "{out}");
    let (code, _, err) = shell.run("cert inspect nothing.pem").await;
    assert!(code == Some(1) && err.contains("nothing.pem"), "{err}");
}
