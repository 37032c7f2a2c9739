//! Hostile clients: bad tokens, wrong keys, junk bytes, handshakes that stop halfway.
//!
//! The hub should refuse them, so they do not count as failures of the fleet. On one machine they have addresses of
//! their own, because a hub may slow down an address whose sign-ins fail.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use portcullis_registry::credential::SymmetricKey;
use rustls::ClientConnection;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::client::{ConnectError, Dial};
use crate::fleet::Run;
use crate::identity::{Credential, Identity};
use crate::pacing::Pace;
use crate::scenario::Hostile;
use crate::tally::Outcome;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    BadTokens,
    WrongKeys,
    Junk,
    HalfHandshakes,
}

/// Makes hostile attempts from `start`, at the given `rates`, until it is dropped.
pub async fn come(run: &Run, start: Instant, rates: Hostile) {
    let kinds = [
        (Kind::BadTokens, rates.bad_tokens),
        (Kind::WrongKeys, rates.wrong_keys),
        (Kind::Junk, rates.junk),
        (Kind::HalfHandshakes, rates.half_handshakes),
    ];
    let mut coming = JoinSet::new();
    for (place, (kind, rate)) in kinds.into_iter().enumerate() {
        if let Some(pace) = Pace::new(start, rate, place as f64 / 4.0) {
            coming.spawn(come_as(run.clone(), kind, pace));
        }
    }
    while coming.join_next().await.is_some() {}
}

async fn come_as(run: Run, kind: Kind, mut pace: Pace) {
    let mut attempts = JoinSet::new();
    for number in 0.. {
        sleep_until(pace.deadline()).await;
        pace.advance(Instant::now());
        while attempts.try_join_next().is_some() {}
        if attempts.len() < ATTEMPTS_MAX {
            let run = run.clone();
            attempts.spawn(async move {
                let outcome = kind.attempt(&run, number).await;
                run.tally.hostile(kind.label(), outcome);
            });
        }
    }
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Kind::BadTokens => "bad tokens",
            Kind::WrongKeys => "wrong keys",
            Kind::Junk => "junk",
            Kind::HalfHandshakes => "half handshakes",
        }
    }

    async fn attempt(self, run: &Run, number: u64) -> Outcome {
        let dial = Dial { source: source(run, number), ..run.dial(0) };
        let outcome = timeout(PATIENCE, async {
            match self {
                Kind::BadTokens | Kind::WrongKeys => self.log_in(run, dial, number).await,
                Kind::Junk => say(&dial, &junk(run, number)).await,
                Kind::HalfHandshakes => say(&dial, &half_hello(run)).await,
            }
        });
        outcome.await.unwrap_or(Outcome::Ignored)
    }

    /// Signs in as some device of the fleet, with a credential of another.
    async fn log_in(self, run: &Run, dial: Dial, number: u64) -> Outcome {
        let mut chance = run.schedule.seed().stream(self.label(), number);
        let id = run.identities[(chance.draw() % run.identities.len() as u64) as usize].clone();
        let credential = Credential::Key(SymmetricKey::generate());
        let mut connect = Identity { id: id.clone(), credential, is_made: false }.connect(&run.access, 60);
        if let (Kind::BadTokens, Some(login)) = (self, &mut connect.login) {
            login.password = match chance.draw() % 2 {
                0 => format!("{:x}", chance.draw()),
                _ => run.access.identity_token(&id, &SymmetricKey::generate(), LONG_AGO),
            };
        }
        match dial.connect(Arc::clone(&run.tls), connect).await {
            Ok(_) => Outcome::Admitted,
            Err(ConnectError::Refused(_)) => Outcome::Refused,
            Err(error) if error.is_refusal() => Outcome::Closed,
            Err(ConnectError::Io(_)) => Outcome::Closed,
            Err(_) => Outcome::Failed,
        }
    }
}

/// Sends `bytes` and waits for the hub to close.
async fn say(dial: &Dial, bytes: &[u8]) -> Outcome {
    let Ok(mut stream) = dial.tcp().await else { return Outcome::Failed };
    // If the hub has closed already, this may fail with a reset, which counts as a close.
    let _ = stream.write_all(bytes).await;
    let mut answer = [0; 512];
    // The hub may send an alert first.
    while matches!(stream.read(&mut answer).await, Ok(count) if count > 0) {}
    Outcome::Closed
}

fn junk(run: &Run, number: u64) -> Vec<u8> {
    let mut chance = run.schedule.seed().stream("junk", number);
    let words = 1 + chance.draw() % 64;
    (0..words).flat_map(|_| chance.draw().to_le_bytes()).collect()
}

/// The first half of a TLS ClientHello.
fn half_hello(run: &Run) -> Vec<u8> {
    let mut hello = Vec::new();
    let name = ServerName::try_from(run.access.hostname.clone());
    if let Ok(Ok(mut connection)) = name.map(|name| ClientConnection::new(Arc::clone(&run.tls), name)) {
        // Into memory, which takes everything.
        let _ = connection.write_tls(&mut hello);
    }
    hello.truncate(hello.len() / 2);
    hello
}

fn source(run: &Run, number: u64) -> Option<IpAddr> {
    let is_here = run.access.address.is_some_and(|address| address.is_ipv4() && address.is_loopback());
    let last = 2 + (number % ADDRESSES) as u8;
    is_here.then(|| Ipv4Addr::new(127, 0, 1, last).into())
}

/// How long an attempt waits for the hub to close. A hub allows about ten seconds for a handshake.
const PATIENCE: Duration = Duration::from_secs(20);
/// Attempts of one kind at a time.
const ATTEMPTS_MAX: usize = 256;
const ADDRESSES: u64 = 32;
/// 2001, in seconds since 1970.
const LONG_AGO: i64 = 1_000_000_000;
