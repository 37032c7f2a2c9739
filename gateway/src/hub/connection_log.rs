//! The last connections of each identity: when, from which address, and why they ended. For the operator.
//!
//! The log keeps the last two connections of each registered identity. Other identities in a large fleet push nothing
//! out. Deleting an identity removes its connections.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use jiff::Timestamp;
use portcullis_registry::id::IdentityId;

use crate::hub::outcome::ConnectionOutcome;

/// Connections by identity.
#[derive(Debug, Default)]
pub struct ConnectionLog {
    identities: DashMap<IdentityId, Connections>,
    next: AtomicU64,
}

/// The connections of one identity that are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Newest last.
    pub last: Vec<Connection>,
    pub flapping: Option<Box<Flapping>>,
}

/// One connection, open or over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    number: u64,
    pub since: Timestamp,
    pub peer: SocketAddr,
    /// How the peer authenticated, as text for the operator.
    pub method: &'static str,
    /// When the credential expires, and the connection with it.
    pub credential_end: Option<Timestamp>,
    pub ended: Option<ConnectionEnd>,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionEnd {
    pub time: Timestamp,
    pub reason: ConnectionOutcome,
    /// What there is to say beyond it.
    pub text: Option<Box<str>>,
}

/// Several clients that keep taking one identity over from each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flapping {
    pub since: Timestamp,
    pub last: Timestamp,
    pub takeovers: u64,
}

/// The number of a connection in the log.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionNumber(u64);

impl ConnectionLog {
    /// Records that a connection has opened.
    pub fn opened(
        &self,
        id: &IdentityId,
        since: Timestamp,
        peer: SocketAddr,
        method: &'static str,
        credential_end: Option<Timestamp>,
    ) -> ConnectionNumber {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = Connection { number, since, peer, method, credential_end, ended: None };
        let mut of_id = self.identities.entry(id.clone()).or_default();
        if of_id.last.len() >= CONNECTIONS_KEPT {
            of_id.last.remove(0);
        }
        of_id.last.reserve_exact(1);
        of_id.last.push(connection);
        ConnectionNumber(number)
    }

    /// Records how a connection ended, if the log still has it.
    pub fn ended(&self, id: &IdentityId, noted: ConnectionNumber, ended: ConnectionEnd) {
        let Some(mut of_id) = self.identities.get_mut(id) else { return };
        if let Some(connection) = of_id.last.iter_mut().find(|connection| connection.number == noted.0) {
            connection.ended = Some(ended);
        }
    }

    /// Records a takeover between clients that keep taking the identity over.
    pub fn flapped(&self, id: &IdentityId, now: Timestamp) {
        let Some(mut of_id) = self.identities.get_mut(id) else { return };
        let flapping = of_id.flapping.get_or_insert_with(|| Box::new(Flapping::new(now)));
        if now.duration_since(flapping.last).as_secs() > QUIET_SECONDS {
            **flapping = Flapping::new(now);
        }
        flapping.takeovers += 1;
        flapping.last = now;
    }

    /// Removes a deleted identity.
    pub fn forget(&self, id: &IdentityId) {
        self.identities.remove(id);
    }

    /// The connections of `id` that are kept.
    pub fn of(&self, id: &IdentityId) -> Connections {
        self.identities.get(id).map(|of_id| of_id.clone()).unwrap_or_default()
    }
}

impl Flapping {
    fn new(now: Timestamp) -> Self {
        Self { since: now, last: now, takeovers: 0 }
    }
}

/// For each identity: the open connection and the one before.
const CONNECTIONS_KEPT: usize = 2;
/// After this long without a takeover, the next takeover starts a new series.
const QUIET_SECONDS: i64 = 3600;

#[cfg(test)]
mod tests {
    use portcullis_registry::id::DeviceId;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn opened(log: &ConnectionLog, id: &IdentityId, second: i64) -> ConnectionNumber {
        log.opened(id, at(second), "127.0.0.1:1".parse().unwrap(), "SAS token", None)
    }

    fn ended(second: i64) -> ConnectionEnd {
        ConnectionEnd { time: at(second), reason: ConnectionOutcome::TakenOver, text: None }
    }

    #[test]
    fn a_late_goodbye_ends_its_own_connection_and_no_other() {
        let (log, id) = (ConnectionLog::default(), IdentityId::device(DeviceId::parse("d1").unwrap()));
        let first = opened(&log, &id, 1);
        opened(&log, &id, 2);
        log.ended(&id, first, ended(3));
        let ends: Vec<_> = log.of(&id).last.into_iter().map(|connection| connection.ended).collect();
        assert_eq!(ends, [Some(ended(3)), None]);
        opened(&log, &id, 4);
        log.ended(&id, first, ended(5));
        assert_eq!(log.of(&id).last.iter().filter(|connection| connection.ended.is_some()).count(), 0);
    }

    #[test]
    fn what_is_forgotten_does_not_come_back() {
        let (log, id) = (ConnectionLog::default(), IdentityId::device(DeviceId::parse("d1").unwrap()));
        let noted = opened(&log, &id, 1);
        log.forget(&id);
        log.ended(&id, noted, ended(2));
        log.flapped(&id, at(3));
        assert_eq!(log.of(&id), Connections::default());
        assert!(log.identities.is_empty());
    }

    #[test]
    fn flapping_is_counted_from_its_beginning() {
        let (log, id) = (ConnectionLog::default(), IdentityId::device(DeviceId::parse("d1").unwrap()));
        opened(&log, &id, 1);
        (10..20).for_each(|second| log.flapped(&id, at(second)));
        let flapping = |log: &ConnectionLog| *log.of(&id).flapping.unwrap();
        assert_eq!(flapping(&log), Flapping { since: at(10), last: at(19), takeovers: 10 });
        log.flapped(&id, at(10_000));
        assert_eq!(flapping(&log), Flapping { since: at(10_000), last: at(10_000), takeovers: 1 });
    }
}
