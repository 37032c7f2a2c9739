//! `device-identity import`, `export` and `rollback`: whole files of identities through the built command line, each
//! line with a result.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Stdio;

use portcullis_registry::identity::Status;
use portcullis_testing::shell::{Ended, Shell};
use portcullis_testing::{TestHub, within};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Child;

/// A file to import.
struct Lines {
    directory: TempDir,
}

impl Lines {
    fn new(file: &[u8]) -> Self {
        let lines = Self { directory: tempfile::tempdir().unwrap() };
        std::fs::write(lines.path("devices.txt"), file).unwrap();
        lines
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// The command that imports it.
    async fn import(&self, owner: &Shell, more: &[&str]) -> Ended {
        let line = ["device-identity", "import", "--input-file", &self.path("devices.txt")];
        owner.run(&[&line[..], more].concat()).await
    }
}

/// What the command says of each line, as line and outcome, and the exit code.
async fn import(owner: &Shell, file: &[u8]) -> (Vec<(u64, String)>, Option<i32>) {
    let ended = Lines::new(file).import(owner, &["--results-file", "-"]).await;
    let results = ended.out.lines().map(|line| {
        let result: Value = serde_json::from_str(line).unwrap();
        (result["line"].as_u64().unwrap(), result["outcome"].as_str().unwrap().to_owned())
    });
    (results.collect(), ended.code)
}

fn expected(results: &[(u64, &str)]) -> Vec<(u64, String)> {
    results.iter().map(|(line, result)| (*line, (*result).to_owned())).collect()
}

#[tokio::test]
async fn a_file_of_iot_hub_comes_in_with_keys_and_modules() {
    let hub = TestHub::start().await;
    let owner = Shell::new(PROGRAM, &hub, "iothubowner");
    let keys = json!({ "primaryKey": KEY, "secondaryKey": KEY });
    let authentication = json!({ "symmetricKey": keys, "type": "sas",
        "x509Thumbprint": { "primaryThumbprint": null, "secondaryThumbprint": null } });
    let mut file = String::new();
    for number in 0..150 {
        let line = json!({ "id": format!("d{number}"), "eTag": "MA==", "status": "disabled",
            "authentication": authentication, "twinETag": "AAAAAAAAAAE=", "tags": {} });
        file += &format!("{line}\r\n");
        let module = json!({ "id": format!("d{number}"), "moduleId": "m", "status": "enabled",
            "authentication": authentication });
        file += &format!("{module}\n");
    }
    let (results, code) = import(&owner, file.as_bytes()).await;
    assert_eq!(code, Some(0));
    assert_eq!(results, (1..=300).map(|line| (line, "created".to_owned())).collect::<Vec<_>>());
    let device = owner.json(&["device-identity", "show", "-d", "d149"]).await;
    assert_eq!(device["status"], "disabled");
    assert_eq!(device["authentication"]["symmetricKey"], keys);
    let module = owner.json(&["module-identity", "show", "-d", "d149", "-m", "m"]).await;
    assert_eq!(module["authentication"]["symmetricKey"], keys);
    hub.stop().await;
}

#[tokio::test]
async fn t808_a_bad_line_errs_and_the_rest_goes_on() {
    let hub = TestHub::start().await;
    let owner = Shell::new(PROGRAM, &hub, "iothubowner");
    let mut file =
        b"\xef\xbb\xbf{\"id\":\"a\"}\r\n\n{\"id\":\n{\"id\":\"\xff\"}\n{\"id\":\"b\",\"note\":\"".to_vec();
    file.extend(vec![b'x'; 64 * 1024]);
    file.extend(b"\"}\n[]\n{}\n{\"id\":\"c\",\"id\":\"d\"}\n{\"id\":\"no good\"}\n{\"id\":\"e\"}");
    let (results, code) = import(&owner, &file).await;
    let refused = "refused";
    let lines =
        [(1, "created"), (3, refused), (4, refused), (5, refused), (6, refused), (7, refused), (8, refused)];
    assert_eq!(results[..7], expected(&lines));
    assert_eq!(results[7..], expected(&[(9, refused), (10, "created")]));
    assert_eq!(code, Some(7));
    hub.stop().await;
}

#[tokio::test]
async fn t809_the_order_of_the_file_is_kept() {
    let hub = TestHub::start().await;
    let owner = Shell::new(PROGRAM, &hub, "iothubowner");
    let file = r#"{"id":"a","importMode":"create"}
{"id":"a","importMode":"create"}
{"id":"a","moduleId":"m","importMode":"create"}
{"id":"a","importMode":"delete"}
{"id":"a","moduleId":"m","importMode":"create"}
{"id":"a","importMode":"Create","statusReason":"again"}
{"id":"a","importMode":"updateIfMatchETag","eTag":"AAAAAAAAAAA="}
{"id":"a","importMode":"replace"}
"#;
    let (results, code) = import(&owner, file.as_bytes()).await;
    let outcomes: Vec<&str> = results.iter().map(|(_, result)| result.as_str()).collect();
    assert_eq!(
        outcomes,
        ["created", "refused", "created", "deleted", "refused", "created", "refused", "refused"],
        "{results:?}"
    );
    assert_eq!(code, Some(7));
    assert_eq!(owner.json(&["device-identity", "show", "-d", "a"]).await["statusReason"], "again");
    hub.stop().await;
}

#[tokio::test]
async fn a_dry_run_tells_what_would_be_and_changes_nothing_and_a_rollback_takes_an_import_back() {
    let hub = TestHub::start().await;
    let owner = Shell::new(PROGRAM, &hub, "iothubowner");
    let kept = hub.device("kept").await;
    let doomed = hub.device("doomed").await;
    hub.module("doomed", "m").await;
    hub.device("same").await;
    let list = ["device-identity", "list", "--query", "[].[deviceId, status, authentication]"];
    let before = owner.json(&list).await;
    let lines = Lines::new(
        br#"{"id":"new"}
{"id":"kept","status":"disabled"}
{"id":"doomed","importMode":"delete"}
{"id":"nobody","importMode":"update"}
not JSON
{"id":"same","importMode":"createOrUpdate"}
"#,
    );
    let tried = lines.import(&owner, &["--dry-run"]).await;
    assert_eq!(tried.code, Some(7), "{}", tried.err);
    let counts = "created    1\nchanged    1\nunchanged  1\ndeleted    1\nrefused    2\n";
    assert_eq!(
        tried.out,
        format!("nothing was changed; without --dry-run the import would end with:\n{counts}")
    );
    assert_eq!(owner.json(&list).await, before);

    let done = lines.import(&owner, &["--results-file", &lines.path("results.txt")]).await;
    assert_eq!((done.code, done.out.as_str()), (Some(7), counts), "{}", done.err);
    assert!(done.err.contains("line 4: nobody: nobody [DeviceNotFound]\nline 5: "), "{}", done.err);
    assert!(done.err.ends_with("error: 4 lines were applied, 2 were refused\n"), "{}", done.err);
    let results = std::fs::read_to_string(lines.path("results.txt")).unwrap();
    assert_eq!(results.lines().count(), 6);
    assert_ne!(owner.json(&list).await, before);

    let told = owner.json(&["device-identity", "rollback", "-o", "json"]).await;
    assert_eq!(told["outcomes"]["refused"], 0, "{told}");
    assert_eq!(owner.json(&list).await, before);
    for identity in [&kept, &doomed] {
        hub.connect(identity).await;
    }
    let words = owner.refused(4, &["device-identity", "rollback"]).await;
    assert!(words.contains("only the last import can be taken back"), "{words}");

    let jobs = owner.print(&["job", "list", "-o", "tsv"]).await;
    let kinds: Vec<&str> = jobs.lines().map(|line| line.split('\t').nth(1).unwrap()).collect();
    assert_eq!(kinds, ["rollback", "import", "import"]);
    let id = owner.print(&["job", "list", "--query", "[1].jobId", "-o", "tsv"]).await;
    let shown = owner.json(&["job", "show", "--job-id", id.trim()]).await;
    assert_eq!((&shown["linesDone"], &shown["linesFailed"]), (&json!(6), &json!(2)));
    owner.print(&["job", "cancel", "--jid", id.trim()]).await;
    assert_eq!(owner.json(&["job", "show", "--job-id", id.trim()]).await["status"], "completed");
    owner.refused(3, &["job", "show", "--job-id", "none"]).await;
    hub.stop().await;
}

#[tokio::test]
async fn an_export_comes_back_as_it_was_also_packed_and_through_standard_input() {
    let there = TestHub::start().await;
    let owner = Shell::new(PROGRAM, &there, "iothubowner");
    let pump = there.device("pump-7").await;
    let camera = there.module("pump-7", "camera").await;
    let off = there.device("off").await;
    there.change(&off, |spec| spec.status = Status::Disabled).await;
    let export = ["device-identity", "export"];
    let bare = owner.run(&export).await;
    assert_eq!(bare.code, Some(0), "{}", bare.err);
    assert_eq!(bare.err, "2 lines, without keys\n");
    for identity in [&pump, &off] {
        assert!(!bare.out.contains(identity.keys.primary.to_base64().as_str()), "{}", bare.out);
    }
    let whole = owner.print(&[&export[..], &["--ik", "--im"]].concat()).await;
    assert_eq!(whole.lines().count(), 3);
    let lines = Lines::new(b"");
    let file = lines.path("all.txt");
    let to_file = [&export[..], &["--include-keys", "--include-modules", "--output-file", &file]].concat();
    assert_eq!(owner.print(&to_file).await, "");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), whole);
    let words = owner.refused(4, &to_file).await;
    assert!(words.contains("exists already"), "{words}");

    let here = TestHub::start().await;
    let owner = Shell::new(PROGRAM, &here, "iothubowner");
    let packed = std::process::Command::new("gzip").args(["-c", &file]).output().unwrap().stdout;
    let import = ["device-identity", "import", "--input-file", "-", "-o", "json"];
    let mut child = owner
        .command(&import)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&packed).await.unwrap();
    let ended = Ended::of(within(child.wait_with_output()).await.unwrap());
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let job: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(job["outcomes"]["created"], 3);
    for identity in [&pump, &camera] {
        here.connect(identity).await;
    }
    let line = |text: &str| -> Vec<Value> {
        let parse = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().remove("eTag");
            line
        };
        text.lines().map(parse).collect()
    };
    let again = owner.print(&[&export[..], &["--ik", "--im"]].concat()).await;
    assert_eq!(line(&again), line(&whole));
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn containers_of_files_are_written_and_read_by_the_hub_itself() {
    let hub = TestHub::start().await;
    let owner = Shell::new(PROGRAM, &hub, "iothubowner");
    hub.device("pump-7").await;
    hub.module("pump-7", "camera").await;
    let export = ["device-identity", "export", "--bcu", "file:fleet", "--ik", "true"];
    let ended = owner.run(&export).await;
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(0), "", "2 lines\n"));
    let import =
        ["device-identity", "import", "--ibcu", "file:fleet", "--obcu", "file:fleet", "--query", "outcomes"];
    let told = owner.json(&import).await;
    assert_eq!((&told["unchanged"], &told["refused"]), (&json!(2), &json!(0)), "{told}");
    owner.refused(2, &import[..4]).await;
    let words = owner.refused(1, &["device-identity", "export", "--bcu", "file:../fleet"]).await;
    assert!(words.starts_with("error[400008]: "), "{words}");
    hub.stop().await;
}

