//! An operator of one's own: a double exposure, the two halves of a picture printed over each other.
//!
//! `Operator` is all that it takes: `measure`, the cotangent `vjp`, and the shapes. What is made of the crate's ops runs on
//! every device. Run with `cargo run --release --example 03_own_operator`.

use posteriori::io::image::Image;
use posteriori::operators::Operator;
use posteriori::ops::banded::{self, Matrix};
use posteriori::ops::combine;
use posteriori::pipeline::{Item, Own, embedded};
use posteriori::{Cx, Device, Method, Pipeline, Restore, Result, Task, Tensor, scenes};

/// `y[h, j] = (x[h, j] + x[h, j + w / 2]) / 2`: a matrix across the image, and its transpose for the way back.
struct DoubleExposure {
    size: [usize; 2],
    matrix: Matrix,
    transpose: Matrix,
}

impl DoubleExposure {
    fn new(cx: &Cx, [h, w]: [usize; 2]) -> Result<Self> {
        let half = w / 2;
        let rows: Vec<usize> = (0..=half).map(|j| 2 * j).collect();
        let columns: Vec<u32> = (0..half as u32)
            .flat_map(|j| [j, j + half as u32])
            .collect();
        let of_transpose: Vec<usize> = (0..=w).collect();
        let rows_of: Vec<u32> = (0..w as u32).map(|i| i % half as u32).collect();
        Ok(DoubleExposure {
            size: [h, w],
            matrix: Matrix::new(cx, w, &rows, &columns, &vec![0.5; w])?,
            transpose: Matrix::new(cx, half, &of_transpose, &rows_of, &vec![0.5; w])?,
        })
    }
}

impl Operator for DoubleExposure {
    fn measurement_shape(&self) -> [usize; 3] {
        [self.size[0], self.size[1] / 2, 3]
    }

    fn measure(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        banded::forward(cx, &self.matrix, x, 2)
    }

    fn vjp(&self, cx: &Cx, _: &Tensor, dy: &Tensor) -> Result<Tensor> {
        banded::forward(cx, &self.transpose, dy, 2)
    }

    /// A A^T = 1/2, so the inverse is 2 A^T: both halves are what was seen.
    fn pinv(&self, cx: &Cx, y: &Tensor) -> Result<Option<Tensor>> {
        let x = self.adjoint(cx, y)?;
        combine::forward(cx, &[(2.0, &x)]).map(Some)
    }

    fn condition(&self, cx: &Cx, y: &Tensor) -> Result<Tensor> {
        let x = self.adjoint(cx, y)?;
        combine::forward(cx, &[(2.0, &x)])
    }
}

fn main() -> Result<()> {
    let pipeline = Pipeline::open(embedded::folder()?, Device::auto()?)?;
    let size @ [h, w] = embedded::SIZE;
    let cx = &pipeline.cx()?;
    let operator = DoubleExposure::new(cx, size)?;

    // Whatever else it does, an operator's `vjp` is the transpose of its derivative: <A x, y> = <x, A^T y>.
    let truth = scenes::render(3, 0, size)?;
    let x = cx.upload(&truth.pixels, [1, h, w, 3])?;
    let y = operator.measure(cx, &x)?;
    let dot = |a: &Tensor, b: &Tensor| -> Result<f64> {
        Ok(a.to_f64()?
            .iter()
            .zip(b.to_f64()?)
            .map(|(a, b)| a * b)
            .sum())
    };
    let (left, right) = (dot(&y, &y)?, dot(&x, &operator.adjoint(cx, &y)?)?);
    assert!((left - right).abs() < 1e-4 * left, "{left} {right}");

    let [mh, mw, _] = operator.measurement_shape();
    let y = Image::new(mw, mh, y.to_vec()?)?;
    // Of the job's task only the usual zeta is taken.
    let job = Restore::new(Task::parse("denoise")?, Method::dmap().steps(25)).seed(1);
    let own = Own {
        operator: Some((&operator, size)),
        ..Own::default()
    };
    let item = Item {
        y: &y,
        key: 0,
        sample: 0,
    };
    for restored in pipeline.restore_with(&job, own, &[item], |_| {})? {
        let restored = restored?;
        let norm = y
            .pixels
            .iter()
            .map(|v| f64::from(v * v))
            .sum::<f64>()
            .sqrt();
        println!(
            "||f(x) - y|| = {:.3}, of a measurement of norm {norm:.3}",
            restored.residual
        );
        restored.image.save("target/two_halves.png")?;
    }
    Ok(())
}
