//! Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random
//! numbers: as easy as 1, 2, 3", SC 2011). A draw is a pure function of its address, so a sample's
//! noise never depends on its batch, its neighbours, its shard or the runtime that draws it.
//!
//! The address of element `i` of one draw:
//!
//! | Philox word | holds |
//! |---|---|
//! | key 0, key 1 | low and high half of `stream_key(seed, image)` |
//! | counter 0 | `i / 4`, the element block; its four outputs are elements `4b .. 4b + 4` |
//! | counter 1 | `draw`, which of a step's draws (a sampler counts its own) |
//! | counter 2 | `step`, the sampling step ([`INITIAL`] for the initial state, [`MEASUREMENT`] for a measurement) |
//! | counter 3 | `sample`, which restoration of this image |
//!
//! A normal pair is `sqrt(-2 ln u) (cos 2 pi v, sin 2 pi v)` (Box and Muller), computed in f64, with
//! `u, v = (word + 0.5) / 2^32`, which are never 0 or 1. A field holds at most 2^34 elements.

use std::f64::consts::TAU;

use crate::dtype::Real;

/// The `step` of the initial state's noise: no sampling step has this number.
pub const INITIAL: u32 = u32::MAX;

/// The `step` of the noise of a measurement: no sampling step has this number.
pub const MEASUREMENT: u32 = u32::MAX - 1;

/// The words of an address as kernels get it.
pub const ADDRESS: usize = 5;

/// splitmix64's increment, 2^64 / golden ratio.
pub(crate) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Philox4x32 with ten rounds: four random words for a counter under a key.
pub const fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    let mut round = 0;
    while round < 10 {
        let p0 = 0xD251_1F53_u64 * c0 as u64;
        let p1 = 0xCD9E_8D57_u64 * c2 as u64;
        (c0, c1, c2, c3) = (
            (p1 >> 32) as u32 ^ c1 ^ k0,
            p1 as u32,
            (p0 >> 32) as u32 ^ c3 ^ k1,
            p0 as u32,
        );
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
        round += 1;
    }
    [c0, c1, c2, c3]
}

