//! Numbers that are the same for the same seed.

/// `SplitMix64`: quick, evenly spread, and easy to foretell. It is NOT for keys that anything real accepts: an emulator
/// takes its keys from it only when a test asks for a seed.
#[derive(Clone, Debug)]
pub(super) struct Seeded(u64);

impl Seeded {
    /// The numbers of this seed. `purpose` keeps what one part draws apart from what another does.
    pub(super) const fn new(seed: u64, purpose: u64) -> Self {
        Self(seed ^ purpose.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, and without, 1.
    pub(super) fn fraction(&mut self) -> f64 {
        let high = u32::try_from(self.next() >> 32).unwrap_or(u32::MAX);
        f64::from(high) / 4_294_967_296.0
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.next().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_that_splitmix64_is_published_with() {
        let mut numbers = Seeded::new(1_234_567, 0);
        let first = [numbers.next(), numbers.next(), numbers.next()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn fractions_lie_between_0_and_1_and_half_of_them_in_each_half() {
        let mut numbers = Seeded::new(7, 1);
        let low = (0..10_000).filter(|_| (0.0..0.5).contains(&numbers.fraction())).count();
        assert!((4_800..5_200).contains(&low), "{low}");
    }
}
