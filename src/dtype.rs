//! Element types: [`DType`] names them at run time, [`Real`] is what native arithmetic is generic over.

use std::fmt;

use half::{bf16, f16};

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision: all arithmetic on the native runtime, sampler state everywhere.
    F32,
    /// IEEE half precision (checkpoints, and weights on processors; storage on CUDA).
    F16,
    /// bfloat16 (checkpoints, and weights on processors; storage on CUDA).
    Bf16,
    /// IEEE double precision: native only, for gradient checks.
    F64,
    /// Token ids.
    I32,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::F16 | DType::Bf16 => 2,
            DType::F32 | DType::I32 => 4,
            DType::F64 => 8,
        }
    }

    /// Whether it has 16 bits.
    pub const fn is_half(self) -> bool {
        matches!(self, DType::F16 | DType::Bf16)
    }

    /// The type of statistics, biases and sampler state beside activations of this type: f64 for f64, else f32.
    pub const fn wide(self) -> DType {
        match self {
            DType::F64 => DType::F64,
            _ => DType::F32,
        }
    }

    /// How many elements a kernel loads at once, as 16 bytes.
    pub const fn pack(self) -> usize {
        16 / self.size()
    }

    /// The nearest value of a 16-bit type; others are taken as they are.
    pub fn nearest(self, value: f64) -> f64 {
        match self {
            DType::F16 => f16::from_f64(value).to_f64(),
            DType::Bf16 => bf16::from_f64(value).to_f64(),
            _ => value,
        }
    }

    /// The bytes of these values, rounded to this type.
    pub fn encode(self, values: impl Iterator<Item = f64>) -> Vec<u8> {
        fn bytes<T: bytemuck::NoUninit>(values: impl Iterator<Item = T>) -> Vec<u8> {
            bytemuck::cast_slice(&values.collect::<Vec<T>>()).to_vec()
        }
        match self {
            DType::F32 => bytes(values.map(|v| v as f32)),
            DType::F64 => bytes(values),
            DType::F16 => bytes(values.map(f16::from_f64)),
            DType::Bf16 => bytes(values.map(bf16::from_f64)),
            DType::I32 => bytes(values.map(|v| v as i32)),
        }
    }

    /// The values of these bytes, as many as are whole.
    pub fn decode(self, bytes: &[u8]) -> Vec<f64> {
        fn values<T: Element>(bytes: &[u8], wide: fn(T) -> f64) -> Vec<f64> {
            let elements = bytes.chunks_exact(size_of::<T>());
            elements
                .map(|bytes| wide(bytemuck::pod_read_unaligned(bytes)))
                .collect()
        }
        match self {
            DType::F32 => values(bytes, |v: f32| v.into()),
            DType::F64 => values(bytes, |v: f64| v),
            DType::F16 => values(bytes, f16::to_f64),
            DType::Bf16 => values(bytes, bf16::to_f64),
            DType::I32 => values(bytes, |v: i32| v.into()),
        }
    }

    /// The name used in messages and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::F64 => "f64",
            DType::I32 => "i32",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A type that can be the element of a tensor in host memory.
pub trait Element: bytemuck::Pod + Send + Sync + fmt::Debug {
    /// The run-time name of this type.
    const DTYPE: DType;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
}
impl Element for f64 {
    const DTYPE: DType = DType::F64;
}
impl Element for i32 {
    const DTYPE: DType = DType::I32;
}
impl Element for f16 {
    const DTYPE: DType = DType::F16;
}
impl Element for bf16 {
    const DTYPE: DType = DType::Bf16;
}

