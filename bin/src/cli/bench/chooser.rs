//! Which key comes next.

use super::Distribution;

/// A small, fast generator for choosing keys (SplitMix64, Steele et al. 2014). Not for secrets.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The exponent of YCSB's workloads.
const EXPONENT: f64 = 0.99;

/// Draws key numbers below `keys`.
#[derive(Debug)]
pub(crate) enum Chooser {
    Uniform {
        keys: u64,
    },
    /// By rejection-inversion (Hörmann and Derflinger 1996): no table, whatever the number of keys.
    Zipf {
        keys: u64,
        low: f64,
        high: f64,
        accept: f64,
    },
}

impl Chooser {
    pub(crate) fn new(distribution: Distribution, keys: u64) -> Self {
        match distribution {
            Distribution::Uniform => Self::Uniform { keys },
            Distribution::Zipf => Self::Zipf {
                keys,
                low: integral(1.5) - 1.0,
                high: integral(keys as f64 + 0.5),
                accept: 2.0 - inverse(integral(2.5) - 2f64.powf(-EXPONENT)),
            },
        }
    }

    /// The next key's number.
    pub(crate) fn choose(&self, rng: &mut Rng) -> u64 {
        match *self {
            // Multiply and shift: no division, and the bias is below one in 2^32 for any sensible count.
            Self::Uniform { keys } => ((u128::from(rng.next()) * u128::from(keys)) >> 64) as u64,
            Self::Zipf { keys, .. } => {
                // Popular keys are spread over the key space, as they are in life.
                mix(self.rank(rng)) % keys
            }
        }
    }

    /// A rank from 1 on, the most popular first.
    fn rank(&self, rng: &mut Rng) -> u64 {
        let Self::Zipf { keys, low, high, accept } = *self else { return 1 };
        loop {
            let u = high + rng.unit() * (low - high);
            let x = inverse(u);
            let rank = (x.round() as u64).clamp(1, keys);
            let k = rank as f64;
            if k - x <= accept || u >= integral(k + 0.5) - k.powf(-EXPONENT) {
                return rank;
            }
        }
    }
}

/// The integral of `x^-EXPONENT`, up to a constant.
fn integral(x: f64) -> f64 {
    (x.powf(1.0 - EXPONENT) - 1.0) / (1.0 - EXPONENT)
}

/// Of [`integral`].
fn inverse(y: f64) -> f64 {
    (y * (1.0 - EXPONENT) + 1.0).max(0.0).powf(1.0 / (1.0 - EXPONENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: u64 = 200_000;

    #[test]
    fn uniform_draws_hit_every_key_about_as_often() {
        let chooser = Chooser::new(Distribution::Uniform, 10);
        let (mut rng, mut counts) = (Rng::new(1), [0u64; 10]);
        for _ in 0..DRAWS {
            counts[chooser.choose(&mut rng) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (19_000..21_000).contains(count)), "{counts:?}");
    }

    #[test]
    fn zipf_ranks_fall_off_as_the_law_says() {
        for keys in [1, 2, 1000] {
            let chooser = Chooser::new(Distribution::Zipf, keys);
            let (mut rng, mut counts) = (Rng::new(1), vec![0u64; keys as usize + 1]);
            for _ in 0..DRAWS {
                counts[chooser.rank(&mut rng) as usize] += 1;
                assert!(chooser.choose(&mut rng) < keys);
            }
            let sum: f64 = (1..=keys).map(|k| (k as f64).powf(-EXPONENT)).sum();
            for k in [1, 2, 3, 10, 100].into_iter().filter(|k| *k <= keys) {
                let expected = DRAWS as f64 * (k as f64).powf(-EXPONENT) / sum;
                let seen = counts[k as usize] as f64;
                // Five standard deviations, from a fixed seed.
                assert!(
                    (seen - expected).abs() < 5.0 * expected.sqrt() + 1.0,
                    "{keys} {k}: {seen} {expected}"
                );
            }
        }
    }
}
