//! The textbook loops: the oracle.

use super::{Key, Pass};
use crate::dtype::Real;
use crate::runtime::native::NativeArgs;

pub(super) fn forward<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (o, lse) = (args.output::<T>(0), args.output::<T>(1));
    let (q, k, v) = (args.input::<T>(2), args.input::<T>(3), args.input::<T>(4));
    let width = key.width();
    o.fill(T::ZERO);
    for (row, lse) in lse.iter_mut().enumerate() {
        let (n, h, i) = (
            row / key.tq / key.heads,
            row / key.tq % key.heads,
            row % key.tq,
        );
        let at = (n * key.tq + i) * width + h * key.d;
        let source = |j: usize| key.keys_at(n) + j * width + h * key.d;
        let score = |j: usize| {
            let dot = (0..key.d).map(|c| q[at + c] * k[source(j) + c]).sum::<T>();
            dot * key.scale()
        };
        let scores: Vec<T> = (0..key.seen(i, 0, key.tk)).map(score).collect();
        let most = scores.iter().fold(scores[0], |m, &s| m.max(s));
        let total = scores.iter().map(|&s| (s - most).exp()).sum::<T>();
        for (j, &s) in scores.iter().enumerate() {
            let p = (s - most).exp() / total;
            for c in 0..key.d {
                o[at + c] += p * v[source(j) + c];
            }
        }
        *lse = most + T::of(total.f64().ln());
    }
}

/// Both backward passes: `dk` and `dv` only where the launch has them.
pub(super) fn vjp<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let dq = args.output::<T>(0);
    let (mut dk, mut dv) = (None, None);
    let mut first = 1;
    if key.pass == Pass::All {
        (dk, dv) = (Some(args.output::<T>(1)), Some(args.output::<T>(2)));
        first = 3;
    }
    let [dy, q, k, v, o, lse] = std::array::from_fn(|i| args.input::<T>(first + i));
    for out in [Some(&mut *dq), dk.as_deref_mut(), dv.as_deref_mut()] {
        out.into_iter().for_each(|out| out.fill(T::ZERO));
    }
    let (width, d) = (key.width(), key.d);
    let dot = |a: &[T], b: &[T]| a.iter().zip(b).map(|(&a, &b)| a * b).sum::<T>();
    for (row, &lse) in lse.iter().enumerate() {
        let (n, h, i) = (
            row / key.tq / key.heads,
            row / key.tq % key.heads,
            row % key.tq,
        );
        let at = (n * key.tq + i) * width + h * d;
        let (q, dy, o) = (&q[at..][..d], &dy[at..][..d], &o[at..][..d]);
        let delta = dot(dy, o);
        for j in 0..key.seen(i, 0, key.tk) {
            let source = key.keys_at(n) + j * width + h * d;
            let (k, v) = (&k[source..][..d], &v[source..][..d]);
            let p = (dot(q, k) * key.scale() - lse).exp();
            let ds = key.scale::<T>() * p * (dot(dy, v) - delta);
            for c in 0..d {
                dq[at + c] += ds * k[c];
                if let (Some(dk), Some(dv)) = (&mut dk, &mut dv) {
                    dk[source + c] += ds * q[c];
                    dv[source + c] += p * dy[c];
                }
            }
        }
    }
}
