//! Checks on the hub's own machine, whether the hub runs or not: its data directory and its certificate.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jiff::Timestamp;
use portcullis_certs::server_cert::ServerCert;
use rustls_pki_types::ServerName;

use crate::doctor::Finding;
use portcullis::config::local_access::LocalAccess;

/// Every check of a data directory.
pub(super) fn examine(data_dir: &Path, now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![directory(data_dir)];
    // A missing directory is reported above and has no files to check.
    if data_dir.is_dir() {
        findings.extend([secrets(data_dir), store(data_dir)]);
        findings.extend(certificate(data_dir, now));
    }
    findings
}

fn directory(path: &Path) -> Finding {
    const CHECK: &str = "data directory";
    let shown = path.display();
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::not_ready(
            CHECK,
            format!("{shown} does not exist"),
            "the hub creates it when it first starts; --data-dir names another",
        ),
        Err(error) => {
            Finding::fail(CHECK, format!("{shown}: {error}"), "run this as the user who runs the hub")
        }
        Ok(found) if !found.is_dir() => {
            Finding::fail(CHECK, format!("{shown} is not a directory"), "name another with --data-dir")
        }
        Ok(found) if found.permissions().mode() & OTHERS != 0 => {
            Finding::fail(CHECK, format!("other users may open {shown}"), "chmod 700 it")
        }
        Ok(_) => Finding::ok(CHECK, format!("only its owner may open {shown}")),
    }
}

/// Files that hold keys.
fn secrets(data_dir: &Path) -> Finding {
    const CHECK: &str = "keys";
    let mut open = Vec::new();
    for name in SECRETS {
        match fs::metadata(data_dir.join(name)) {
            Ok(found) if found.permissions().mode() & OTHERS != 0 => open.push(name),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Finding::fail(
                    CHECK,
                    format!("{name}: {error}"),
                    "run this as the user who runs the hub",
                );
            }
            _ => {}
        }
    }
    match open.is_empty() {
        true => Finding::ok(CHECK, "only their owner may read them"),
        false => Finding::fail(
            CHECK,
            format!("other users may read {}", open.join(", ")),
            "chmod 600 them, and renew the keys if another user may have read them",
        ),
    }
}

