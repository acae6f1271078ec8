//! The golden files' random numbers, bit for bit in any language: a hash of seed, name and index.
//!
//! `key` is [`image_key`] of `"{seed}:{name}"`, `h_i = mix64(key + (i + 1) golden)` with splitmix64's finaliser,
//! `k_i` = the sum of the four 16-bit limbs of `h_i` less 131070, and `k_i / sqrt((2^32 - 1) / 3)` has
//! unit variance (Irwin-Hall).

use crate::rng::{GOLDEN, image_key, mix64};

/// The key of a name under a seed.
fn key(seed: u64, name: &str) -> u64 {
    image_key(&format!("{seed}:{name}"))
}

/// The first `n` hashes under a key.
fn hashes(key: u64, n: usize) -> impl Iterator<Item = u64> {
    (1..=n as u64).map(move |i| mix64(key.wrapping_add(i.wrapping_mul(GOLDEN))))
}

/// `n` values of this mean and standard deviation.
pub fn normals(seed: u64, name: &str, n: usize, mean: f64, std: f64) -> Vec<f64> {
    let scale = std / ((2f64.powi(32) - 1.0) / 3.0).sqrt();
    hashes(key(seed, name), n)
        .map(|h| mean + scale * limbs(h) as f64)
        .collect()
}

/// The sum of the four 16-bit limbs, less its mean.
fn limbs(h: u64) -> i64 {
    let sum: u64 = (0..4).map(|limb| (h >> (16 * limb)) & 0xFFFF).sum();
    sum as i64 - 131_070
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The self-check vectors that `portable_rng.py` prints.
    #[test]
    fn agrees_with_portable_rng() {
        let key = key(7, "unet/conv_in.weight");
        assert_eq!(key, 0xcc36_5abe_5ea4_e9e5);
        let hashes: Vec<u64> = hashes(key, 4).collect();
        let want = [
            0x29a3_d7ff_4357_0daf,
            0x3ef8_5bf8_1037_db30,
            0xc486_ebcc_0818_8620,
            0xe80e_c860_b11a_a940,
        ];
        assert_eq!(hashes, want);
        let sums: Vec<i64> = hashes.iter().map(|h| limbs(*h)).collect();
        assert_eq!(sums, [-44374, -31143, 16012, 68298]);
        let want = [
            -1.1727603537599,
            -0.8230782822631397,
            0.42318111471590386,
            1.8050477000291534,
        ];
        assert_eq!(normals(7, "unet/conv_in.weight", 4, 0.0, 1.0), want);
    }
}
