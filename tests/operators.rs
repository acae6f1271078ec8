//! The measurement operators: adjoints, pseudo-inverses, the oracle's values, bits at any batch size
//! and thread count.

use posteriori::operators::{Operator, Task, add_noise};
use posteriori::ops::{banded, filter2d, mask, noise};
use posteriori::rng::{self, Stream, image_key};
use posteriori::runtime::Runtime;
use posteriori::verify::portable;
use posteriori::{Cx, DType, Error, Shape, Tensor};

use crate::oracle::{Fixture, assert_close, data};

pub(crate) fn double() -> Cx {
    Cx::new(Runtime::native(), DType::F64).unwrap()
}

fn build(cx: &Cx, task: &str, size: [usize; 2]) -> Box<dyn Operator> {
    let task = Task::parse(task).unwrap();
    task.build(cx, size)
        .unwrap_or_else(|e| panic!("{task}: {e}"))
}

pub(crate) fn normal(cx: &Cx, name: &str, shape: [usize; 4]) -> Tensor {
    let values = portable::normals(5, name, shape.iter().product(), 0.0, 1.0);
    cx.upload(&values, shape).unwrap()
}

pub(crate) fn dot(a: &Tensor, b: &Tensor) -> (f64, f64) {
    let (a, b) = (a.to_f64().unwrap(), b.to_f64().unwrap());
    let products = || a.iter().zip(&b).map(|(a, b)| a * b);
    (products().sum(), products().map(f64::abs).sum())
}

pub(crate) fn batch(n: usize, [h, w, c]: [usize; 3]) -> [usize; 4] {
    [n, h, w, c]
}

/// Odd and rectangular sizes that each task takes.
pub(crate) const CASES: &[(&str, [usize; 2])] = &[
    ("sr2", [34, 62]),
    ("sr4", [4, 4]),
    ("sr4", [44, 124]),
    ("sr8", [24, 104]),
    ("sr3", [33, 63]),
    ("sr1", [5, 31]),
    ("sr64", [64, 128]),
    ("blur", [13, 31]),
    ("blur", [113, 33]),
    ("blur:0.1:3", [2, 5]),
    ("motion", [31, 33]),
    ("motion:7", [47, 32]),
    ("inpaint", [31, 33]),
    ("inpaint", [3, 3]),
    ("inpaint:5x31", [31, 31]),
    ("random:0.5:3", [31, 113]),
    ("random:0", [1, 1]),
    ("denoise", [31, 1]),
    ("color", [31, 5]),
];

#[test]
fn adjoints() {
    let cx = double();
    for &(task, size @ [h, w]) in CASES {
        let f = build(&cx, task, size);
        let x = normal(&cx, "x", [2, h, w, 3]);
        let v = normal(&cx, "v", batch(2, f.measurement_shape()));
        let (left, scale) = dot(&f.measure(&cx, &x).unwrap(), &v);
        let (right, _) = dot(&x, &f.vjp(&cx, &x, &v).unwrap());
        assert!(
            (left - right).abs() <= 1e-12 * scale,
            "{task} {size:?}: {left} {right}"
        );
    }
}

#[test]
fn constants_stay_constant() {
    let cx = double();
    for &(task, size @ [h, w]) in CASES {
        let f = build(&cx, task, size);
        let x = cx.upload(&vec![0.7; 3 * h * w], [1, h, w, 3]).unwrap();
        let y = f.measure(&cx, &x).unwrap().to_f64().unwrap();
        if task.starts_with("inpaint") || task.starts_with("random") {
            assert!(y.iter().all(|y| *y == 0.0 || *y == 0.7), "{task}");
        } else {
            assert_close(task, &y, &vec![0.7; y.len()], 1e-12, 0.0);
        }
    }
}

#[test]
fn pseudo_inverses() {
    let cx = double();
    for &(task, size @ [h, w]) in CASES {
        let f = build(&cx, task, size);
        let x = normal(&cx, "x", [2, h, w, 3]);
        let y = f.measure(&cx, &x).unwrap();
        let Some(back) = f.pinv(&cx, &y).unwrap() else {
            assert!(task.starts_with("blur") || task.starts_with("motion"));
            continue;
        };
        let again = f.measure(&cx, &back).unwrap().to_f64().unwrap();
        assert_close(task, &again, &y.to_f64().unwrap(), 0.0, 1e-10);
        // A+ A is an orthogonal projection: <x, A+ A x> = |A+ A x|^2
        let (left, right) = (dot(&x, &back).0, dot(&back, &back).0);
        assert_close(task, &[left], &[right], 1e-9, 1e-9);
    }
}

