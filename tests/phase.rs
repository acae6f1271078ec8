//! Phase retrieval: against numpy and the sum that defines the transform, Parseval, central differences, and what it
//! cannot tell apart.

use std::f64::consts::PI;

use posteriori::io::image::Image;
use posteriori::operators::matrix::Banded;
use posteriori::operators::{Measurement, Operator, Task};
use posteriori::ops::modulus;
use posteriori::{Cx, Tensor};

use crate::operators::{double, normal, says};
use crate::oracle::assert_close;

/// Odd, even and rectangular sizes, with and without a frame.
const CASES: &[(&str, [usize; 2])] = &[
    ("phase", [8, 8]),
    ("phase", [4, 5]),
    ("phase", [13, 6]),
    ("phase:0", [5, 6]),
    ("phase:3.5", [7, 9]),
    ("phase:8", [3, 2]),
    ("phase", [1, 11]),
];

fn build(cx: &Cx, task: &str, size: [usize; 2]) -> Box<dyn Operator> {
    Task::parse(task).unwrap().build(cx, size).unwrap()
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_f64().unwrap()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The definition, one sum a wave, for images `[n, h, w, 3]` in a frame of `pad` on each side.
fn by_sums(x: &[f64], [h, w]: [usize; 2], pad: [usize; 2]) -> Vec<f64> {
    let [fh, fw] = [h + 2 * pad[0], w + 2 * pad[1]];
    let centred = |i: usize, n: usize| i as f64 - (n / 2) as f64;
    let mut y = Vec::new();
    for image in x.chunks_exact(h * w * 3) {
        for u in 0..fh {
            for v in 0..fw {
                for c in 0..3 {
                    let (mut re, mut im) = (0.0, 0.0);
                    for i in 0..h {
                        for j in 0..w {
                            let value = 0.5 * image[(i * w + j) * 3 + c] + 0.5;
                            let down = centred(u, fh) * centred(i + pad[0], fh) / fh as f64;
                            let across = centred(v, fw) * centred(j + pad[1], fw) / fw as f64;
                            let angle = -2.0 * PI * (down + across);
                            re += value * angle.cos();
                            im += value * angle.sin();
                        }
                    }
                    y.push(f64::hypot(re, im) / ((fh * fw) as f64).sqrt());
                }
            }
        }
    }
    y
}

fn pad(task: &str, size: [usize; 2]) -> [usize; 2] {
    let eighths: f64 = task
        .strip_prefix("phase:")
        .map_or(2.0, |t| t.parse().unwrap());
    size.map(|side| (eighths / 8.0 * side as f64).floor() as usize)
}

#[test]
fn the_modulus_is_that_of_the_definition() {
    let cx = &double();
    for &(task, size @ [h, w]) in CASES {
        let f = build(cx, task, size);
        let pad = pad(task, size);
        assert_eq!(
            f.measurement_shape(),
            [h + 2 * pad[0], w + 2 * pad[1], 3],
            "{task} {size:?}"
        );
        let x = normal(cx, "x", [2, h, w, 3]);
        let got = values(&f.measure(cx, &x).unwrap());
        assert_close(task, &got, &by_sums(&values(&x), size, pad), 1e-13, 1e-12);
        // Parseval.
        let light: Vec<f64> = values(&x).iter().map(|x| 0.5 * x + 0.5).collect();
        let (left, right) = (dot(&got, &got), dot(&light, &light));
        assert!(
            (left - right).abs() <= 1e-12 * right,
            "{task}: {left} {right}"
        );
    }
}

/// numpy 2: `abs(fftshift(fft2(ifftshift(pad(x * 0.5 + 0.5, ((1, 1), (1, 1)))), norm="ortho")))`.
#[test]
fn the_modulus_is_that_of_numpy() {
    let cx = &double();
    let value = |i: usize| ((7 * (i / 15) + 3 * (i / 3 % 5) + 5 * (i % 3)) * 5 % 17) as f64;
    let x: Vec<f64> = (0..60).map(|i| value(i) / 8.0 - 1.0).collect();
    let x = cx.upload(&x, [1, 4, 5, 3]).unwrap();
    let got = values(&build(cx, "phase", [4, 5]).measure(cx, &x).unwrap());
    let red: Vec<f64> = got.into_iter().step_by(3).collect();
    let want = [
        [
            0.008583931386538166,
            0.024051641273500846,
            0.034755628632224145,
            0.09643959372630737,
            0.034755628632224124,
            0.024051641273500856,
            0.00858393138653816,
        ],
        [
            0.2043438628145421,
            0.1310471807417031,
            0.39777596462679515,
            0.4642141657324414,
            0.1341434234735528,
            0.14909929254269919,
            0.08714014775234556,
        ],
        [
            0.15909218806778355,
            0.2551826721982437,
            0.2462074970374047,
            0.7888617289366702,
            0.6728788542822165,
            0.22521418499044152,
            0.3615456018256465,
        ],
        [
            0.2383642715795243,
            0.03848315599530388,
            1.0612376408056836,
            1.8130643620545797,
            1.0612376408056836,
            0.03848315599530388,
            0.2383642715795243,
        ],
        [
            0.3615456018256465,
            0.22521418499044152,
            0.6728788542822165,
            0.7888617289366702,
            0.2462074970374047,
            0.2551826721982437,
            0.15909218806778355,
        ],
        [
            0.08714014775234556,
            0.14909929254269919,
            0.1341434234735528,
            0.4642141657324414,
            0.39777596462679515,
            0.1310471807417031,
            0.2043438628145421,
        ],
    ];
    assert_close("numpy", &red, &want.concat(), 1e-14, 1e-13);
}

#[test]
fn the_gradient_is_that_of_central_differences() {
    let cx = &double();
    for &(task, size @ [h, w]) in CASES {
        let f = build(cx, task, size);
        let x = normal(cx, "x", [2, h, w, 3]);
        let [fh, fw, _] = f.measurement_shape();
        let v = normal(cx, "v", [2, fh, fw, 3]);
        let gradient = values(&f.vjp(cx, &x, &v).unwrap());
        let along = |step: f64, d: &[f64]| {
            let moved: Vec<f64> = values(&x)
                .iter()
                .zip(d)
                .map(|(x, d)| x + step * d)
                .collect();
            let moved = cx.upload(&moved, x.shape()).unwrap();
            dot(&values(&f.measure(cx, &moved).unwrap()), &values(&v))
        };
        for name in ["d0", "d1", "d2"] {
            let d = values(&normal(cx, name, [2, h, w, 3]));
            let step = 1e-6;
            let want = (along(step, &d) - along(-step, &d)) / (2.0 * step);
            let got = dot(&gradient, &d);
            assert!(
                (got - want).abs() < 1e-6 * (1.0 + want.abs()),
                "{task} {size:?}: {got} {want}"
            );
        }
        // With z = A (x + 1): f^T(f) = A^T z, so <f^T(f), x + 1> = |z|^2 = |f|^2.
        let y = f.measure(cx, &x).unwrap();
        let back = values(&f.vjp(cx, &x, &y).unwrap());
        let light: Vec<f64> = values(&x).iter().map(|x| x + 1.0).collect();
        let (left, right) = (dot(&back, &light), dot(&values(&y), &values(&y)));
        assert!(
            (left - right).abs() < 1e-12 * right,
            "{task} {size:?}: {left} {right}"
        );
    }
}

#[test]
fn at_zero_the_gradient_of_the_modulus_is_zero_and_a_nan_stays() {
    let cx = &double();
    let z = cx
        .upload(&[3.0, -1.0, f64::NAN, 4.0, 2.0, 0.0], [1, 1, 2, 3])
        .unwrap();
    let o = cx
        .upload(&[0.0, 1.0, 0.0, 0.0, -2.0, 0.0], [1, 2, 3])
        .unwrap();
    let dy = cx.upload(&[10.0, 7.0, 1.0], [1, 1, 3]).unwrap();
    let y = values(&modulus::forward(cx, &z, &o).unwrap());
    assert_eq!(y[..2], [5.0, 0.0]);
    let dz = values(&modulus::vjp(cx, &z, &o, &dy).unwrap());
    assert_eq!([dz[0], dz[1], dz[3], dz[4]], [6.0, 0.0, 8.0, 0.0]);
    assert!([y[2], dz[2], dz[5]].iter().all(|v| v.is_nan()));
    for bad in [[1, 1, 3, 2], [1, 3, 2, 1], [6, 1, 1, 1]] {
        let z = z.view(bad).unwrap();
        assert!(modulus::forward(cx, &z, &o).is_err());
        assert!(modulus::vjp(cx, &z, &o, &dy).is_err());
    }
    assert!(modulus::vjp(cx, &z, &o, &dy.view([1, 3, 1]).unwrap()).is_err());
    assert!(modulus::forward(&Cx::native(), &z, &o).is_err());
}

#[test]
fn the_transforms_are_isometries() {
    for (n, pad) in [(1, 0), (5, 0), (6, 1), (7, 3), (16, 4)] {
        for matrix in [
            Banded::fourier(n, pad).unwrap(),
            Banded::complex_fourier(n, pad).unwrap(),
        ] {
            assert_eq!(matrix.rows(), 2 * (n + 2 * pad));
            let gram = matrix.transpose().times(&matrix).unwrap();
            for r in 0..matrix.cols() {
                let mut row = vec![0.0; matrix.cols()];
                gram.row(r).for_each(|(c, value)| row[c] = value);
                let want: Vec<f64> = (0..row.len()).map(|c| f64::from(c == r)).collect();
                assert_close("A^T A", &row, &want, 0.0, 1e-14);
            }
        }
    }
    says(Banded::fourier(0, 1), &["image size", "got 0"]);
    says(Banded::fourier(5000, 1250), &["5000 pixels", "7500"]);
    says(Banded::complex_fourier(2, usize::MAX), &["at most 65536"]);
}

/// `x` moved, what leaves on one side coming back on the other, and turned by 180 degrees, or not.
fn moved(x: &[f64], [h, w]: [usize; 2], turned: bool, by: [usize; 2]) -> Vec<f64> {
    let mut y = vec![0.0; x.len()];
    for i in 0..h {
        for j in 0..w {
            let (to_i, to_j) = ((i + by[0]) % h, (j + by[1]) % w);
            let (to_i, to_j) = match turned {
                true => (h - 1 - to_i, w - 1 - to_j),
                false => (to_i, to_j),
            };
            for c in 0..3 {
                y[(to_i * w + to_j) * 3 + c] = x[(i * w + j) * 3 + c];
            }
        }
    }
    y
}

#[test]
fn what_is_moved_in_the_frame_or_turned_measures_the_same() {
    let cx = &double();
    let same = |task: &str, size @ [h, w]: [usize; 2], x: &[f64], by: [usize; 2]| {
        let f = build(cx, task, size);
        let of = |x: &[f64]| values(&f.measure(cx, &cx.upload(x, [1, h, w, 3]).unwrap()).unwrap());
        for turned in [false, true] {
            let y = of(&moved(x, size, turned, by));
            assert_close(task, &y, &of(x), 1e-13, 1e-12);
        }
        let mut mirrored = x.to_vec();
        mirrored.reverse();
        let other = of(&mirrored);
        // Channels changed places: that is seen.
        assert!(other.iter().zip(of(x)).any(|(a, b)| (a - b).abs() > 1e-3));
    };
    for size @ [h, w] in [[6, 6], [5, 8]] {
        let x = values(&normal(cx, "x", [1, h, w, 3]));
        // Without a frame the image itself goes round.
        for by in [[1, 0], [0, 1], [3, 2], [h - 1, w - 1]] {
            same("phase:0", size, &x, by);
        }
        // In a black frame of its own, as far as that goes.
        let inside = |i: usize| i / 3 / w % h < h - 2 && i / 3 % w < w - 3;
        let x: Vec<f64> = x
            .iter()
            .enumerate()
            .map(|(i, x)| if inside(i) { *x } else { -1.0 })
            .collect();
        for by in [[1, 0], [0, 3], [2, 3]] {
            same("phase", size, &x, by);
        }
    }
}

#[test]
fn a_sample_has_the_same_bits_in_a_batch_and_on_any_threads() {
    let run = |threads: usize, alone: bool| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let cx = &Cx::native();
            let mut bits = Vec::new();
            for &(task, size @ [h, w]) in CASES {
                let f = build(cx, task, size);
                let [fh, fw, _] = f.measurement_shape();
                let x = normal(cx, "x", [3, h, w, 3]);
                let v = normal(cx, "v", [3, fh, fw, 3]);
                for i in 0..3 {
                    let part = |t: &Tensor| t.samples(i..i + 1).unwrap();
                    let of = |t: Tensor| match alone {
                        true => t,
                        false => t.samples(i..i + 1).unwrap(),
                    };
                    let (x, v) = match alone {
                        true => (part(&x), part(&v)),
                        false => (x.clone(), v.clone()),
                    };
                    for t in [f.measure(cx, &x), f.vjp(cx, &x, &v), f.condition(cx, &v)] {
                        let t: Vec<f32> = of(t.unwrap()).to_vec().unwrap();
                        bits.extend(t.into_iter().map(f32::to_bits));
                    }
                }
            }
            bits
        })
    };
    let want = run(1, true);
    assert_eq!(run(3, true), want);
    assert_eq!(run(3, false), want);
}

