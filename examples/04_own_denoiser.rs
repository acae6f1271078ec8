//! A denoiser and a codec of one's own: a Gaussian prior in closed form, over every other column of a picture.
//!
//! `Denoiser` is what samplers see of a model, `Codec` the map from its states to images. As everything is Gaussian, what samples of
//! the prior must look like is known. Run with `cargo run --release --example 04_own_denoiser`.

use posteriori::diffusion::prior::{Codec, Denoiser, Pullback};
use posteriori::diffusion::schedule::{Coordinates, Schedule, Solver, Spacing, Step};
use posteriori::operators::Task;
use posteriori::ops::banded::{self, Matrix};
use posteriori::ops::{combine, noise};
use posteriori::rng::{INITIAL, Stream};
use posteriori::samplers::ancestral::Ancestral;
use posteriori::samplers::dps::Dps;
use posteriori::samplers::{self, Draw, Follow, Measurement, Problem, Sampler, Watch};
use posteriori::{Cx, Error, Result, Tensor};

/// Values that are independent and normal with variance `v`: E[eps | x] = x sqrt(1 - a) / (a v + 1 - a).
struct GaussianPrior {
    v: f64,
    alpha_bar: Vec<f64>,
}

impl GaussianPrior {
    fn slope(&self, t: &Tensor) -> Result<f64> {
        let a = self.alpha_bar[t.to_f64()?[0].round() as usize];
        Ok((1.0 - a).sqrt() / (a * self.v + 1.0 - a))
    }
}

impl Denoiser for GaussianPrior {
    fn predict(&self, cx: &Cx, x: &Tensor, t: &Tensor) -> Result<Tensor> {
        combine::forward(cx, &[(self.slope(t)?, x)])
    }

    fn predict_vjp<'a>(
        &'a self,
        cx: &'a Cx,
        x: &Tensor,
        t: &Tensor,
    ) -> Result<(Tensor, Pullback<'a>)> {
        let slope = self.slope(t)?;
        let y = self.predict(cx, x, t)?;
        Ok((y, Box::new(move |dy| combine::forward(cx, &[(slope, dy)]))))
    }
}

/// States have half of the columns; the others are the mean of their neighbours, the last a copy.
struct EveryOther {
    decode: Matrix,
    decode_transposed: Matrix,
    encode: Matrix,
    encode_transposed: Matrix,
}

impl EveryOther {
    fn new(cx: &Cx, w: usize) -> Result<Self> {
        let half = w / 2;
        let of_column = |i: usize| match (i / 2, i % 2) {
            (j, 1) if j + 1 < half => vec![(j, 0.5), (j + 1, 0.5)],
            (j, _) => vec![(j, 1.0)],
        };
        let decode: Vec<Row> = (0..w).map(of_column).collect();
        let encode: Vec<Row> = (0..half).map(|j| vec![(2 * j, 1.0)]).collect();
        Ok(EveryOther {
            decode_transposed: matrix(cx, w, &transposed(&decode, half))?,
            decode: matrix(cx, half, &decode)?,
            encode_transposed: matrix(cx, half, &transposed(&encode, w))?,
            encode: matrix(cx, w, &encode)?,
        })
    }
}

/// The elements of a row of a matrix: column and value.
type Row = Vec<(usize, f64)>;

fn matrix(cx: &Cx, columns: usize, rows: &[Row]) -> Result<Matrix> {
    let elements = rows.iter().flatten();
    let (indices, values): (Vec<u32>, Vec<f64>) = elements
        .map(|(column, value)| (*column as u32, *value))
        .unzip();
    let mut starts = vec![0];
    starts.extend(rows.iter().scan(0, |at, row| {
        *at += row.len();
        Some(*at)
    }));
    Matrix::new(cx, columns, &starts, &indices, &values)
}

fn transposed(rows: &[Row], columns: usize) -> Vec<Row> {
    let mut all = vec![Row::new(); columns];
    for (r, row) in rows.iter().enumerate() {
        for (column, value) in row {
            all[*column].push((r, *value));
        }
    }
    all
}

impl Codec for EveryOther {
    fn state_shape(&self, [n, h, w, c]: [usize; 4]) -> Result<[usize; 4]> {
        match w == self.decode.rows() {
            true => Ok([n, h, w / 2, c]),
            false => {
                let want = format!("{} columns", self.decode.rows());
                Err(Error::shape("image", want, format!("{w}")))
            }
        }
    }

