//! How many messages may wait for one identity, where that is not the hub's own number.

use std::num::NonZeroU16;

/// A bound of one queue, 1 to 10,000 messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueMax(NonZeroU16);

impl QueueMax {
    /// The highest there is.
    pub const HIGHEST: u16 = 10_000;

    /// None for a number that is no bound.
    pub fn new(messages: u64) -> Option<Self> {
        let messages = u16::try_from(messages).ok().filter(|messages| *messages <= Self::HIGHEST)?;
        NonZeroU16::new(messages).map(Self)
    }

    /// In messages.
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_one_to_ten_thousand() {
        for bound in [1, 50, 10_000] {
            assert_eq!(QueueMax::new(bound).map(|bound| u64::from(bound.get())), Some(bound));
        }
        for none in [0, 10_001, 65_537, u64::MAX] {
            assert_eq!(QueueMax::new(none), None, "{none}");
        }
    }
}
