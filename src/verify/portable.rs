//! The golden files' random numbers, bit for bit in any language: a hash of seed, name and index.
//!
//! `key = mix(fnv1a("{seed}:{name}"))`, `h_i = mix(key + (i + 1) golden)` with splitmix64's finaliser,
//! `k_i` = the sum of the four 16-bit limbs of `h_i` less 131070, and `k_i / sqrt((2^32 - 1) / 3)` has
//! unit variance (Irwin-Hall).

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The key of a name under a seed.
pub fn key(seed: u64, name: &str) -> u64 {
    let text = format!("{seed}:{name}");
    mix(text.bytes().fold(0xCBF2_9CE4_8422_2325, |h: u64, byte| {
        (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    }))
}

/// The first `n` hashes under a key.
pub fn hashes(key: u64, n: usize) -> impl Iterator<Item = u64> {
    (1..=n as u64).map(move |i| mix(key.wrapping_add(i.wrapping_mul(GOLDEN))))
}

/// `n` values of this mean and standard deviation.
pub fn normals(seed: u64, name: &str, n: usize, mean: f64, std: f64) -> Vec<f64> {
    let scale = std / ((2f64.powi(32) - 1.0) / 3.0).sqrt();
    let limbs =
        |h: u64| (0..4).map(|limb| (h >> (16 * limb)) & 0xFFFF).sum::<u64>() as i64 - 131_070;
    hashes(key(seed, name), n)
        .map(|h| mean + scale * limbs(h) as f64)
        .collect()
}