/// An NCHW tensor of a fixture as NHWC values.
fn image(fixture: &Fixture, name: &str) -> ([usize; 4], Vec<f64>) {
    let (shape, values) = fixture.tensor(name);
    let [n, c, h, w] = shape[..].try_into().unwrap();
    let mut out = Vec::with_capacity(values.len());
    for i in 0..n * h * w {
        let (sample, pixel) = (i / (h * w), i % (h * w));
        out.extend((0..c).map(|c_i| values[(sample * c + c_i) * h * w + pixel]));
    }
    ([n, h, w, c], out)
}

fn relative(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
    let error = norm(&mut got.iter().zip(want).map(|(g, w)| g - w));
    error / norm(&mut want.iter().copied())
}

#[test]
fn agree_with_the_oracle() {
    for name in ["tiny-sd2", "tiny-sd1", "tiny-pixel"] {
        let fixture = Fixture::open(name);
        let index = std::fs::read_to_string(data(&format!("fixtures/{name}.index.json"))).unwrap();
        let index: serde_json::Value = serde_json::from_str(&index).unwrap();
        let (shape @ [_, h, w, _], x) = image(&fixture, "in/img");
        let mut compared = 0;
        for cx in [Cx::native(), double()] {
            let mut check = |tensor: String, got: &[f64], want: &[f64]| {
                let bound = match cx.dtype() {
                    DType::F32 => index["tensors"][&tensor]["tol"]["fp32"].as_f64().unwrap(),
                    _ => 1e-6,
                };
                let error = relative(got, want);
                assert!(error <= bound, "{name} {tensor} {}: {error:e}", cx.dtype());
                compared += 1;
            };
            let x = cx.upload(&x, shape).unwrap();
            for task in ["sr8", "sr4", "blur", "inpaint"] {
                let named = |part: &str| format!("ops/{task}/{part}");
                if !fixture.names().contains(&named("f_img")) {
                    continue;
                }
                let f = build(&cx, task, [h, w]);
                let y = f.measure(&cx, &x).unwrap();
                let want = image(&fixture, &named("f_img")).1;
                check(named("f_img"), &y.to_f64().unwrap(), &want);
                let (cot_shape, cot) = image(&fixture, &named("cot"));
                let cot = cx.upload(&cot, cot_shape).unwrap();
                let want = image(&fixture, &named("fT_cot")).1;
                let dx = f.vjp(&cx, &x, &cot).unwrap().to_f64().unwrap();
                check(named("fT_cot"), &dx, &want);
                let parts = Parts {
                    cx: &cx,
                    f: &*f,
                    fixture: &fixture,
                    size: [h, w],
                    task,
                };
                for (name, got, want) in parts.compute(&y) {
                    check(name, &got, &want);
                }
            }
        }
        let all = fixture.names();
        let outputs = all
            .iter()
            .filter(|n| n.starts_with("ops/") && !n.ends_with("cot"))
            .count();
        let adjoints = all.iter().filter(|n| n.ends_with("/fT_cot")).count();
        assert_eq!(compared, 2 * (outputs + adjoints), "{name}");
    }
}

/// The tensors that only some tasks have.
struct Parts<'a> {
    cx: &'a Cx,
    f: &'a dyn Operator,
    fixture: &'a Fixture,
    size: [usize; 2],
    task: &'a str,
}