    fn decode(&self, cx: &Cx, x0: &Tensor) -> Result<Tensor> {
        banded::forward(cx, &self.decode, x0, 2)
    }

    fn decode_vjp<'a>(&'a self, cx: &'a Cx, x0: &Tensor) -> Result<(Tensor, Pullback<'a>)> {
        let pull = |dy: &Tensor| banded::forward(cx, &self.decode_transposed, dy, 2);
        Ok((self.decode(cx, x0)?, Box::new(pull)))
    }

    fn encode_vjp<'a>(&'a self, cx: &'a Cx, image: &Tensor) -> Result<(Tensor, Pullback<'a>)> {
        let pull = |dy: &Tensor| banded::forward(cx, &self.encode_transposed, dy, 2);
        let x0 = banded::forward(cx, &self.encode, image, 2)?;
        Ok((x0, Box::new(pull)))
    }
}

fn main() -> Result<()> {
    const SIZE: [usize; 2] = [16, 16];
    const IMAGES: usize = 256;
    let cx = Cx::native();
    let schedule = Schedule::from_json(
        "schedule",
        r#"{"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "num_train_timesteps": 1000}"#,
    )?;
    let prior = GaussianPrior {
        v: 0.25,
        alpha_bar: schedule.alphas_cumprod().to_vec(),
    };
    let codec = EveryOther::new(&cx, SIZE[1])?;
    let steps = schedule.steps(1000, Spacing::Leading, Coordinates::Vp, Solver::default())?;
    let problem = |measurement| Problem {
        denoiser: &prior,
        guide: &prior,
        codec: &codec,
        measurement,
        follow: Follow::Plain,
    };
    let sample = |sampler: &dyn Sampler, problem: &Problem<'_>, n: usize| {
        let streams: Vec<Stream> = (0..n as u64).map(|key| Stream::new(1, key, 0)).collect();
        run(&cx, sampler, problem, &steps, SIZE, &streams)
    };

    // The prior: even columns have variance v, odd ones but the last half of that.
    let images = sample(&Ancestral, &problem(None), IMAGES)?.to_f64()?;
    for (column, exact) in [(2, prior.v), (3, prior.v / 2.0)] {
        let values = images
            .chunks(3 * SIZE[1])
            .flat_map(|row| &row[3 * column..][..3]);
        let count = values.clone().count() as f64;
        let variance = values.map(|v| v * v).sum::<f64>() / count;
        println!("column {column}: variance {variance:.4}, exactly {exact:.4}");
        // Five standard errors.
        assert!((variance / exact - 1.0).abs() < 5.0 * (2.0 / count).sqrt());
    }

    // The posterior of one of those, half of whose pixels were measured.
    let truth = sample(&Ancestral, &problem(None), 1)?;
    let operator = Task::parse("random:0.5")?.build(&cx, SIZE)?;
    let y = operator.measure(&cx, &truth)?;
    let measurement = Measurement {
        operator: &*operator,
        y: &y,
    };
    let x = sample(&Dps { zeta: 1.0 }, &problem(Some(measurement)), 1)?;
    let error = combine::forward(&cx, &[(1.0, &operator.measure(&cx, &x)?), (-1.0, &y)])?;
    let norm = |t: &Tensor| Ok(t.to_f64()?.iter().map(|v| v * v).sum::<f64>().sqrt());
    let (residual, whole): (Result<f64>, Result<f64>) = (norm(&error), norm(&y));
    println!(
        "residual {:.3}, of a measurement of norm {:.3}",
        residual?, whole?
    );
    Ok(())
}

/// The loop from noise to images.
fn run(
    cx: &Cx,
    sampler: &dyn Sampler,
    problem: &Problem<'_>,
    steps: &[Step],
    [h, w]: [usize; 2],
    streams: &[Stream],
) -> Result<Tensor> {
    let shape = problem.codec.state_shape([streams.len(), h, w, 3])?;
    let x = noise::normals(cx, shape, streams, INITIAL, 0)?;
    let draw = |step: usize, draw: u32| Draw::of(cx, streams, step as u32, draw);
    let x0 = samplers::run(cx, sampler, problem, steps, x, &draw, Watch::NONE)?.x;
    problem.codec.decode(cx, &x0)
}