fn store(data_dir: &Path) -> Finding {
    const CHECK: &str = "store files";
    let path = data_dir.join(STORE);
    match fs::read_dir(&path).map(Iterator::count) {
        Ok(0) => Finding::fail(
            CHECK,
            format!("{} is empty", path.display()),
            "restore a backup before you start the hub",
        ),
        Ok(_) => Finding::ok(CHECK, format!("{} can be read", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Finding::not_ready(CHECK, "there is no store yet", "the hub creates it when it first starts")
        }
        Err(error) => Finding::fail(
            CHECK,
            format!("{}: {error}", path.display()),
            "run this as the user who runs the hub",
        ),
    }
}

/// The certificate that the hub has made for itself. A configured one is elsewhere; the TLS check sees it.
fn certificate(data_dir: &Path, now: Timestamp) -> Option<Finding> {
    const CHECK: &str = "own certificate";
    let read = |name: &str| fs::read(data_dir.join(name));
    let (chain, key) = match (read(CERTIFICATE), read(CERTIFICATE_KEY)) {
        (Ok(chain), Ok(key)) => (chain, key),
        (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => return None,
        (Err(error), _) | (_, Err(error)) => {
            return Some(Finding::fail(CHECK, error.to_string(), "run this as the user who runs the hub"));
        }
    };
    let host = LocalAccess::read(data_dir).ok().map(|access| access.hostname);
    Some(match ServerCert::parse(&chain, &key) {
        Ok(certificate) => judge(&certificate, host.as_deref(), now),
        Err(error) => Finding::fail(
            CHECK,
            crate::login::chain(&error),
            "move server.pem and server-key.pem away; the hub makes new ones when it starts",
        ),
    })
}

fn judge(certificate: &ServerCert, host: Option<&str>, now: Timestamp) -> Finding {
    const CHECK: &str = "own certificate";
    let seconds = now.as_second();
    let from = i64::try_from(certificate.valid_from().as_secs()).unwrap_or(i64::MAX);
    let until = i64::try_from(certificate.valid_until().as_secs()).unwrap_or(i64::MAX);
    let day = Timestamp::from_second(until)
        .map_or_else(|_| "for ever".into(), |time| format!("until {}", time.strftime("%Y-%m-%d")));
    let uncovered =
        host.filter(|host| ServerName::try_from(*host).map_or(true, |name| !certificate.covers(&name)));
    if seconds < from {
        return Finding::fail(CHECK, "it is not valid yet", "set this machine's clock");
    }
    if seconds >= until {
        return Finding::fail(
            CHECK,
            format!("it was valid {day}"),
            "restart the hub: it renews its own certificate",
        );
    }
    if let Some(host) = uncovered {
        return Finding::fail(
            CHECK,
            format!("it is not for {host}"),
            "restart the hub with the --hostname its clients use",
        );
    }
    if until - seconds < EXPIRES_SOON_SECONDS {
        return Finding::warn(
            CHECK,
            format!("it is valid {day} only"),
            "restart the hub: it renews its own certificate",
        );
    }
    match host {
        Some(host) => Finding::ok(CHECK, format!("it is for {host} and valid {day}")),
        None => Finding::ok(CHECK, format!("it is valid {day}")),
    }
}

/// Permission bits of the group and of all other users.
const OTHERS: u32 = 0o077;
const STORE: &str = "store";
const CERTIFICATE: &str = "server.pem";
const CERTIFICATE_KEY: &str = "server-key.pem";
const SECRETS: [&str; 3] = ["local.json", "ca-key.pem", CERTIFICATE_KEY];
/// 30 days, the same as the warning in the hub's metrics.
const EXPIRES_SOON_SECONDS: i64 = 30 * 24 * 3600;

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use portcullis_certs::testing::TestCa;

    use super::*;
    use crate::doctor::Verdict;

    fn verdict(findings: &[Finding], check: &str) -> Verdict {
        findings.iter().find(|finding| finding.check == check).unwrap().verdict
    }

    #[test]
    fn p12_what_others_may_read_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let set = |name: &str, mode: u32| {
            fs::set_permissions(directory.path().join(name), Permissions::from_mode(mode)).unwrap();
        };
        fs::create_dir(directory.path().join(STORE)).unwrap();
        fs::write(directory.path().join(STORE).join("data"), "x").unwrap();
        fs::write(directory.path().join("ca-key.pem"), "x").unwrap();
        set("", 0o700);
        set("ca-key.pem", 0o600);
        let findings = examine(directory.path(), Timestamp::UNIX_EPOCH);
        assert!(findings.iter().all(|finding| finding.verdict == Verdict::Ok), "{findings:?}");
        set("", 0o750);
        set("ca-key.pem", 0o604);
        fs::remove_file(directory.path().join(STORE).join("data")).unwrap();
        let findings = examine(directory.path(), Timestamp::UNIX_EPOCH);
        for check in ["data directory", "keys", "store files"] {
            assert_eq!(verdict(&findings, check), Verdict::Fail, "{check}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_no_failure() {
        let findings = examine(Path::new("/nowhere/at/all"), Timestamp::UNIX_EPOCH);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].verdict, Verdict::NotReady);
    }

    #[test]
    fn a_certificate_is_judged_by_its_time_and_names() {
        let own = TestCa::new().server(&["hub.example.test"]);
        let certificate = ServerCert::parse(own.certificate_pem.as_bytes(), own.key_pem.as_bytes()).unwrap();
        let seconds = |time: rustls_pki_types::UnixTime| i64::try_from(time.as_secs()).unwrap();
        let (from, until) = (seconds(certificate.valid_from()), seconds(certificate.valid_until()));
        let judged =
            |host, second| judge(&certificate, host, Timestamp::from_second(second).unwrap()).verdict;
        let host = Some("hub.example.test");
        assert_eq!(judged(host, from), Verdict::Ok);
        assert_eq!(judged(None, from), Verdict::Ok);
        assert_eq!(judged(Some("other.example.test"), from), Verdict::Fail);
        assert_eq!(judged(host, from - 1), Verdict::Fail);
        assert_eq!(judged(host, until), Verdict::Fail);
        assert_eq!(judged(host, until - 1), Verdict::Warn);
    }
}
