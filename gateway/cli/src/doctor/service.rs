//! Checks of a hub from outside: its ports, its certificate in use, its clock, its registry.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use portcullis::tls::connect_error::ConnectError;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::doctor::{Finding, Verdict};
use crate::exit::Exit;
use crate::login::Login;
use crate::rest::Rest;

/// Every check of the hub that a login names.
pub(super) async fn examine(login: Login) -> Vec<Finding> {
    let mqtt = port("MQTT port", &login, login.mqtt_port).await;
    let https = port("HTTPS port", &login, login.https_port).await;
    let nobody_to_ask = https.verdict != Verdict::Ok;
    let mut findings = vec![mqtt, https];
    if nobody_to_ask {
        return findings;
    }
    match Rest::new(login) {
        Err(failure) => {
            findings.push(Finding::fail("TLS", failure.message(), "--ca FILE names the hub's ca.pem"))
        }
        Ok(rest) => findings.extend(ask(&rest).await),
    }
    findings
}

async fn port(check: &'static str, login: &Login, port: u16) -> Finding {
    let address = match login.connect_address {
        Some(address) => format!("{}", std::net::SocketAddr::new(address, port)),
        None => format!("{}:{port}", login.host),
    };
    let why = match timeout(CONNECT_TIME_MAX, TcpStream::connect(&address)).await {
        Ok(Ok(_)) => return Finding::ok(check, format!("{address} accepts connections")),
        Ok(Err(error)) => ConnectError::of(&error).to_string(),
        Err(_) => format!("no answer within {CONNECT_TIME_MAX:?}"),
    };
    Finding::not_ready(
        check,
        format!("{address}: {why}"),
        "check that the hub runs and that no firewall blocks this port",
    )
}

async fn ask(rest: &Rest) -> Vec<Finding> {
    let asked = rest.readiness().await;
    let readiness = match asked {
        Ok(readiness) => readiness,
        Err(failure) => {
            return vec![Finding::fail(
                "TLS",
                failure.message(),
                "use a host name that is in the hub's certificate, and name its ca.pem with --ca",
            )];
        }
    };
    let mut findings =
        vec![Finding::ok("TLS", format!("the certificate is valid for {}", rest.login().host))];
    findings.push(match readiness.ready {
        true => Finding::ok("ready", "the hub serves"),
        false => Finding::not_ready("ready", "the hub is stopping", "wait until it serves again"),
    });
    findings.extend(readiness.date.as_deref().and_then(|date| clock(date, Timestamp::now())));
    findings.push(match rest.get(&["statistics", "devices"], &[]).await {
        Ok(counts) => Finding::ok("registry", format!("{} devices", counts["totalDeviceCount"])),
        Err(failure) if failure.exit() == Exit::Unauthorized => Finding::fail(
            "registry",
            failure.message(),
            "check the policy's key, its right RegistryRead, and this machine's clock",
        ),
        Err(failure) => Finding::fail("registry", failure.message(), "look into the hub's log"),
    });
    findings
}

/// Whether this machine and the hub agree on the time. Tokens depend on it.
fn clock(date: &str, now: Timestamp) -> Option<Finding> {
    let hubs = rfc2822::parse(date).ok()?.timestamp();
    let off = now.as_second() - hubs.as_second();
    let detail = format!("the clock of this machine differs from the hub's by {off:+} s");
    let off = off.unsigned_abs();
    Some(if off <= CLOCK_SECONDS_GOOD {
        Finding::ok("clock", detail)
    } else if off <= CLOCK_SECONDS_MAX {
        Finding::warn("clock", detail, "set both clocks with NTP")
    } else {
        Finding::fail("clock", detail, "the hub refuses tokens made here; set both clocks with NTP")
    })
}

const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
const CLOCK_SECONDS_GOOD: u64 = 5;
/// With a larger difference, a short-lived token is expired when it is made.
const CLOCK_SECONDS_MAX: u64 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared() {
        let now: Timestamp = "2026-11-25T04:00:00Z".parse().unwrap();
        let verdict = |date: &str| clock(date, now).map(|finding| finding.verdict);
        assert_eq!(verdict("Wed, 25 Nov 2026 04:00:03 GMT"), Some(Verdict::Ok));
        assert_eq!(verdict("Wed, 25 Nov 2026 03:58:00 GMT"), Some(Verdict::Warn));
        assert_eq!(verdict("Wed, 25 Nov 2026 05:00:00 GMT"), Some(Verdict::Fail));
        assert_eq!(verdict("yesterday"), None);
    }
}
