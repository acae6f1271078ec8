//! The matrices of `operators::matrix` against METHOD.md's taps, identities of linear algebra and the
//! oracle's operators.

use posteriori::operators::matrix::Banded;
use posteriori::verify::portable;

use crate::oracle::{Fixture, assert_close};

/// METHOD.md section 3: the taps of a reduction by F, outermost first, up to the middle.
const HALF_8: [f64; 16] = [
    -0.00022888,
    -0.00178528,
    -0.00419617,
    -0.00672913,
    -0.00865173,
    -0.00923157,
    -0.00773621,
    -0.00343323,
    0.00483704,
    0.01927185,
    0.03822327,
    0.05949402,
    0.08088684,
    0.10020447,
    0.11524963,
    0.12382507,
];
const HALF_4: [f64; 8] = [
    -0.00170898,
    -0.01098633,
    -0.01831055,
    -0.01196289,
    0.02270508,
    0.09741211,
    0.18188477,
    0.24096680,
];

fn dense(matrix: &Banded) -> Vec<f64> {
    let mut all = vec![0.0; matrix.rows() * matrix.cols()];
    for r in 0..matrix.rows() {
        for (c, value) in matrix.row(r) {
            all[r * matrix.cols() + c] += value;
        }
    }
    all
}

/// Applies `down` to the rows and `across` to the columns of each of the planes of x.
fn separable(down: &Banded, across: &Banded, x: &[f64]) -> Vec<f64> {
    let (h, w) = (down.cols(), across.cols());
    let mut out = Vec::new();
    for plane in x.chunks_exact(h * w) {
        let rows: Vec<Vec<f64>> = plane
            .chunks_exact(w)
            .map(|row| across.matvec(row).unwrap())
            .collect();
        let mut result = vec![0.0; down.rows() * across.rows()];
        for c in 0..across.rows() {
            let column: Vec<f64> = rows.iter().map(|row| row[c]).collect();
            for (r, value) in down.matvec(&column).unwrap().into_iter().enumerate() {
                result[r * across.rows() + c] = value;
            }
        }
        out.extend(result);
    }
    out
}

#[test]
fn reductions_have_the_published_taps() {
    for (factor, half) in [(8, &HALF_8[..]), (4, &HALF_4[..])] {
        let a = Banded::bicubic_reduce(128, factor).unwrap();
        let taps: Vec<f64> = a.row(64 / factor).map(|element| element.1).collect();
        let want: Vec<f64> = half.iter().chain(half.iter().rev()).copied().collect();
        assert_close("taps", &taps, &want, 0.0, 1e-8);
        let first = a.row(64 / factor).next().unwrap().0;
        assert_eq!(first + 2 * factor, 64 + factor / 2);
        let columns = a.transpose().matvec(&vec![1.0; 128 / factor]).unwrap();
        let want = vec![1.0 / factor as f64; 128];
        assert_close("columns", &columns, &want, 1e-13, 0.0);
    }
}

#[test]
fn rows_sum_to_one() {
    let matrices = [
        Banded::bicubic_reduce(113, 8).unwrap(),
        Banded::bicubic_reduce(31, 31).unwrap(),
        Banded::bicubic_reduce(1, 1).unwrap(),
        Banded::bicubic_reduce(5, 2).unwrap(),
        Banded::bicubic_enlarge(1, 3).unwrap(),
        Banded::bicubic_enlarge(31, 8).unwrap(),
        Banded::gaussian_blur(13, 61, 3.0).unwrap(),
        Banded::gaussian_blur(203, 61, 3.0).unwrap(),
        Banded::gaussian_blur(1, 61, 0.1).unwrap(),
    ];
    for a in matrices {
        let sums = a.matvec(&vec![1.0; a.cols()]).unwrap();
        assert_close("rows", &sums, &vec![1.0; a.rows()], 1e-13, 0.0);
    }
}

/// Reducing by 1 and enlarging by 1 interpolate at the pixels themselves.
#[test]
fn factor_one_is_the_identity() {
    let one = Banded::bicubic_reduce(7, 1).unwrap();
    assert!((0..7).all(|i| one.row(i).eq([(i, 1.0)])));
    assert_eq!(Banded::bicubic_enlarge(7, 1).unwrap(), one);
    assert_eq!(one.transpose(), one);
}

#[test]
fn transposes_are_adjoint() {
    for a in [
        Banded::bicubic_reduce(113, 8).unwrap(),
        Banded::bicubic_enlarge(31, 3).unwrap(),
        Banded::gaussian_blur(33, 61, 3.0).unwrap(),
    ] {
        let transposed = a.transpose();
        assert_eq!(transposed.transpose(), a);
        let x = portable::normals(1, "x", a.cols(), 0.0, 1.0);
        let y = portable::normals(1, "y", a.rows(), 0.0, 1.0);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let left = dot(&a.matvec(&x).unwrap(), &y);
        let right = dot(&x, &transposed.matvec(&y).unwrap());
        assert_close("adjoint", &[left], &[right], 1e-13, 1e-13);
    }
}