#[tokio::test]
async fn ctrl_c_cancels_what_is_being_sent_and_a_second_job_waits_its_turn() {
    let hub = TestHub::start().await;
    let owner = Shell::new(PROGRAM, &hub, "iothubowner");
    let mut running = start(&owner, "-");
    let mut input = running.stdin.take().unwrap();
    input.write_all(b"{\"id\":\"a\"}\n").await.unwrap();
    // The hub has the beginning of the file once it tells of the job.
    until(&owner, "[?status=='enqueued']", true).await;
    let ended = Lines::new(b"{\"id\":\"b\"}").import(&owner, &[]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.err.contains("error[403003]: ") && ended.err.contains("job cancel"), "{}", ended.err);

    let ended = interrupt(running).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(130), "error: interrupted: nothing was imported\n"));
    drop(input);
    until(&owner, "[?status=='enqueued']", false).await;
    assert_eq!(owner.json(&["device-identity", "list"]).await, json!([]));
    hub.stop().await;
}

#[tokio::test]
async fn ctrl_c_cancels_what_is_being_imported_and_a_rollback_takes_back_what_is_done() {
    let hub = TestHub::start().await;
    let owner = Shell::new(PROGRAM, &hub, "iothubowner");
    // Each line waits for the one before it to be stored, and is so long that a few are one step of the job.
    let filling = "x".repeat(48 * 1024);
    let line = |number: usize| {
        let status = ["enabled", "disabled"][number % 2];
        format!("{{\"id\":\"a\",\"status\":\"{status}\",\"note\":\"{filling}\"}}\n")
    };
    let lines = Lines::new((0..400).map(line).collect::<String>().as_bytes());
    let running = start(&owner, &lines.path("devices.txt"));
    until(&owner, "[?linesDone>`0`]", true).await;
    let ended = interrupt(running).await;
    assert_eq!(ended.code, Some(130), "{}", ended.err);
    assert!(ended.err.contains("error: the job was cancelled after "), "{}", ended.err);
    assert!(ended.err.contains("`portcullis device-identity rollback` undoes"), "{}", ended.err);
    assert_eq!(owner.json(&["device-identity", "list", "--query", "[].deviceId"]).await, json!(["a"]));
    owner.print(&["device-identity", "rollback", "--yes"]).await;
    assert_eq!(owner.json(&["device-identity", "list"]).await, json!([]));
    hub.stop().await;
}