impl Parts<'_> {
    /// Name, computed and wanted values.
    fn compute(&self, y: &Tensor) -> Vec<(String, Vec<f64>, Vec<f64>)> {
        let mut all = Vec::new();
        let (cx, [h, w]) = (self.cx, self.size);
        for part in ["cond_img", "A_rows", "k1d", "mask"] {
            let name = format!("ops/{}/{part}", self.task);
            if !self.fixture.names().contains(&name) {
                continue;
            }
            let want = self.fixture.values(&name);
            match part {
                "cond_img" => {
                    let got = self.f.condition(cx, y).unwrap().to_f64().unwrap();
                    let want = image(self.fixture, &name).1;
                    all.push((name, got, want));
                }
                // of an image that is 1 in row i, the measurement is column i of the matrix
                "A_rows" => {
                    let rows = self.f.measurement_shape()[0];
                    let mut got = vec![0.0; rows * h];
                    for i in 0..h {
                        let mut x = vec![0.0; h * w * 3];
                        x[i * w * 3..(i + 1) * w * 3].fill(1.0);
                        let x = cx.upload(&x, [1, h, w, 3]).unwrap();
                        let y = self.f.measure(cx, &x).unwrap().to_f64().unwrap();
                        let across = y.len() / rows;
                        (0..rows).for_each(|r| got[r * h + i] = y[r * across]);
                    }
                    all.push((name, got, want));
                }
                // of a horizontal line in a large image, the measurement is the kernel
                "k1d" => {
                    let f = build(cx, self.task, [128, 31]);
                    let mut x = vec![0.0; 128 * 31 * 3];
                    x[64 * 31 * 3..65 * 31 * 3].fill(1.0);
                    let x = cx.upload(&x, [1, 128, 31, 3]).unwrap();
                    let y = f.measure(cx, &x).unwrap().to_f64().unwrap();
                    let got: Vec<f64> = (34..95).map(|row| y[row * 31 * 3]).collect();
                    all.push((name, got, want));
                }
                _ => {
                    let x = cx.upload(&vec![1.0; h * w * 3], [1, h, w, 3]).unwrap();
                    let y = self.f.measure(cx, &x).unwrap().to_f64().unwrap();
                    let got: Vec<f64> = y.chunks_exact(3).map(|pixel| pixel[1]).collect();
                    all.push((name, got, want));
                }
            }
        }
        all
    }
}

#[test]
fn a_sample_has_the_same_bits_alone_and_in_a_batch() {
    let cx = Cx::native();
    for &(task, size @ [h, w]) in CASES {
        let f = build(&cx, task, size);
        let x = normal(&cx, "x", [5, h, w, 3]);
        let v = normal(&cx, "v", batch(5, f.measurement_shape()));
        let run = |x: &Tensor, v: &Tensor| {
            let mut all = vec![
                f.measure(&cx, x).unwrap(),
                f.vjp(&cx, x, v).unwrap(),
                f.condition(&cx, v).unwrap(),
            ];
            all.extend(f.pinv(&cx, v).unwrap());
            all
        };
        let together = run(&x, &v);
        for i in 0..5 {
            let one = |t: &Tensor| t.samples(i..i + 1).unwrap();
            for (alone, all) in run(&one(&x), &one(&v)).iter().zip(&together) {
                let bits = |t: &Tensor| -> Vec<u32> {
                    t.to_vec::<f32>()
                        .unwrap()
                        .into_iter()
                        .map(f32::to_bits)
                        .collect()
                };
                assert_eq!(bits(alone), bits(&one(all)), "{task} {size:?} sample {i}");
            }
        }
    }
}

#[test]
fn the_bits_do_not_depend_on_the_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let cx = Cx::native();
            let mut bits = Vec::new();
            for &(task, size @ [h, w]) in CASES {
                let f = build(&cx, task, size);
                let x = normal(&cx, "x", [2, h, w, 3]);
                let y = f.measure(&cx, &x).unwrap();
                let y = add_noise(&cx, &y, 0.1, &[Stream::new(0, 0, 0), Stream::new(0, 0, 1)]);
                let dx = f.vjp(&cx, &x, y.as_ref().unwrap()).unwrap();
                for t in [y.unwrap(), dx] {
                    bits.extend(t.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits));
                }
            }
            bits
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn noise_is_the_addressed_field() {
    let streams: Vec<Stream> = (0..5).map(|i| Stream::new(3, image_key("a"), i)).collect();
    let cx = Cx::native();
    let shape = [5, 31, 47, 3];
    let all = noise::normals(&cx, shape, &streams, 11, 2).unwrap();
    let y = normal(&cx, "y", shape);
    let noisy = add_noise(&cx, &y, 0.25, &streams).unwrap();
    for (i, stream) in streams.iter().enumerate() {
        let one = |t: &Tensor| t.samples(i..i + 1).unwrap();
        let mut want = vec![0.0f32; 31 * 47 * 3];
        stream.normals(11, 2, &mut want);
        assert_eq!(one(&all).to_vec::<f32>().unwrap(), want);
        let address = noise::addresses(&cx, &streams[i..=i], 11, 2).unwrap();
        let alone = noise::forward(&cx, Shape::from([1, 31, 47, 3]), &address).unwrap();
        assert_eq!(alone.to_vec::<f32>().unwrap(), want);
        stream.normals(rng::MEASUREMENT, 0, &mut want);
        let y = one(&y).to_vec::<f32>().unwrap();
        let want: Vec<f32> = y.iter().zip(want).map(|(y, n)| y + 0.25 * n).collect();
        assert_eq!(one(&noisy).to_vec::<f32>().unwrap(), want);
        let none = add_noise(&cx, &one(&all), 0.0, &streams[i..=i]).unwrap();
        assert_eq!(
            none.to_vec::<f32>().unwrap(),
            one(&all).to_vec::<f32>().unwrap()
        );
    }
    let wide = double();
    let field = noise::normals(&wide, [1, 9], &streams[..1], u32::MAX, u32::MAX).unwrap();
    let mut want = [0.0f64; 9];
    streams[0].normals(u32::MAX, u32::MAX, &mut want);
    assert_eq!(field.to_vec::<f64>().unwrap(), want);
}