#[test]
fn pseudo_inverses_invert_reductions() {
    for (n, factor) in [(128, 8), (128, 4), (113, 8), (31, 3), (512, 2)] {
        let a = Banded::bicubic_reduce(n, factor).unwrap();
        let inverse = a.pinv().unwrap();
        assert_eq!((inverse.rows(), inverse.cols()), (n, a.rows()));
        for r in 0..a.rows() {
            let mut unit = vec![0.0; a.rows()];
            unit[r] = 1.0;
            let back = a.matvec(&inverse.matvec(&unit).unwrap()).unwrap();
            assert_close("A A+", &back, &unit, 0.0, 1e-11);
        }
        // A+ A is the orthogonal projection on the row space: symmetric
        let x = portable::normals(2, "x", n, 0.0, 1.0);
        let y = portable::normals(2, "y", n, 0.0, 1.0);
        let project = |x: &[f64]| inverse.matvec(&a.matvec(x).unwrap()).unwrap();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        assert_close(
            "symmetry",
            &[dot(&project(&x), &y)],
            &[dot(&x, &project(&y))],
            0.0,
            1e-9,
        );
    }
    // an enlargement has more rows than columns
    let error = Banded::bicubic_enlarge(8, 2).unwrap().pinv().unwrap_err();
    assert!(error.to_string().contains("independent rows"), "{error}");
}

#[test]
fn the_blur_has_the_published_taps() {
    let a = Banded::gaussian_blur(64, 61, 3.0).unwrap();
    let taps: Vec<(usize, f64)> = a.row(30).collect();
    assert_eq!((taps.len(), taps[0].0, taps[24].0), (25, 18, 42));
    assert_close("centre", &[taps[12].1], &[0.1329845], 0.0, 5e-8);
    assert_close("2-D centre", &[taps[12].1.powi(2)], &[0.0176849], 0.0, 5e-8);
    // reflected without the edge: pixel 0 sees pixel k twice, itself once
    let edge: Vec<(usize, f64)> = a.row(0).collect();
    assert_close("edge", &[edge[0].1], &[taps[12].1], 1e-14, 0.0);
    assert_close("edge", &[edge[1].1], &[2.0 * taps[13].1], 1e-14, 0.0);
}

#[test]
fn bad_arguments_are_errors() {
    let huge = usize::MAX;
    for (result, says) in [
        (Banded::bicubic_reduce(0, 8), "got 0"),
        (Banded::bicubic_reduce(huge, 8), "image size"),
        (Banded::bicubic_reduce(16, 0), "factor"),
        (Banded::bicubic_reduce(16, huge), "factor"),
        (Banded::bicubic_enlarge(16, 0), "factor"),
        (Banded::bicubic_enlarge(16, huge), "factor"),
        (Banded::gaussian_blur(12, 61, 3.0), "at least 13"),
        (Banded::gaussian_blur(64, 60, 3.0), "odd"),
        (Banded::gaussian_blur(64, 61, 0.0), "sigma"),
        (Banded::gaussian_blur(64, 61, f64::NAN), "sigma"),
        (Banded::gaussian_blur(64, huge, 1e300), "odd"),
    ] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(says), "{error} lacks {says}");
    }
    let three = Banded::bicubic_reduce(3, 1).unwrap();
    assert!(three.matvec(&[1.0]).is_err());
    assert_eq!(three.row(huge).count(), 0);
}

#[test]
fn agrees_with_the_oracle() {
    for (name, factors) in [("tiny-sd2", &[8][..]), ("tiny-pixel", &[8, 4])] {
        let fixture = Fixture::open(name);
        let (shape, image) = fixture.tensor("in/img");
        let n = shape[3];
        // images are stored in f32
        let image_close = |what: &str, got: &[f64]| {
            assert_close(what, got, &fixture.values(what), 1e-7, 1e-7);
        };
        for factor in factors {
            let op = format!("ops/sr{factor}");
            let a = Banded::bicubic_reduce(n, *factor).unwrap();
            let rows = format!("{op}/A_rows");
            assert_close(&rows, &dense(&a), &fixture.values(&rows), 0.0, 1e-15);
            let reduced = separable(&a, &a, &image);
            image_close(&format!("{op}/f_img"), &reduced);
            let cotangent = fixture.values(&format!("{op}/cot"));
            let transposed = a.transpose();
            image_close(
                &format!("{op}/fT_cot"),
                &separable(&transposed, &transposed, &cotangent),
            );
            if name == "tiny-sd2" {
                let enlarge = Banded::bicubic_enlarge(n / factor, *factor).unwrap();
                image_close(
                    &format!("{op}/cond_img"),
                    &separable(&enlarge, &enlarge, &reduced),
                );
            }
        }
        let blur = Banded::gaussian_blur(n, 61, 3.0).unwrap();
        image_close("ops/blur/f_img", &separable(&blur, &blur, &image));
        let (transposed, cotangent) = (blur.transpose(), fixture.values("ops/blur/cot"));
        image_close(
            "ops/blur/fT_cot",
            &separable(&transposed, &transposed, &cotangent),
        );
        let wide = Banded::gaussian_blur(128, 61, 3.0).unwrap();
        let middle: Vec<f64> = dense(&wide)[64 * 128 + 34..64 * 128 + 95].to_vec();
        let want = fixture.values("ops/blur/k1d");
        assert_close("ops/blur/k1d", &middle, &want, 0.0, 1e-16);
    }
}