/// An import under way.
fn start(owner: &Shell, file: &str) -> Child {
    let mut command = owner.command(&["device-identity", "import", "--input-file", file]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Ctrl-C; how it ends.
async fn interrupt(running: Child) -> Ended {
    let process = running.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &process]).status().unwrap().success());
    Ended::of(within(running.wait_with_output()).await.unwrap())
}

/// Waits until the hub tells of such a job, or of none any more.
async fn until(owner: &Shell, query: &str, some: bool) {
    within(async { while (owner.json(&["job", "list", "--query", query]).await != json!([])) != some {} })
        .await;
}

#[tokio::test]
async fn who_may_not_import_or_export_is_told_so() {
    let hub = TestHub::start().await;
    let service = Shell::new(PROGRAM, &hub, "service");
    let reader = Shell::new(PROGRAM, &hub, "registryRead");
    // More than any buffer on the way takes: the refusal has to be heard while the file is still being sent.
    let long = Lines::new(&vec![b'\n'; 64 * 1024 * 1024]);
    for shell in [&service, &reader] {
        let ended = long.import(shell, &[]).await;
        assert_eq!(ended.code, Some(5), "{}", ended.err);
        assert!(ended.err.starts_with("error[401002]: "), "{}", ended.err);
    }
    service.refused(5, &["device-identity", "export"]).await;
    service.refused(5, &["job", "list"]).await;
    reader.print(&["device-identity", "export"]).await;
    hub.stop().await;
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis");
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
