//! [`Operand`]: numbers that a product reads as they are stored, in the type of the arithmetic or in 16 bits.
//!
//! Every 16-bit number is an f32 number. So weights may stay as small as a file has them: they are widened where they are
//! read, and no bit of a result changes.

use std::borrow::Cow;
use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::dtype::{DType, Real};

/// Numbers as they are stored.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a, T = f32> {
    /// In the type of the arithmetic.
    Wide(&'a [T]),
    /// In IEEE half precision.
    F16(&'a [f16]),
    /// In bfloat16.
    Bf16(&'a [bf16]),
}

/// Numbers that are widened at once.
const CHUNK: usize = 64;

impl<'a, T: Real> Operand<'a, T> {
    /// The bytes of numbers of this type; of another than 16 bits, of `T`.
    pub(super) fn of(bytes: &'a [u8], dtype: DType) -> Self {
        match dtype {
            DType::F16 => Operand::F16(bytemuck::cast_slice(bytes)),
            DType::Bf16 => Operand::Bf16(bytemuck::cast_slice(bytes)),
            _ => Operand::Wide(bytemuck::cast_slice(bytes)),
        }
    }

    /// How many numbers.
    #[inline]
    pub fn count(self) -> usize {
        match self {
            Operand::Wide(x) => x.len(),
            Operand::F16(x) => x.len(),
            Operand::Bf16(x) => x.len(),
        }
    }

    /// The type that they are stored in.
    pub fn dtype(self) -> DType {
        match self {
            Operand::Wide(_) => T::DTYPE,
            Operand::F16(_) => DType::F16,
            Operand::Bf16(_) => DType::Bf16,
        }
    }

    /// Those from number `start` on.
    ///
    /// # Panics
    /// When there are fewer: a broken invariant of the caller.
    #[inline]
    pub fn skip(self, start: usize) -> Self {
        self.part(start..self.count())
    }

    /// Some of them.
    ///
    /// # Panics
    /// When there are fewer: a broken invariant of the caller.
    #[inline]
    pub fn part(self, range: Range<usize>) -> Self {
        match self {
            Operand::Wide(x) => Operand::Wide(&x[range]),
            Operand::F16(x) => Operand::F16(&x[range]),
            Operand::Bf16(x) => Operand::Bf16(&x[range]),
        }
    }

    /// Where the first lies.
    pub(super) fn start(self) -> *const u8 {
        match self {
            Operand::Wide(x) => x.as_ptr().cast(),
            Operand::F16(x) => x.as_ptr().cast(),
            Operand::Bf16(x) => x.as_ptr().cast(),
        }
    }

    /// All of them in the type of the arithmetic.
    pub fn widened(self) -> Cow<'a, [T]> {
        match self {
            Operand::Wide(x) => Cow::Borrowed(x),
            _ => {
                let mut wide = vec![T::ZERO; self.count()];
                self.widen(&mut wide);
                Cow::Owned(wide)
            }
        }
    }

    /// The first rows of a matrix, `stride` apart, in the type of the arithmetic, and how far apart they are: where they lie,
    /// or one after the other in what `room` gives, memory for so many numbers.
    ///
    /// # Panics
    /// When the matrix or that memory is too short: a broken invariant of the caller.
    pub fn rows<'b>(
        self,
        stride: usize,
        [rows, len]: [usize; 2],
        room: impl FnOnce(usize) -> &'b mut [T],
    ) -> (&'b [T], usize)
    where
        'a: 'b,
    {
        if let Operand::Wide(x) = self {
            return (x, stride);
        }
        let room = &mut room(rows * len)[..rows * len];
        for (row, to) in room.chunks_exact_mut(len).enumerate() {
            self.part(row * stride..row * stride + len).widen(to);
        }
        (room, len)
    }

    /// Writes all of them to `to`, which is as long.
    fn widen(self, to: &mut [T]) {
        match self {
            Operand::Wide(x) => to.copy_from_slice(x),
            Operand::F16(x) => in_chunks(x, to, |x, to| x.convert_to_f32_slice(to)),
            Operand::Bf16(x) => in_chunks(x, to, |x, to| x.convert_to_f32_slice(to)),
        }
    }
}

fn in_chunks<T: Real, S>(from: &[S], to: &mut [T], widen: impl Fn(&[S], &mut [f32])) {
    let mut wide = [0.0; CHUNK];
    for (from, to) in from.chunks(CHUNK).zip(to.chunks_mut(CHUNK)) {
        let wide = &mut wide[..from.len()];
        widen(from, wide);
        for (to, &wide) in to.iter_mut().zip(&*wide) {
            *to = T::of(f64::from(wide));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number of either type, by the definition of the type.
    #[test]
    fn every_16_bit_number_is_widened_exactly() {
        let bits = || (0..=u16::MAX).filter(|bits| f16::from_bits(*bits).is_finite());
        let halves: Vec<f16> = bits().map(f16::from_bits).collect();
        let want = bits().map(|bits| {
            let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
            let size = match exponent {
                0 => fraction * 2f64.powi(-24),
                _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
            };
            if bits >> 15 == 0 { size } else { -size }
        });
        let want: Vec<f64> = want.collect();
        assert!(*Operand::<f64>::F16(&halves).widened() == want[..]);
        let narrow = want.iter().map(|&x| x as f32);
        assert!(*Operand::<f32>::F16(&halves).widened() == narrow.collect::<Vec<_>>()[..]);

        let bits = || (0..=u16::MAX).filter(|bits| bf16::from_bits(*bits).is_finite());
        let halves: Vec<bf16> = bits().map(bf16::from_bits).collect();
        let want: Vec<f32> = bits().map(|b| f32::from_bits(u32::from(b) << 16)).collect();
        assert!(*Operand::<f32>::Bf16(&halves).widened() == want[..]);
    }

    #[test]
    fn rows_are_those_of_the_matrix() {
        let numbers: Vec<f32> = (0..7 * 100).map(|i| i as f32).collect();
        let halves: Vec<f16> = numbers.iter().map(|&x| f16::from_f32(x)).collect();
        let mut room = [0.0; 5 * 70];
        let (rows, apart) = Operand::F16(&halves[3..]).rows(100, [5, 70], |_| &mut room[..]);
        for row in 0..5 {
            assert!(rows[row * apart..][..70] == numbers[row * 100 + 3..][..70]);
        }
        let (rows, apart) = Operand::Wide(&numbers[3..]).rows(100, [5, 70], |_| &mut []);
        assert!(apart == 100 && rows == &numbers[3..]);
    }
}
