use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::backend::sqlite::SqliteBackend;
use crate::id::{DeviceId, IdentityId, ModuleId, Precondition};
use crate::identity::IdentitySpec;
use crate::message::NewC2d;
use crate::store::{Registry, RegistryLimits};

fn device(name: &str) -> IdentityId {
    IdentityId::device(DeviceId::parse(name).unwrap())
}

fn module() -> IdentityId {
    IdentityId::module(DeviceId::parse("d1").unwrap(), ModuleId::parse("m").unwrap())
}

fn now() -> Timestamp {
    "2026-05-01T08:00:00Z".parse().unwrap()
}

fn open(data_dir: &Path) -> Arc<Registry> {
    Registry::open(Box::new(SqliteBackend::open(&data_dir.join(STORE)).unwrap()), RegistryLimits::default())
        .unwrap()
}

fn quiet() -> ProgressObserver {
    Arc::new(|_, _| {})
}

/// A data directory with a running registry of a device, a module and a message, and a CA beside it.
async fn running(directory: &TempDir) -> (PathBuf, Arc<Registry>) {
    let data_dir = directory.path().join("data");
    fs::create_dir(&data_dir).unwrap();
    fs::write(data_dir.join("ca.pem"), "the CA").unwrap();
    let registry = open(&data_dir);
    for id in [device("d1"), module(), device("gone")] {
        registry.create(IdentitySpec::sas_device(id), now()).await.unwrap();
    }
    registry.delete(&device("gone"), Precondition::Absent).await.unwrap();
    let message = NewC2d { body: Bytes::from_static(b"open valve"), ..NewC2d::default() };
    registry.send(&device("d1"), message, now()).await.unwrap();
    registry.put_meta("policies", b"keys".to_vec()).await.unwrap();
    (data_dir, registry)
}

fn back_up(data_dir: &Path, to: &Path) -> Result<Manifest, BackupError> {
    create(data_dir, &["ca.pem", "ca-key.pem"], to, now(), quiet())
}

#[tokio::test]
async fn t916_a_copy_taken_while_it_runs_is_restored_elsewhere() {
    let directory = TempDir::new().unwrap();
    let (data_dir, registry) = running(&directory).await;
    let file = directory.path().join("backup");
    let made = back_up(&data_dir, &file).unwrap();
    assert_eq!((made.devices, made.modules, made.messages), (1, 1, 1));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!directory.path().join("backup.store").exists());
    // What comes after the copy is not in it.
    let later = registry.create(IdentitySpec::sas_device(device("later")), now()).await.unwrap();
    assert_eq!(verify(&file).unwrap(), made);

    let elsewhere = directory.path().join("elsewhere");
    assert_eq!(restore(&file, &elsewhere, &quiet()).unwrap(), made);
    assert_eq!(fs::read_to_string(elsewhere.join("ca.pem")).unwrap(), "the CA");
    assert_eq!(fs::metadata(&elsewhere).unwrap().permissions().mode() & 0o777, 0o700);
    let restored = open(&elsewhere);
    for id in [device("d1"), module()] {
        assert_eq!(restored.entry(&id).unwrap().identity(), registry.entry(&id).unwrap().identity());
    }
    assert_eq!(restored.entry(&device("d1")).unwrap().queued(), 1);
    assert_eq!(restored.meta("policies"), Some(b"keys".to_vec()));
    assert!(restored.entry(&device("later")).is_none() && restored.entry(&device("gone")).is_none());
    // An etag that was handed out after the copy never comes again.
    let anew = restored.create(IdentitySpec::sas_device(device("later")), now()).await.unwrap();
    assert!(anew.revision > later.revision);
}

#[tokio::test]
async fn t916_a_flipped_bit_anywhere_or_a_missing_end_is_found() {
    let directory = TempDir::new().unwrap();
    let (data_dir, _registry) = running(&directory).await;
    let file = directory.path().join("backup");
    back_up(&data_dir, &file).unwrap();
    let good = fs::read(&file).unwrap();
    let target = directory.path().join("target");
    for index in (0..good.len()).step_by(83) {
        let mut bad = good.clone();
        bad[index] ^= 1 << (index % 8);
        fs::write(&file, bad).unwrap();
        assert!(verify(&file).is_err(), "{index}");
        if index % 8 == 0 {
            assert!(restore(&file, &target, &quiet()).is_err(), "{index}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "{index} left something behind");
    }
    for end in (0..good.len()).step_by(397) {
        fs::write(&file, &good[..end]).unwrap();
        assert!(verify(&file).is_err(), "{end}");
    }
    fs::write(&file, [&good[..], b"x"].concat()).unwrap();
    assert!(verify(&file).is_err());
}

#[tokio::test]
async fn nothing_is_overwritten() {
    let directory = TempDir::new().unwrap();
    let (data_dir, _registry) = running(&directory).await;
    let file = directory.path().join("backup");
    back_up(&data_dir, &file).unwrap();
    assert!(matches!(back_up(&data_dir, &file), Err(BackupError::Exists(_))));
    assert!(verify(&file).is_ok());
    assert!(matches!(restore(&file, &data_dir, &quiet()), Err(BackupError::NotEmpty(_))));
    let empty = directory.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(restore(&file, &empty, &quiet()).is_ok());
}

#[tokio::test]
async fn a_backup_of_no_hub_or_of_a_damaged_one_is_refused() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("backup");
    assert!(back_up(directory.path(), &file).is_err());
    assert!(!file.exists());
    let (data_dir, registry) = running(&directory).await;
    tokio::task::spawn_blocking(move || registry.close()).await.unwrap().unwrap();
    let database = rusqlite::Connection::open(data_dir.join("store/hub.db")).unwrap();
    database.execute("DELETE FROM identity WHERE mod = 'm'", []).unwrap();
    assert!(back_up(&data_dir, &file).unwrap_err().to_string().contains("table identity has 1 rows"));
    assert!(!file.exists());
}

#[test]
fn a_backup_writes_nowhere_but_into_the_data_directory() {
    let part = |name: &str| Part { name: name.into(), bytes: 0 }.is_in_data_directory();
    assert!(part("store/hub.db") && part("ca-key.pem"));
    for name in ["/etc/ca.pem", "../ca.pem", "store/../ca.pem", "ca.pem/", "", "store/lock", "ca.pem\0"] {
        assert!(!part(name), "{name}");
    }
}