pub(crate) fn says<T>(result: Result<T, Error>, words: &[&str]) {
    let error = result.err().expect("an error").to_string();
    for word in words {
        assert!(error.contains(word), "{error} lacks {word}");
    }
}

#[test]
fn sizes_that_do_not_suit_are_errors() {
    let cx = Cx::native();
    for (task, size, words) in [
        ("sr8", [64, 65], ["multiples of 8", "64 x 65"]),
        ("sr8", [0, 64], ["image size", "0 x 64"]),
        (
            "denoise",
            [usize::MAX, usize::MAX],
            ["image size", "at most"],
        ),
        ("random:0.5", [65536, 65536], ["at most", "65536 x 65536"]),
        ("blur", [12, 64], ["at least 13", "12"]),
        ("motion", [64, 30], ["at least 31", "64 x 30"]),
        ("inpaint:9x9", [8, 64], ["inside 8 x 64", "9 x 9"]),
    ] {
        says(Task::parse(task).unwrap().build(&cx, size), &words);
    }
    for &(task, size @ [h, w]) in CASES {
        let f = build(&cx, task, size);
        let wrong = normal(&cx, "x", [1, h + 1, w, 3]);
        let grey = normal(&cx, "x", [1, h, w, 1]);
        let flat = cx.upload(&[0.0], [1]).unwrap();
        let other = normal(&double(), "x", [1, h, w, 3]);
        for x in [&wrong, &grey, &flat, &other] {
            assert!(f.measure(&cx, x).is_err(), "{task}");
        }
        for y in [&grey, &flat] {
            assert!(f.vjp(&cx, y, y).is_err(), "{task}");
            assert!(f.condition(&cx, y).is_err(), "{task}");
        }
    }
}

#[test]
fn ops_refuse_what_does_not_fit() {
    let cx = Cx::native();
    let x = normal(&cx, "x", [1, 4, 5, 3]);
    for (starts, indices, values) in [
        (&[0usize, 2][..], &[0u32, 4][..], &[1.0, 1.0][..]),
        (&[0, 1], &[0, 1], &[1.0, 1.0]),
        (&[0, 2, 1, 2], &[0, 1], &[1.0, 1.0]),
        (&[0, 2], &[0, 1], &[1.0]),
        (&[], &[], &[]),
    ] {
        says(
            banded::Matrix::new(&cx, 4, starts, indices, values),
            &["banded"],
        );
    }
    let matrix = banded::Matrix::new(&cx, 4, &[0, 1], &[2], &[1.0]).unwrap();
    assert_eq!(
        banded::forward(&cx, &matrix, &x, 1).unwrap().dims(),
        [1, 1, 5, 3]
    );
    for axis in [0, 2, 3, 4] {
        says(
            banded::forward(&cx, &matrix, &x, axis),
            &["banded", "4 elements"],
        );
    }
    for kernel in [[2, 2], [1, 9], [9, 9]] {
        let kernel = cx
            .upload(&vec![0.0; kernel[0] * kernel[1]], kernel)
            .unwrap();
        says(filter2d::forward(&cx, &x, &kernel), &["filter2d"]);
        says(filter2d::vjp(&cx, &kernel, &x), &["filter2d"]);
    }
    says(mask::forward(&cx, &x, &x), &["mask", "[4, 5, 1]"]);
    let stream = [Stream::new(0, 0, 0)];
    says(
        noise::normals(&cx, [2, 3], &stream, 0, 0),
        &["one for each sample", "[1, 5]"],
    );
    says(add_noise(&cx, &x, -1.0, &stream), &["sigma", "-1"]);
    says(add_noise(&cx, &x, f64::NAN, &stream), &["sigma", "NaN"]);
}