/// splitmix64's finaliser: a bijection of 64 bits in which every input bit moves every output bit.
pub(crate) const fn mix64(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The 64-bit key of an image: FNV-1a of the UTF-8 bytes of its path relative to the input folder,
/// with `/` between the parts on every system, then splitmix64's finaliser.
pub fn image_key(path: &str) -> u64 {
    let fnv = path.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |h, byte| {
        (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    mix64(fnv)
}

/// A number made of bytes and of the number of what came before them; other bytes have, but for a chance of 2^-64,
/// another. Zeros at the end of the last eight are the same as none: where lengths differ, they are told before.
pub fn digest(before: u64, bytes: &[u8]) -> u64 {
    let word = |hash: u64, bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        mix64(hash ^ u64::from_le_bytes(word))
    };
    bytes.chunks(8).fold(before, word)
}

/// The Philox key of an image in a run: `mix64(image + mix64(seed + GOLDEN))`, additions mod 2^64,
/// `mix64` splitmix64's finaliser and `GOLDEN = 0x9E3779B97F4A7C15`.
pub const fn stream_key(seed: u64, image: u64) -> u64 {
    mix64(image.wrapping_add(mix64(seed.wrapping_add(GOLDEN))))
}

/// The noise of one sample of one image in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
    sample: u32,
}

impl Stream {
    /// The stream of `sample` of the image with this [`image_key`], in a run with this seed.
    pub const fn new(seed: u64, image: u64, sample: u32) -> Self {
        let key = stream_key(seed, image);
        Stream {
            key: [key as u32, (key >> 32) as u32],
            sample,
        }
    }

    /// An address of this stream as a kernel gets it: key low, key high, sample, step and draw, the bits of u32.
    pub const fn address(&self, step: u32, draw: u32) -> [i32; ADDRESS] {
        [
            self.key[0].cast_signed(),
            self.key[1].cast_signed(),
            self.sample.cast_signed(),
            step.cast_signed(),
            draw.cast_signed(),
        ]
    }

    /// The stream, step and draw that such an address is of.
    pub fn parse(address: &[i32]) -> (Self, u32, u32) {
        let word = |i: usize| address[i].cast_unsigned();
        let stream = Stream {
            key: [word(0), word(1)],
            sample: word(2),
        };
        (stream, word(3), word(4))
    }

    /// The four words of element block `block`.
    pub const fn block(&self, step: u32, draw: u32, block: u32) -> [u32; 4] {
        philox4x32_10([block, draw, step, self.sample], self.key)
    }

    /// Fills `out` with elements `0 .. out.len()` of a standard normal field.
    pub fn normals<T: Real>(&self, step: u32, draw: u32, out: &mut [T]) {
        self.normals_from(step, draw, 0, out);
    }

    /// Fills `out` with elements `first .. first + out.len()` of a standard normal field.
    pub fn normals_from<T: Real>(&self, step: u32, draw: u32, first: u64, out: &mut [T]) {
        self.fill(step, draw, first, out, |words| {
            let [a, b, c, d] = words.map(unit);
            let [(n0, n1), (n2, n3)] = [box_muller(a, b), box_muller(c, d)];
            [n0, n1, n2, n3]
        });
    }

    /// Fills `out` with elements `0 .. out.len()` of a field uniform on (0, 1). Rounding to `f32`
    /// can give 1.
    pub fn uniforms<T: Real>(&self, step: u32, draw: u32, out: &mut [T]) {
        self.uniforms_from(step, draw, 0, out);
    }

    /// Fills `out` with elements `first .. first + out.len()` of a field uniform on (0, 1).
    pub fn uniforms_from<T: Real>(&self, step: u32, draw: u32, first: u64, out: &mut [T]) {
        self.fill(step, draw, first, out, |words| words.map(unit));
    }

    fn fill<T: Real>(
        &self,
        step: u32,
        draw: u32,
        first: u64,
        out: &mut [T],
        values: impl Fn([u32; 4]) -> [f64; 4],
    ) {
        // only the first block can start in its middle
        let skip = (first % 4) as usize;
        let head = out.len().min((4 - skip) % 4);
        let (head, rest) = out.split_at_mut(head);
        let mut block = (first / 4) as u32;
        if !head.is_empty() {
            let drawn = values(self.block(step, draw, block));
            for (o, v) in head.iter_mut().zip(&drawn[skip..]) {
                *o = T::of(*v);
            }
            block = block.wrapping_add(1);
        }
        for chunk in rest.chunks_mut(4) {
            let drawn = values(self.block(step, draw, block));
            for (o, v) in chunk.iter_mut().zip(drawn) {
                *o = T::of(v);
            }
            block = block.wrapping_add(1);
        }
    }
}

fn unit(word: u32) -> f64 {
    (f64::from(word) + 0.5) / 4_294_967_296.0
}

fn box_muller(u: f64, v: f64) -> (f64, f64) {
    let radius = (-2.0 * u.ln()).sqrt();
    let (sin, cos) = (TAU * v).sin_cos();
    (radius * cos, radius * sin)
}

/// One draw after another from a seed, for checks and tests that need no addresses.
#[derive(Clone, Debug)]
pub struct Philox {
    stream: Stream,
    next: u64,
}

impl Philox {
    /// The sequence of this seed.
    pub const fn new(seed: u64) -> Self {
        Philox {
            stream: Stream::new(seed, 0, 0),
            next: 0,
        }
    }

    /// The next unit normal.
    pub fn normal(&mut self) -> f64 {
        let mut value = [0.0];
        self.stream.normals_from(0, 0, self.next, &mut value);
        self.next += 1;
        value[0]
    }

    /// The next number in (0, 1).
    pub fn uniform(&mut self) -> f64 {
        let mut value = [0.0];
        self.stream.uniforms_from(0, 1, self.next, &mut value);
        self.next += 1;
        value[0]
    }

    /// The next whole number below `n`, which is at least 1.
    pub fn below(&mut self, n: u32) -> u32 {
        (self.uniform() * f64::from(n)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Random123's `kat_vectors` for philox4x32 with 10 rounds.
    #[test]
    fn known_answers() {
        let ones = u32::MAX;
        let pi = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
        for (counter, key, want) in [
            (
                [0; 4],
                [0; 2],
                [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
            ),
            (
                [ones; 4],
                [ones; 2],
                [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
            ),
            (
                pi,
                [0xa4093822, 0x299f31d0],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ] {
            assert_eq!(philox4x32_10(counter, key), want);
        }
    }

    /// FNV-1a's published values go through splitmix64's finaliser; splitmix64 from state 0 starts
    /// with `mix64(GOLDEN) = 0xe220a8397b1dcdaf`.
    #[test]
    fn keys_are_the_documented_hashes() {
        assert_eq!(mix64(GOLDEN), 0xE220_A839_7B1D_CDAF);
        assert_eq!(image_key(""), mix64(0xCBF2_9CE4_8422_2325));
        assert_eq!(image_key("a"), mix64(0xAF63_DC4C_8601_EC8C));
        assert_eq!(image_key("foobar"), mix64(0x8594_4171_F739_67E8));
        assert_ne!(image_key("a/b.png"), image_key("a\\b.png"));
    }

    #[test]
    fn an_element_is_a_function_of_its_address() {
        let stream = Stream::new(7, image_key("cats/1.png"), 3);
        let mut whole = [0.0f64; 103];
        stream.normals(5, 1, &mut whole);
        for first in 0..13 {
            for len in 0..12 {
                let mut part = vec![0.0f64; len];
                stream.normals_from(5, 1, first as u64, &mut part);
                assert_eq!(part, whole[first..first + len], "{first} + {len}");
            }
        }
        let mut narrow = [0.0f32; 103];
        stream.normals(5, 1, &mut narrow);
        assert!(narrow.iter().zip(whole).all(|(a, b)| *a == b as f32));
        let mut uniform = [0.0f64; 8];
        stream.uniforms(4, 5, &mut uniform);
        let mut tail = [0.0f64; 3];
        stream.uniforms_from(4, 5, 5, &mut tail);
        assert_eq!(tail, uniform[5..]);
    }

    #[test]
    fn box_muller_by_hand() {
        let stream = Stream::new(0, 0, 0);
        let words = stream.block(2, 0, 0).map(f64::from);
        let mut got = [0.0f64; 4];
        stream.normals(2, 0, &mut got);
        for pair in 0..2 {
            let u = (words[2 * pair] + 0.5) / 2f64.powi(32);
            let v = (words[2 * pair + 1] + 0.5) / 2f64.powi(32);
            let (x, y) = (got[2 * pair], got[2 * pair + 1]);
            // the inverse map: u = exp(-r^2 / 2), v = angle / 2 pi
            assert!(((-(x * x + y * y) / 2.0).exp() - u).abs() < 1e-14);
            assert!((y.atan2(x).rem_euclid(TAU) / TAU - v).abs() < 1e-14);
        }
        assert!(unit(0) > 0.0 && unit(u32::MAX) < 1.0);
    }

    /// Moments of n draws lie within five standard errors: var of x^k is m(2k) - m(k)^2.
    #[test]
    fn moments() {
        let n = 1 << 18;
        let mut x = vec![0.0f64; n];
        Stream::new(1, image_key("moments"), 0).normals(0, 0, &mut x);
        let normal = [1.0, 0.0, 1.0, 0.0, 3.0, 0.0, 15.0, 0.0, 105.0];
        let mut u = vec![0.0f64; n];
        Stream::new(1, image_key("moments"), 0).uniforms(0, 0, &mut u);
        let uniform: Vec<f64> = (0..9).map(|k| 1.0 / f64::from(k + 1)).collect();
        for (name, x, moment) in [("normal", x, &normal[..]), ("uniform", u, &uniform[..])] {
            for k in 1..5 {
                let mean = x.iter().map(|v| v.powi(k as i32)).sum::<f64>() / n as f64;
                let error = ((moment[2 * k] - moment[k].powi(2)) / n as f64).sqrt();
                assert!(
                    (mean - moment[k]).abs() < 5.0 * error,
                    "{name} moment {k}: {mean}"
                );
            }
            for lag in [1, 2, 3, 4, 64] {
                let (m1, var) = (moment[1], moment[2] - moment[1].powi(2));
                let pairs = x.iter().zip(&x[lag..]);
                let covariance = pairs.map(|(a, b)| (a - m1) * (b - m1)).sum::<f64>() / n as f64;
                assert!(covariance.abs() < 5.0 * var / (n as f64).sqrt());
            }
        }
    }

    #[test]
    fn streams_differ_in_every_part_of_the_address() {
        let image = image_key("x");
        let mut blocks = Vec::new();
        for (seed, image, sample, step, draw) in [
            (0, image, 0, 0, 0),
            (1, image, 0, 0, 0),
            (0, image_key("y"), 0, 0, 0),
            (0, image, 1, 0, 0),
            (0, image, 0, 1, 0),
            (0, image, 0, INITIAL, 0),
            (0, image, 0, 0, 1),
        ] {
            let stream = Stream::new(seed, image, sample);
            blocks.extend((0..50).map(|block| stream.block(step, draw, block)));
        }
        let count = blocks.len();
        blocks.sort_unstable();
        blocks.dedup();
        assert_eq!(blocks.len(), count);
    }
}
