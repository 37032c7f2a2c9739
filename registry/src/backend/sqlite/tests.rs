use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::backend::Expect;
use crate::error::RegistryError;
use crate::id::{DeviceId, GenerationId, IdentityId, Precondition, Revision};
use crate::identity::IdentitySpec;
use crate::message::NewC2d;
use crate::store::{Registry, RegistryLimits};

fn device(name: &str) -> IdentityId {
    IdentityId::device(DeviceId::parse(name).unwrap())
}

fn registry(directory: &Path) -> Arc<Registry> {
    Registry::open(Box::new(SqliteBackend::open(directory).unwrap()), RegistryLimits::default()).unwrap()
}

/// A store with one device in it, closed.
fn filled() -> TempDir {
    let directory = TempDir::new().unwrap();
    let registry = registry(directory.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let now = "2026-05-01T08:00:00Z".parse().unwrap();
    runtime.block_on(registry.create(IdentitySpec::sas_device(device("d1")), now)).unwrap();
    registry.close().unwrap();
    directory
}

fn refusal(directory: &Path) -> String {
    let opened = SqliteBackend::open(directory)
        .and_then(|backend| Registry::open(Box::new(backend), RegistryLimits::default()));
    opened.expect_err("the store was opened").to_string()
}

#[test]
fn t905_a_flipped_bit_in_a_record_is_found() {
    let directory = filled();
    let database = Connection::open(directory.path().join("hub.db")).unwrap();
    let mut record: Vec<u8> = database.query_row("SELECT doc FROM identity", [], |row| row.get(0)).unwrap();
    for index in 0..record.len() {
        record[index] ^= 4;
        database.execute("UPDATE identity SET doc = ?1", [&record]).unwrap();
        assert!(refusal(directory.path()).contains("identity d1"), "{index}");
        record[index] ^= 4;
    }
    database.execute("UPDATE identity SET doc = ?1, gen = gen + 1", [&record]).unwrap();
    assert!(refusal(directory.path()).contains("identity d1"));
}

/// Everything a start reads, or why it refuses to start.
fn contents(directory: &Path) -> Result<Vec<Change>, StoreError> {
    let backend = SqliteBackend::open(directory)?;
    let mut changes = Vec::new();
    backend.load(&mut |change| {
        changes.push(change);
        Ok(())
    })?;
    Ok(changes)
}

/// A store as a killed process leaves it: some of it in the database, the rest in the WAL. Each file with its bytes.
fn killed() -> (TempDir, Vec<(&'static str, Vec<u8>)>) {
    let directory = TempDir::new().unwrap();
    let living = directory.path().join("living");
    let registry = registry(&living);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let now = "2026-05-01T08:00:00Z".parse().unwrap();
    runtime.block_on(registry.create(IdentitySpec::sas_device(device("d1")), now)).unwrap();
    let other = Connection::open(living.join("hub.db")).unwrap();
    other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    runtime.block_on(registry.create(IdentitySpec::sas_device(device("d2")), now)).unwrap();
    runtime.block_on(registry.put_meta("policies", b"keys".to_vec())).unwrap();
    let files = ["hub.db", "hub.db-wal", "store.id"];
    let files = files.map(|name| (name, fs::read(living.join(name)).unwrap())).to_vec();
    registry.close().unwrap();
    (directory, files)
}

fn put_files(directory: &Path, files: &[(&str, Vec<u8>)]) {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir(directory).unwrap();
    for (name, content) in files {
        fs::write(directory.join(name), content).unwrap();
    }
}

#[test]
fn t905_a_flipped_bit_anywhere_is_found_or_harmless() {
    let (directory, files) = killed();
    let copy = directory.path().join("copy");
    put_files(&copy, &files);
    let good = contents(&copy).unwrap();
    let stride = std::env::var(FLIP_STRIDE).map_or(101, |stride| stride.parse().unwrap());
    let (mut found, mut harmless) = (0, 0);
    for (file, (name, content)) in files.iter().enumerate() {
        for index in (0..content.len()).step_by(stride) {
            let mut flipped = files.clone();
            flipped[file].1[index] ^= 1 << (index % 8);
            put_files(&copy, &flipped);
            match contents(&copy) {
                Err(_) => found += 1,
                Ok(read) => {
                    assert_eq!(read, good, "byte {index} of {name}");
                    harmless += 1;
                }
            }
        }
    }
    assert!(found > 50 && harmless > 50, "{found} found, {harmless} harmless");
}

#[test]
fn t905_a_removed_doubled_or_older_row_is_found() {
    for (sql, table) in [
        ("DELETE FROM identity", "identity"),
        (
            "INSERT INTO identity SELECT 'd0', mod, gen, rev, crc, doc FROM identity WHERE dev = 'd1'",
            "checksum",
        ),
        ("DELETE FROM meta WHERE key = 'policies'", "meta"),
    ] {
        let (directory, files) = killed();
        let copy = directory.path().join("copy");
        put_files(&copy, &files);
        Connection::open(copy.join("hub.db")).unwrap().execute(sql, []).unwrap();
        assert!(contents(&copy).unwrap_err().to_string().contains(table), "{sql}");
    }
}

#[test]
fn t904_a_torn_end_is_cut_back_to_what_was_acknowledged() {
    let (directory, files) = killed();
    let copy = directory.path().join("copy");
    put_files(&copy, &files);
    let good = contents(&copy).unwrap();
    let wal = files[1].1.clone();
    // A commit that was under way: garbage after the last good one.
    for surplus in [1, 24, 4_096, 4_120, 9_000] {
        let mut torn = files.clone();
        torn[1].1.extend(std::iter::repeat_n(0xA5, surplus));
        put_files(&copy, &torn);
        assert_eq!(contents(&copy).unwrap(), good, "{surplus}");
    }
    // Without what was acknowledged there is no start, wherever the end is missing.
    for end in (0..wal.len()).step_by(1_021) {
        let mut cut = files.clone();
        cut[1].1.truncate(end);
        put_files(&copy, &cut);
        assert!(contents(&copy).unwrap_err().to_string().contains("lost acknowledged changes"), "{end}");
    }
}

#[test]
fn t906_an_older_copy_is_refused_and_taken_where_the_mark_is_removed() {
    let directory = filled();
    let older = fs::read(directory.path().join("hub.db")).unwrap();
    let registry = registry(directory.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(registry.put_meta("policies", b"keys".to_vec())).unwrap();
    registry.close().unwrap();
    drop(registry);
    fs::write(directory.path().join("hub.db"), older).unwrap();
    assert!(refusal(directory.path()).contains("an older copy"));
    fs::remove_file(directory.path().join("store.id")).unwrap();
    assert!(contents(directory.path()).is_ok());
}

#[tokio::test]
async fn t907_a_full_disk_refuses_writes_and_heals() {
    let directory = TempDir::new().unwrap();
    let backend = SqliteBackend::open(directory.path()).unwrap();
    {
        let guard = backend.writer.lock().unwrap();
        let database = &guard.as_ref().unwrap().database;
        let pages: i64 = database.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        database.query_row(&format!("PRAGMA max_page_count = {}", pages + 4), [], |_| Ok(())).unwrap();
    }
    let registry = Registry::open(Box::new(backend), RegistryLimits::default()).unwrap();
    let now = "2026-05-01T08:00:00Z".parse().unwrap();
    let create = |name: String| registry.create(IdentitySpec::sas_device(device(&name)), now);
    let mut created = 0;
    // Rows differ by some bytes: what finds no room now, made anew might.
    let refused = loop {
        match create(format!("d{created}")).await {
            Ok(_) => created += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, RegistryError::Store(StoreError::DiskFull));
    let one_more = format!("d{created}");
    // What is there is served, what was refused is not, and room makes it go on.
    assert_eq!(registry.counts().devices, created);
    assert!(registry.entry(&device(&one_more)).is_none() && registry.entry(&device("d0")).is_some());
    for number in 0..created / 2 {
        registry.delete(&device(&format!("d{number}")), Precondition::Absent).await.unwrap();
    }
    assert!(create(one_more).await.is_ok());
    tokio::task::spawn_blocking(move || registry.close()).await.unwrap().unwrap();
    let kept = contents(directory.path()).unwrap();
    let identities = kept.iter().filter(|change| matches!(change, Change::IdentityPut { .. })).count();
    assert_eq!(identities, created - created / 2 + 1);
}

#[test]
fn closing_a_store_that_failed_says_why_and_closing_twice_is_no_error() {
    let directory = filled();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let good = SqliteBackend::open(directory.path()).unwrap();
    good.start(Box::new(|_| {})).unwrap();
    assert_eq!((good.close(), good.close()), (Ok(()), Ok(())));
    drop(good);
    let failing = registry(directory.path());
    Connection::open(directory.path().join("hub.db")).unwrap().execute_batch("DROP TABLE tally").unwrap();
    let refused = runtime.block_on(failing.put_meta("policies", b"keys".to_vec()));
    assert_eq!(refused, Err(StoreError::Unavailable));
    assert!(failing.close().unwrap_err().to_string().contains("no such table"));
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
    database.execute_batch("PRAGMA user_version = 2; PRAGMA application_id = 7").unwrap();
    assert!(refusal(directory.path()).contains("no store of this program"));
    drop(database);
    fs::write(directory.path().join("hub.db"), b"not a database, but long enough to be taken for one")
        .unwrap();
    assert!(refusal(directory.path()).contains("cannot be used"));
}

/// The tables of version 1, as its program made them.
const SCHEMA_OF_1: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE identity (dev TEXT NOT NULL, mod TEXT NOT NULL, gen INTEGER NOT NULL, rev INTEGER NOT NULL,
        crc INTEGER NOT NULL, doc BLOB NOT NULL, PRIMARY KEY (dev, mod)) WITHOUT ROWID;
    CREATE TABLE session (dev TEXT NOT NULL, mod TEXT NOT NULL, crc INTEGER NOT NULL, doc BLOB NOT NULL,
        PRIMARY KEY (dev, mod)) WITHOUT ROWID;
    CREATE TABLE c2d (seq INTEGER PRIMARY KEY AUTOINCREMENT, dev TEXT NOT NULL, mod TEXT NOT NULL, number INTEGER NOT NULL,
        gen INTEGER NOT NULL, crc INTEGER NOT NULL, doc BLOB NOT NULL);
    CREATE UNIQUE INDEX c2d_queue ON c2d (dev, mod, number);
    PRAGMA application_id = 1349481027; PRAGMA user_version = 1;";

/// A store of version 1 with two devices of three messages each, numbered from 1 in each queue.
fn store_of_version_1() -> TempDir {
    let directory = TempDir::new().unwrap();
    let registry = registry(directory.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let now = "2026-05-01T08:00:00Z".parse().unwrap();
    runtime.block_on(async {
        for name in ["a", "b"] {
            registry.create(IdentitySpec::sas_device(device(name)), now).await.unwrap();
        }
        for body in ["1", "2", "3"] {
            for name in ["a", "b"] {
                let body = format!("{name}{body}").into();
                registry.send(&device(name), NewC2d { body, ..NewC2d::default() }, now).await.unwrap();
            }
        }
    });
    registry.close().unwrap();
    drop(registry);
    let old = TempDir::new().unwrap();
    let database = Connection::open(old.path().join("hub.db")).unwrap();
    database.execute_batch(&SCHEMA_OF_1.replace("1349481027", &0x506f_7243.to_string())).unwrap();
    let attach = format!("ATTACH '{}' AS new", directory.path().join("hub.db").display());
    database.execute_batch(&attach).unwrap();
    for table in ["meta", "identity", "session"] {
        database.execute_batch(&format!("INSERT INTO {table} SELECT * FROM new.{table}")).unwrap();
    }
    let mut read = database.prepare("SELECT dev, gen, doc FROM new.c2d ORDER BY seq").unwrap();
    let rows = read.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    for (index, row) in rows.enumerate() {
        let (dev, generation, record): (String, u64, Vec<u8>) = row.unwrap();
        let number = 1 + index as u64 / 2;
        let crc = row::message_checksum(&device(&dev), number, GenerationId::new(generation), &record);
        database
            .execute(
                "INSERT INTO c2d (dev, mod, number, gen, crc, doc) VALUES (?1, '', ?2, ?3, ?4, ?5)",
                rusqlite::params![dev, number, generation, crc, record],
            )
            .unwrap();
    }
    drop(read);
    old
}

#[test]
fn t906_a_store_of_version_1_is_brought_to_today_with_every_message_in_order() {
    let directory = store_of_version_1();
    for _ in 0..2 {
        let registry = registry(directory.path());
        for name in ["a", "b"] {
            let queued = registry.entry(&device(name)).unwrap().peek(10);
            let bodies: Vec<_> = queued.iter().map(|queued| queued.message.body.clone()).collect();
            assert_eq!(bodies, ["1", "2", "3"].map(|body| format!("{name}{body}")));
        }
        registry.close().unwrap();
    }
    let database = Connection::open(directory.path().join("hub.db")).unwrap();
    let version: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 2);
}

#[test]
fn t906_a_damaged_store_of_version_1_is_refused_and_left_as_it_is() {
    let directory = store_of_version_1();
    let database = Connection::open(directory.path().join("hub.db")).unwrap();
    database.execute_batch("UPDATE c2d SET gen = gen + 1 WHERE dev = 'b' AND number = 3").unwrap();
    drop(database);
    assert!(refusal(directory.path()).contains("message 3 to b"));
    let database = Connection::open(directory.path().join("hub.db")).unwrap();
    let version: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    let count: i64 = database.query_row("SELECT count(*) FROM c2d", [], |row| row.get(0)).unwrap();
    assert_eq!((version, count), (1, 6));
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
    let unmet = Expect::Is(Revision::new(1));
    let outcomes = tokio::join!(
        backend.submit(put("a", Expect::Absent)),
        backend.submit(put("b", unmet)),
        backend.submit(put("a", Expect::Absent)),
        backend.submit([put("c", Expect::Absent), put("nobody", unmet)].concat()),
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

/// Runs one of the children below in a second process; `prepared` is what the shell does first.
fn child(name: &str, prepared: &str, directory: &Path) -> std::process::Child {
    Command::new("sh")
        .arg("-c")
        .arg(format!("{prepared} exec \"$0\" --exact backend::sqlite::tests::{name} --nocapture"))
        .arg(std::env::current_exe().unwrap())
        .env(CHILD_DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Not a test of its own: what `t908_…` runs under a limit. Prints each outcome, until the store is lost.
#[test]
fn child_that_creates_until_the_store_is_lost() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let registry = registry(Path::new(&directory));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let now = "2026-05-01T08:00:00Z".parse().unwrap();
    runtime.block_on(async {
        let mut refused = 0;
        for number in 0.. {
            let id = device(&format!("d{number}"));
            match registry.create(IdentitySpec::sas_device(id.clone()), now).await {
                Ok(_) => println!("\nacknowledged {id}"),
                Err(error) => {
                    println!("\nrefused {error}");
                    refused += 1;
                }
            }
            if refused == 10 {
                break;
            }
        }
        registry.store_lost().await;
        println!("\nlost");
    });
}

/// The file size limit makes a write in the middle of the WAL fail, as a failing disk does: not with "full".
#[test]
fn t908_after_a_write_fails_nothing_is_acknowledged_any_more() {
    let directory = TempDir::new().unwrap();
    let limited = "trap '' XFSZ; ulimit -f 400;";
    let child = child("child_that_creates_until_the_store_is_lost", limited, directory.path());
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let lines: Vec<_> = said
        .lines()
        .filter(|line| ["acknowledged ", "refused ", "lost"].iter().any(|word| line.starts_with(word)))
        .collect();
    let acknowledged = lines.iter().take_while(|line| line.starts_with("acknowledged ")).count();
    assert!(acknowledged > 0, "{said}");
    let after: Vec<_> = lines.iter().skip(acknowledged).collect();
    assert_eq!(after.len(), 11, "{said}");
    assert!(after[..10].iter().all(|line| **line == "refused the store takes no writes"), "{said}");
    assert_eq!(*after[10], "lost");
    // What was acknowledged is there for the next process, on a disk that works.
    let registry = registry(directory.path());
    for number in 0..acknowledged {
        assert!(registry.entry(&device(&format!("d{number}"))).is_some(), "{number}");
    }
    assert!(registry.counts().devices <= acknowledged + 1);
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
        let mut child = child("child_that_creates_until_it_is_killed", "", directory.path());
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
/// Every so many bytes one bit is flipped; 1 tries each byte, which takes minutes.
const FLIP_STRIDE: &str = "PORTCULLIS_TEST_FLIP_STRIDE";
