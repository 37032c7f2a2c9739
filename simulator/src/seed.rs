//! Reproducible randomness: who is slow, who flaps, what is in a message.
//!
//! Every question has its own stream, named by a purpose and a number, so that one more device or phase does not change
//! what another does. The generator is SplitMix64 (Steele, Lea and Flood, 2014): five lines whose output no update of a
//! library can change.

/// The source of all randomness in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u64);

/// An endless sequence of numbers.
#[derive(Clone, Debug)]
pub struct Stream(u64);

impl Seed {
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// The stream for `purpose`, and among those the one for `number`.
    pub fn stream(self, purpose: &str, number: u64) -> Stream {
        let mut state = self.0;
        for byte in purpose.bytes() {
            state = mix(state ^ u64::from(byte));
        }
        Stream(mix(state ^ mix(number)))
    }

    /// The numbers from 0 to `len`, shuffled.
    pub fn shuffled(self, purpose: &str, len: usize) -> Vec<u32> {
        let mut stream = self.stream(purpose, len as u64);
        let mut numbers: Vec<u32> = (0..len as u32).collect();
        for place in (1..len).rev() {
            numbers.swap(place, (stream.draw() % (place as u64 + 1)) as usize);
        }
        numbers
    }
}

impl Stream {
    /// A random 64-bit number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A random number from 0 to 1, without 1.
    pub fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// 2^64 divided by the golden ratio, and odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        // The first numbers of the reference implementation for the state 1234567.
        let mut stream = Stream(1_234_567);
        let first = [stream.draw(), stream.draw(), stream.draw()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn streams_depend_on_seed_purpose_and_number() {
        let first = |seed, purpose, number| Seed::new(seed).stream(purpose, number).draw();
        let base = first(1, "slow", 7);
        assert_eq!(base, first(1, "slow", 7));
        assert!(![first(2, "slow", 7), first(1, "flap", 7), first(1, "slow", 8)].contains(&base));
    }

    #[test]
    fn a_shuffle_loses_nobody() {
        let mut shuffled = Seed::new(3).shuffled("herd", 1000);
        assert_eq!(shuffled, Seed::new(3).shuffled("herd", 1000));
        assert_ne!(shuffled, Seed::new(4).shuffled("herd", 1000));
        shuffled.sort_unstable();
        assert_eq!(shuffled, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn units_are_spread_over_their_range() {
        let mut stream = Seed::new(5).stream("unit", 0);
        let units: Vec<f64> = (0..1000).map(|_| stream.unit()).collect();
        assert!(units.iter().all(|unit| (0.0..1.0).contains(unit)));
        let mean = units.iter().sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
    }
}