/// The kernels in f32 against the textbook in f64: sums of some fifty terms, each rounded once, 6e-8 of the largest.
#[cfg(feature = "emu")]
#[test]
fn the_emulator_measures_the_same() {
    let (cx, wide) = (
        &Cx::new(
            posteriori::runtime::Runtime::emu(Default::default()),
            posteriori::DType::F32,
        )
        .unwrap(),
        &double(),
    );
    for &(task, size @ [h, w]) in CASES {
        let [f, g] = [cx, wide].map(|cx| build(cx, task, size));
        let [fh, fw, _] = f.measurement_shape();
        let of = |cx: &Cx, f: &dyn Operator| {
            let x = values(&normal(wide, "x", [2, h, w, 3]));
            let v = values(&normal(wide, "v", [2, fh, fw, 3]));
            let [x, v]: [Vec<f64>; 2] =
                [x, v].map(|v| v.iter().map(|v| f64::from(*v as f32)).collect());
            let x = cx.upload(&x, [2, h, w, 3]).unwrap();
            let v = cx.upload(&v, [2, fh, fw, 3]).unwrap();
            let all = [f.measure(cx, &x), f.vjp(cx, &x, &v), f.condition(cx, &v)];
            all.map(|t| values(&t.unwrap()))
        };
        for (got, want) in of(cx, &*f).iter().zip(of(wide, &*g)) {
            let largest = want.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
            assert_close(task, got, &want, 0.0, 1e-5 * largest);
        }
    }
}

