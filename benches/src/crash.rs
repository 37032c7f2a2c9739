//! What is known about a hub that may be killed at any moment, and a check that the hub kept it.
//!
//! One writer writes each id, one write at a time. So when the hub dies, at most the last write of each writer is in
//! doubt. It may be done or not done, but never in part. Everything before it must exist, and nothing else.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// A write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Create { reason: String },
    Replace { reason: String },
    Delete,
    Send,
}

/// One id, its acknowledged state, and the write that was not acknowledged.
#[derive(Clone, Debug)]
pub struct Slot {
    pub id: String,
    certain: Option<Live>,
    doubtful: Option<Write>,
}

/// An identity as it was last read. Unread members are unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Live {
    reason: String,
    messages: u64,
    seen: Option<Seen>,
}

/// The values that the hub chose.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    /// None after a write of which only the result is known.
    etag: Option<String>,
    generation: String,
    /// The hash of both keys, because error messages are shown to people.
    keys: u64,
}

impl Slot {
    pub fn new(id: String) -> Self {
        Self { id, certain: None, doubtful: None }
    }

    /// The next write, chosen by a number.
    pub fn choose(&self, number: u64, token: &str) -> Write {
        let reason = token.to_owned();
        match &self.certain {
            None => Write::Create { reason },
            Some(live) if live.messages >= MESSAGES_MAX => Write::Delete,
            Some(_) => match number % 8 {
                0 => Write::Delete,
                1..=4 => Write::Replace { reason },
                _ => Write::Send,
            },
        }
    }

    /// Records that a write has started.
    pub fn begin(&mut self, write: Write) {
        self.doubtful = Some(write);
    }

    /// Records that the write was acknowledged, with this body.
    pub fn acknowledged(&mut self, body: &Value) -> anyhow::Result<()> {
        let write = self.doubtful.take().context("nothing was under way")?;
        self.certain = after(self.certain.take(), &write);
        if matches!(write, Write::Create { .. } | Write::Replace { .. }) {
            let live = read(body)?;
            ensure!(Some(&live.reason) == self.certain.as_ref().map(|own| &own.reason), "{body}");
            self.certain = self.certain.take().map(|own| Live { seen: live.seen, ..own });
        }
        Ok(())
    }

    /// Compares the hub's state after a restart with what is known.
    pub fn check(&mut self, shown: Option<&Value>) -> anyhow::Result<()> {
        let shown = shown.map(read).transpose()?;
        let doubtful = self.doubtful.take();
        let possible = doubtful.as_ref().map(|write| after(self.certain.clone(), write));
        let is_certain = fits(&self.certain, &shown);
        let is_possible = possible.as_ref().is_some_and(|possible| fits(possible, &shown));
        if !is_certain && !is_possible {
            bail!("{}: acknowledged {:?}, under way {doubtful:?}, found {shown:?}", self.id, self.certain);
        }
        self.certain = shown;
        Ok(())
    }
}

/// The state after a write.
fn after(before: Option<Live>, write: &Write) -> Option<Live> {
    match write {
        Write::Create { reason } => Some(Live { reason: reason.clone(), messages: 0, seen: None }),
        Write::Replace { reason } => before.map(|live| Live {
            reason: reason.clone(),
            seen: live.seen.map(|seen| Seen { etag: None, ..seen }),
            ..live
        }),
        Write::Delete => None,
        Write::Send => before.map(|live| Live { messages: live.messages + 1, ..live }),
    }
}

fn fits(known: &Option<Live>, shown: &Option<Live>) -> bool {
    let (Some(known), Some(shown)) = (known, shown) else { return known.is_none() && shown.is_none() };
    let seen = match (&known.seen, &shown.seen) {
        (Some(known), Some(shown)) => {
            let etag = known.etag.is_none() || known.etag == shown.etag;
            etag && known.generation == shown.generation && known.keys == shown.keys
        }
        _ => true,
    };
    seen && known.reason == shown.reason && known.messages == shown.messages
}

/// Parses an identity from REST. A missing part is an error.
fn read(shown: &Value) -> anyhow::Result<Live> {
    let text = |pointer: &str| {
        let text = shown.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.map(str::to_owned).with_context(|| format!("half: no {pointer} in {shown}"))
    };
    Ok(Live {
        reason: text("/statusReason")?,
        messages: shown["cloudToDeviceMessageCount"].as_u64().context("half: no message count")?,
        seen: Some(Seen {
            etag: Some(text("/etag")?),
            generation: text("/generationId")?,
            keys: BuildHasherDefault::<DefaultHasher>::default().hash_one((
                text("/authentication/symmetricKey/primaryKey")?,
                text("/authentication/symmetricKey/secondaryKey")?,
            )),
        }),
    })
}

/// A queue holds 50 messages. A slot is emptied before that.
const MESSAGES_MAX: u64 = 40;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(reason: &str, etag: &str, messages: u64) -> Value {
        let keys = json!({"primaryKey": "p", "secondaryKey": "s"});
        json!({"statusReason": reason, "etag": etag, "generationId": "1", "cloudToDeviceMessageCount": messages,
            "authentication": {"symmetricKey": keys}})
    }

    fn created() -> Slot {
        let mut slot = Slot::new("d".into());
        slot.begin(Write::Create { reason: "one".into() });
        slot.acknowledged(&shown("one", "e1", 0)).unwrap();
        slot
    }

    #[test]
    fn what_was_acknowledged_must_be_there() {
        assert!(created().check(Some(&shown("one", "e1", 0))).is_ok());
        assert!(created().check(None).is_err());
        assert!(created().check(Some(&shown("one", "e0", 0))).is_err());
        assert!(created().check(Some(&shown("older", "e1", 0))).is_err());
        assert!(created().check(Some(&json!({"statusReason": "one"}))).is_err());
    }

    #[test]
    fn what_was_under_way_may_be_there_or_not() {
        let replacing = || {
            let mut slot = created();
            slot.begin(Write::Replace { reason: "two".into() });
            slot
        };
        assert!(replacing().check(Some(&shown("one", "e1", 0))).is_ok());
        assert!(replacing().check(Some(&shown("two", "e2", 0))).is_ok());
        assert!(replacing().check(Some(&shown("three", "e2", 0))).is_err());
        assert!(replacing().check(None).is_err());
        let mut sending = created();
        sending.begin(Write::Send);
        assert!(sending.check(Some(&shown("one", "e1", 2))).is_err());
    }

    #[test]
    fn what_was_deleted_does_not_come_back() {
        let mut slot = created();
        slot.begin(Write::Delete);
        slot.acknowledged(&Value::Null).unwrap();
        assert!(slot.check(Some(&shown("one", "e1", 0))).is_err());
    }
}
