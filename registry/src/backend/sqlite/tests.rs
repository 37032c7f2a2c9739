use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::backend::Expect;
use crate::id::{DeviceId, GenerationId, IdentityId};
use crate::identity::IdentitySpec;
use crate::store::{Registry, RegistryLimits};

const LIMITS: RegistryLimits = RegistryLimits {
    modules_per_device_max: 20,
    queue_messages_max: 50,
    c2d_bytes_max: 65_536,
    c2d_ttl_default: std::time::Duration::from_secs(3600),
    c2d_ttl_max: std::time::Duration::from_secs(7200),
    queued_bytes_max: 1 << 30,
};

fn device(name: &str) -> IdentityId {
    IdentityId::device(DeviceId::parse(name).unwrap())
}

fn registry(directory: &Path) -> Arc<Registry> {
    Registry::open(Box::new(SqliteBackend::open(directory).unwrap()), LIMITS).unwrap()
}

/// A store with one device in it, closed.
fn filled() -> TempDir {
    let directory = TempDir::new().unwrap();
    let registry = registry(directory.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let now = "2026-05-01T08:00:00Z".parse().unwrap();
    runtime.block_on(registry.create(IdentitySpec::sas_device(device("d1")), now)).unwrap();
    registry.close();
    directory
}

fn refusal(directory: &Path) -> String {
    let opened = SqliteBackend::open(directory).and_then(|backend| Registry::open(Box::new(backend), LIMITS));
    opened.expect_err("the store was opened").to_string()
}

#[test]
fn t905_a_flipped_bit_in_a_record_is_found() {
    let directory = filled();
    let database = Connection::open(directory.path().join("hub.db")).unwrap();
    let mut record: Vec<u8> = database.query_row("SELECT doc FROM identity", [], |row| row.get(0)).unwrap();
    for place in 0..record.len() {
        record[place] ^= 4;
        database.execute("UPDATE identity SET doc = ?1", [&record]).unwrap();
        assert!(refusal(directory.path()).contains("identity d1"), "{place}");
        record[place] ^= 4;
    }
    database.execute("UPDATE identity SET doc = ?1, gen = gen + 1", [&record]).unwrap();
    assert!(refusal(directory.path()).contains("identity d1"));
}

#[test]
fn t906_a_missing_or_empty_file_is_never_an_empty_registry() {
    let directory = filled();
    let file = directory.path().join("hub.db");
    fs::write(&file, b"").unwrap();
    assert!(refusal(directory.path()).contains("is empty"));
    fs::remove_file(&file).unwrap();
    assert!(refusal(directory.path()).contains("is missing"));
}

#[test]
fn t906_foreign_and_newer_files_are_refused() {
    let directory = filled();
    let database = Connection::open(directory.path().join("hub.db")).unwrap();
    database.execute_batch("PRAGMA user_version = 99").unwrap();
    assert!(refusal(directory.path()).contains("format 99"));
    database.execute_batch("PRAGMA user_version = 1; PRAGMA application_id = 7").unwrap();
    assert!(refusal(directory.path()).contains("no store of this program"));
    drop(database);
    fs::write(directory.path().join("hub.db"), b"not a database, but long enough to be taken for one")
        .unwrap();
    assert!(refusal(directory.path()).contains("cannot be used"));
}

#[test]
fn t910_a_second_process_is_kept_out_and_a_readable_folder_made_private() {
    let directory = TempDir::new().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let _first = SqliteBackend::open(directory.path()).unwrap();
    assert!(refusal(directory.path()).contains("in use by another process"));
    assert_eq!(fs::metadata(directory.path()).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(directory.path().join("hub.db")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn one_refused_write_of_a_batch_spoils_no_other() {
    let directory = TempDir::new().unwrap();
    let backend = SqliteBackend::open(directory.path()).unwrap();
    backend.start(Box::new(|_| {})).unwrap();
    let put = |name: &str, expect| {
        let generation = GenerationId::new(1);
        vec![Mutation::PutIdentity { id: device(name), generation, expect, modules_max: 20, record: vec![1] }]
    };
    let outcomes = tokio::join!(
        backend.submit(put("a", Expect::Absent)),
        backend.submit(put("b", Expect::Exists)),
        backend.submit(put("a", Expect::Absent)),
        backend.submit([put("c", Expect::Absent), put("nobody", Expect::Exists)].concat()),
        backend.submit(put("b", Expect::Absent)),
    );
    assert!(outcomes.0.is_ok());
    assert_eq!(outcomes.1, Err(StoreError::NotFound));
    assert_eq!(outcomes.2, Err(StoreError::Conflict));
    assert_eq!(outcomes.3, Err(StoreError::NotFound));
    assert!(outcomes.4.is_ok());
    // All or nothing: `c` was not written although it came first.
    assert!(backend.submit(put("c", Expect::Absent)).await.is_ok());
}

/// Not a test of its own: what `t901_…` runs in a second process and kills. Prints each id after it was acknowledged.
#[test]
fn child_that_creates_until_it_is_killed() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let registry = registry(Path::new(&directory));
    let first = registry.counts().devices;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let now = "2026-05-01T08:00:00Z".parse().unwrap();
    runtime.block_on(async {
        for number in first.. {
            let id = device(&format!("d{number}"));
            registry.create(IdentitySpec::sas_device(id.clone()), now).await.unwrap();
            println!("\nacknowledged {id}");
        }
    });
}

#[test]
fn t901_nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let directory = TempDir::new().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..10 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "backend::sqlite::tests::child_that_creates_until_it_is_killed", "--nocapture"])
            .env(CHILD_DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut heard =
            lines.by_ref().filter_map(|line| line.strip_prefix("acknowledged ").map(str::to_owned));
        acknowledged.extend(heard.by_ref().take(1 + 7 * round));
        child.kill().unwrap();
        // What it had already said before it died counts too.
        acknowledged.extend(heard);
        child.wait().unwrap();
    }
    let registry = registry(directory.path());
    for id in &acknowledged {
        assert!(registry.entry(&device(id)).is_some(), "{id} was acknowledged and is gone");
    }
    assert!(acknowledged.len() >= 10, "the child never got far: {acknowledged:?}");
    // At most the one write that was under way in each round may be there without having been acknowledged.
    assert!(registry.counts().devices <= acknowledged.len() + 10);
}

const CHILD_DIRECTORY: &str = "PORTCULLIS_TEST_CHILD_DIRECTORY";