#[test]
fn tasks_and_sizes() {
    for (text, pads) in [
        ("phase", 2),
        ("phase:4", 4),
        ("phase:0", 0),
        ("phase:0.5", 0),
    ] {
        let task = Task::parse(text).unwrap();
        assert_eq!(task.to_string(), text);
        assert!(!task.measures_pictures());
        assert_eq!(task.image_size([8 + 2 * pads, 8 + 2 * pads]), [8, 8]);
        assert!(task.image_size([usize::MAX; 2])[0] > 1 << 40);
    }
    assert_eq!(Task::parse("phase:2").unwrap().to_string(), "phase");
    for (text, words) in [
        ("phase:-1", ["0 to 8", "got -1"]),
        ("phase:8.5", ["0 to 8", "got 8.5"]),
        ("phase:nan", ["0 to 8", "got NaN"]),
        ("phase:x", ["phase[:OVERSAMPLE]", "phase:x"]),
        ("phase:1:2", ["phase[:OVERSAMPLE]", "phase:1:2"]),
    ] {
        says(Task::parse(text), &words);
    }
    let task = Task::parse("phase").unwrap();
    says(task.check_size([8, 4000]), &["4000 pixels", "shrink"]);
    says(task.check_size([0, 4]), &["image size", "0 x 4"]);
    assert!(task.check_size([3300, 3300]).is_ok());

    let cx = &double();
    let f = task.build(cx, [6, 4]).unwrap();
    let y = normal(cx, "y", [1, 8, 6, 3]);
    says(f.adjoint(cx, &y), &["linear", "psld"]);
    assert!(f.pinv(cx, &y).unwrap().is_none());
    for wrong in [[1, 6, 4, 3], [1, 8, 6, 1]] {
        let y = normal(cx, "y", wrong);
        assert!(f.condition(cx, &y).is_err());
        assert!(f.vjp(cx, &normal(cx, "x", [1, 6, 4, 3]), &y).is_err());
    }
    assert!(f.measure(cx, &y).is_err());
    // The condition is of the image's size, and flat where the measurement is.
    let flat = cx.upload(&[7.0; 8 * 6 * 3], [1, 8, 6, 3]).unwrap();
    let condition = f.condition(cx, &flat).unwrap();
    assert_eq!(condition.dims(), [1, 6, 4, 3]);
    assert_close(
        "condition",
        &values(&condition),
        &[7.0; 6 * 4 * 3],
        0.0,
        1e-12,
    );
}

#[test]
fn the_measurement_file_and_what_is_shown() {
    let task = Task::parse("phase:3").unwrap();
    let measurement = Measurement::new(task.clone(), 0.05, 3, [12, 9]).unwrap();
    let text = measurement.to_json().unwrap();
    assert!(text.contains("phase-retrieval"), "{text}");
    assert_eq!(Measurement::from_json("m", &text).unwrap(), measurement);
    says(measurement.clone().counting(1.0), &["poisson", "phase:3"]);
    let x = Image::new(9, 12, vec![0.5; 12 * 9 * 3]).unwrap();
    let y = measurement.measure(&x, 1).unwrap();
    assert_eq!([y.height, y.width], [20, 15]);
    let shown = measurement.shown(&y).unwrap();
    assert_eq!([shown.height, shown.width], [12, 9]);
    let most = shown.pixels.iter().copied().fold(-1.0, f32::max);
    assert!(most == 1.0 && shown.pixels.iter().all(|v| (-1.0..=1.0).contains(v)));
    assert!(measurement.shown(&x).is_err());
    let picture = Measurement::new(Task::parse("sr3").unwrap(), 0.0, 0, [12, 9]).unwrap();
    assert_eq!(picture.shown(&x).unwrap(), x);
}
