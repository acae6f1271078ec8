//! Gradients of the weights of convolutions and linear maps, in f64 against their adjoints and central differences.

use posteriori::ops::conv2d::{self, Epilogue, Geometry};
use posteriori::ops::linear;
use posteriori::rng::Philox;
use posteriori::runtime::Runtime;
use posteriori::{Cx, DType, Tensor};

use crate::gradients::{dot, normals, shaped};

/// An op that is linear in its weights: sizes of `x` without its first dimension and of `w`.
struct Weighted {
    name: String,
    x: Vec<usize>,
    w: Vec<usize>,
    geometry: Geometry,
}

impl Weighted {
    fn all() -> Vec<Weighted> {
        let geometry = |stride, before, after| Geometry {
            stride,
            before,
            after,
        };
        let convs = [
            (3, Geometry::same(3), [9, 7, 5, 33]),
            (3, Geometry::same(3), [20, 17, 70, 26]),
            (1, Geometry::same(1), [9, 7, 5, 30]),
            (3, geometry(2, 0, 1), [8, 12, 4, 40]),
            (3, geometry(2, 1, 1), [9, 7, 13, 24]),
            (3, geometry(1, 0, 2), [6, 7, 3, 4]),
            (2, geometry(3, 1, 0), [8, 10, 2, 25]),
        ];
        let convs = convs.map(|(k, geometry, [height, width, i, o])| Weighted {
            name: format!("conv2d {k} {geometry:?} {height} {width} {i} {o}"),
            x: vec![height, width, i],
            w: vec![k, k, i, o],
            geometry,
        });
        let linears = [(1, 33, 31), (77, 31, 65), (300, 40, 24)];
        let linears = linears.map(|(rows, k, m)| Weighted {
            name: format!("linear {rows} {k} {m}"),
            x: vec![rows, k],
            w: vec![m, k],
            geometry: Geometry::same(1),
        });
        convs.into_iter().chain(linears).collect()
    }

    fn forward(&self, cx: &Cx, x: &Tensor, w: &Tensor) -> Tensor {
        match self.w.len() {
            2 => linear::forward(cx, x, w, None, None),
            _ => conv2d::forward(cx, x, w, self.geometry, Epilogue::default()),
        }
        .unwrap()
    }

    fn wgrad(&self, cx: &Cx, x: &Tensor, dy: &Tensor) -> Tensor {
        match self.w.len() {
            2 => linear::wgrad(cx, x, dy),
            _ => conv2d::wgrad(cx, x, self.geometry, self.w[0], dy),
        }
        .unwrap()
    }

    /// Random `x` of three samples, `w`, `dy` and the weights' cotangent.
    fn draw(&self, cx: &Cx) -> [Tensor; 4] {
        let mut random = Philox::new(19);
        let dims: Vec<usize> = [3].into_iter().chain(self.x.iter().copied()).collect();
        let x = normals(cx, &mut random, &dims);
        let w = normals(cx, &mut random, &self.w);
        let dy = normals(cx, &mut random, self.forward(cx, &x, &w).dims());
        let dw = self.wgrad(cx, &x, &dy);
        assert_eq!(dw.dims(), w.dims(), "{}", self.name);
        [x, w, dy, dw]
    }
}

#[test]
fn weight_gradients_are_adjoints_and_agree_with_central_differences() {
    let cx = Cx::new(Runtime::native(), DType::F64).unwrap();
    let mut random = Philox::new(23);
    for c in Weighted::all() {
        let [x, w, dy, dw] = c.draw(&cx);
        let (w, dy, dw) = (
            w.to_f64().unwrap(),
            dy.to_f64().unwrap(),
            dw.to_f64().unwrap(),
        );
        let through = |w: &[f64]| {
            let y = c.forward(&cx, &x, &shaped(&cx, w, &c.w)).to_f64().unwrap();
            (dot(&y, &dy), dot(&y, &y).sqrt() * dot(&dy, &dy).sqrt())
        };
        for _ in 0..3 {
            let v: Vec<f64> = w.iter().map(|_| random.normal()).collect();
            let got = dot(&dw, &v);
            let (want, scale) = through(&v);
            let error = (got - want).abs() / scale;
            assert!(
                error <= 1e-12,
                "{}: the adjoint is off by {error:e}",
                c.name
            );
            // The map is linear in w: there is no term of higher order, so h need not be small.
            let moved = |h: f64| w.iter().zip(&v).map(|(w, v)| w + h * v).collect::<Vec<_>>();
            let ((ahead, scale), (behind, _)) = (through(&moved(0.5)), through(&moved(-0.5)));
            let error = (got - (ahead - behind)).abs() / scale;
            assert!(
                error <= 1e-12,
                "{}: differences are off by {error:e}",
                c.name
            );
        }
    }
}

#[test]
fn the_bits_of_weight_gradients_do_not_depend_on_the_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let cx = Cx::native();
            let one = |c: Weighted| c.draw(&cx)[3].to_vec::<f32>().unwrap();
            Weighted::all().into_iter().map(one).collect::<Vec<_>>()
        })
    };
    let bits = |sums: Vec<Vec<f32>>| {
        sums.into_iter()
            .flatten()
            .map(f32::to_bits)
            .collect::<Vec<_>>()
    };
    assert_eq!(bits(run(1)), bits(run(3)));
}

#[test]
fn weight_gradients_refuse_cotangents_of_another_shape() {
    let cx = Cx::native();
    let zeros = |dims: &[usize]| shaped(&cx, &vec![0.0f32; dims.iter().product()], dims);
    let conv = |x: &[usize], k, dy: &[usize]| {
        let error = conv2d::wgrad(&cx, &zeros(x), Geometry::same(3), k, &zeros(dy)).unwrap_err();
        error.to_string()
    };
    assert!(conv(&[2, 4, 4, 3], 3, &[2, 4, 5, 6]).contains("[2, 4, 4, o]"));
    assert!(conv(&[2, 4, 4, 3], 3, &[1, 4, 4, 6]).contains("[2, 4, 4, o]"));
    assert!(conv(&[2, 4, 4, 3], 9, &[2, 4, 4, 6]).contains("9 x 9"));
    let error = linear::wgrad(&cx, &zeros(&[2, 5, 3]), &zeros(&[2, 4, 3])).unwrap_err();
    assert!(error.to_string().contains("[2, 5, m]"));
}