/// The two types native arithmetic runs in: `f32` for work, `f64` for gradient checks.
pub trait Real:
    Element
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::ops::SubAssign
    + std::ops::MulAssign
    + std::iter::Sum
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Rounds to this type.
    fn of(x: f64) -> Self;
    /// Widens.
    fn f64(self) -> f64;
    /// The square root.
    fn sqrt(self) -> Self;
    /// e to this power.
    fn exp(self) -> Self;
    /// The larger of two.
    fn max(self, other: Self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;

    /// 1 / (1 + e^-x).
    #[inline(always)]
    fn sigmoid(self) -> Self {
        Self::ONE / (Self::ONE + (-self).exp())
    }

    /// The slope of `x sigmoid(x)`.
    #[inline(always)]
    fn silu_slope(self) -> Self {
        let s = self.sigmoid();
        s + self * s * (Self::ONE - s)
    }

    /// `x Phi(x)`, with `Phi(x) = (1 + erf(x / sqrt 2)) / 2`.
    #[inline(always)]
    fn gelu(self) -> Self {
        let half = Self::of(0.5) * self;
        half + half * (self * Self::of(std::f64::consts::FRAC_1_SQRT_2)).erf()
    }

    /// The slope of `x Phi(x)`: `Phi(x) + x phi(x)`.
    #[inline(always)]
    fn gelu_slope(self) -> Self {
        let half = Self::of(0.5);
        let below = half + half * (self * Self::of(std::f64::consts::FRAC_1_SQRT_2)).erf();
        let density = Self::of(INV_SQRT_TAU) * (-half * self * self).exp();
        below + self * density
    }
}

/// 1 / sqrt(2 pi).
const INV_SQRT_TAU: f64 = 0.398_942_280_401_432_7;

macro_rules! real {
    ($t:ty, $exp:path, $erf:path) => {
        impl Real for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            #[inline(always)]
            fn of(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $exp(self)
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                <$t>::max(self, other)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                <$t>::abs(self)
            }
            #[inline(always)]
            fn erf(self) -> Self {
                $erf(self)
            }
        }
    };
}
real!(f32, exp_f32, erf_f32);
real!(f64, f64::exp, libm::erf);

/// e^x without branches or calls, so that loops over it become vector loops: 2^n times a polynomial
/// on [-ln2/2, ln2/2], within 2 ulp. NaN stays NaN; the result saturates at about 1e-38 and 3e38.
#[inline(always)]
fn exp_f32(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to a whole number in the low bits
    let x = if x > 88.37 { 88.37 } else { x };
    let x = if x < -87.33 { -87.33 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4; // ln 2 in two parts
    let p = 1.987_569_2e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 0.166_666_66;
    let p = p * r + 0.5;
    let p = p * (r * r) + r + 1.0;
    let two_n = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    p * two_n
}

/// erf(x) without branches or calls: an odd polynomial over an even one up to where erf has reached 1 in
/// f32 (the coefficients are Eigen's, and so are the fused additions they need). Within 3.5e-7 of erf; NaN stays NaN.
#[inline(always)]
fn erf_f32(x: f32) -> f32 {
    const END: f32 = 3.832_507;
    let x = if x > END { END } else { x };
    let x = if x < -END { -END } else { x };
    let s = x * x;
    let p = 2.123_732_2e-6f32;
    let p = p.mul_add(s, 2.861_979_6e-4);
    let p = p.mul_add(s, 3.658_048_3e-3);
    let p = p.mul_add(s, 5.243_302e-2);
    let p = p.mul_add(s, 0.187_416_08);
    let p = p.mul_add(s, std::f32::consts::FRAC_2_SQRT_PI);
    let q = 3.891_857_3e-5f32;
    let q = q.mul_add(s, 1.143_296e-3);
    let q = q.mul_add(s, 1.475_208_8e-2);
    let q = q.mul_add(s, 0.112_945_676);
    let q = q.mul_add(s, 0.499_425_8);
    let q = q.mul_add(s, 1.0);
    x * p / q
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_is_close_in_f32() {
        let mut worst = 0.0f64;
        for i in -60_000..60_000 {
            let x = i as f32 * 1e-4;
            let error = (f64::from(erf_f32(x)) - libm::erf(f64::from(x))).abs();
            worst = worst.max(error);
        }
        assert!(worst <= 3.5e-7, "erf is off by {worst:e}");
        assert!(erf_f32(f32::NAN).is_nan());
    }

    #[test]
    fn exp_is_within_two_ulp() {
        for i in -87_000..88_000 {
            let x = i as f32 * 1e-3;
            let want = f64::from(x).exp();
            let error = (f64::from(exp_f32(x)) - want).abs() / want;
            assert!(
                error < 2.0 * f64::from(f32::EPSILON),
                "exp({x}) is off by {error:e}"
            );
        }
        assert!(exp_f32(f32::NAN).is_nan());
        assert!(exp_f32(f32::NEG_INFINITY) < 2e-38 && exp_f32(f32::INFINITY) > 1e38);
    }
}
