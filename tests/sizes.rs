//! Images of other sizes than the model makes: canvases, which are exact, and tiles, which are an approximation.

use posteriori::diffusion::prior::{Codec, Denoiser, Pullback};
use posteriori::diffusion::tiled::{TiledCodec, TiledDenoiser, Tiling};
use posteriori::io::image::Image;
use posteriori::operators::cropped::Cropped;
use posteriori::operators::{Operator, Task};
use posteriori::ops::combine;
use posteriori::pipeline::device::Device;
use posteriori::pipeline::job::{Method, Restore, Tiles};
use posteriori::pipeline::{Item, Pipeline};
use posteriori::{Cx, Error, Result, Tensor};

use crate::operators::{CASES, batch, dot, double, normal};
use crate::oracle::{self, assert_close};

/// The upper left `[h, w]` of images.
fn corner(x: &Tensor, [h, w]: [usize; 2]) -> Vec<f64> {
    let &[n, height, width, c] = x.dims() else {
        panic!("{:?} is no image", x.dims());
    };
    let values = x.to_f64().unwrap();
    let row = |image: usize, y: usize| {
        let start = (image * height + y) * width * c;
        values[start..start + w * c].to_vec()
    };
    (0..n)
        .flat_map(|image| (0..h).flat_map(move |y| row(image, y)).collect::<Vec<_>>())
        .collect()
}

#[test]
fn an_operator_sees_the_corner_of_a_canvas_and_nothing_else() {
    let cx = double();
    for &(task, size @ [h, w]) in CASES {
        let f = Task::parse(task).unwrap().build(&cx, size).unwrap();
        let canvas = [h + 5, w.next_multiple_of(8)];
        let on_canvas = Cropped::new(&cx, &*f, size, canvas).unwrap();
        let x = normal(&cx, "x", batch(2, [canvas[0], canvas[1], 3]));
        let image = cx.upload(&corner(&x, size), [2, h, w, 3]).unwrap();
        let y = on_canvas.measure(&cx, &x).unwrap();
        let (got, want) = (y.to_f64().unwrap(), f.measure(&cx, &image).unwrap());
        assert_eq!(got, want.to_f64().unwrap(), "{task}");

        let v = normal(&cx, "v", batch(2, f.measurement_shape()));
        let back = on_canvas.vjp(&cx, &x, &v).unwrap();
        let ((left, scale), (right, _)) = (dot(&y, &v), dot(&x, &back));
        assert!((left - right).abs() <= 1e-12 * scale, "{task}");
        if let Some(x) = on_canvas.pinv(&cx, &y).unwrap() {
            let again = on_canvas.measure(&cx, &x).unwrap().to_f64().unwrap();
            assert_close(task, &again, &y.to_f64().unwrap(), 0.0, 1e-10);
            // A+ A is an orthogonal projection: a pseudo-inverse of the canvas, not of the image alone.
            let projected = on_canvas.pinv(&cx, &on_canvas.measure(&cx, &x).unwrap());
            let projected = projected.unwrap().unwrap();
            assert_close(
                task,
                &[dot(&x, &projected).0],
                &[dot(&projected, &projected).0],
                1e-9,
                1e-9,
            );
        }
        let condition = on_canvas.condition(&cx, &y).unwrap();
        assert_eq!(condition.dims(), &[2, canvas[0], canvas[1], 3]);
        let want = f.condition(&cx, &y).unwrap().to_f64().unwrap();
        assert_eq!(corner(&condition, size), want, "{task}");
    }
}

/// `sin(x)` at every pixel, and with `wide` the mean of each image on top: a map that is not local.
struct Sines {
    wide: bool,
}

impl Sines {
    fn of(
        &self,
        cx: &Cx,
        x: &Tensor,
        each: impl Fn(usize, f64) -> f64,
        mean: &[f64],
    ) -> Result<Tensor> {
        let per_sample = x.shape().per_sample();
        let mean = |i: usize| if self.wide { mean[i / per_sample] } else { 0.0 };
        let values = x.to_f64()?;
        let y: Vec<f64> = values
            .iter()
            .enumerate()
            .map(|(i, x)| each(i, *x) + mean(i))
            .collect();
        cx.upload(&y, x.shape())
    }
}

fn means(x: &Tensor) -> Vec<f64> {
    let per_sample = x.shape().per_sample();
    let values = x.to_f64().unwrap();
    values
        .chunks(per_sample)
        .map(|x| x.iter().sum::<f64>() / per_sample as f64)
        .collect()
}

impl Denoiser for Sines {
    fn predict(&self, cx: &Cx, x: &Tensor, _: &Tensor) -> Result<Tensor> {
        self.of(cx, x, |_, x| x.sin(), &means(x))
    }

    fn predict_vjp<'a>(
        &'a self,
        cx: &'a Cx,
        x: &Tensor,
        t: &Tensor,
    ) -> Result<(Tensor, Pullback<'a>)> {
        let slopes: Vec<f64> = x.to_f64()?.iter().map(|x| x.cos()).collect();
        let pull = move |dy: &Tensor| self.of(cx, dy, |i, dy| slopes[i] * dy, &means(dy));
        Ok((self.predict(cx, x, t)?, Box::new(pull)))
    }
}

/// Every pixel is four of the image, a half as bright; an image's pixel is the mean of its four.
struct Fourfold;

impl Codec for Fourfold {
    fn state_shape(&self, [n, h, w, c]: [usize; 4]) -> Result<[usize; 4]> {
        Ok([n, h / 2, w / 2, c])
    }

    fn decode(&self, cx: &Cx, x0: &Tensor) -> Result<Tensor> {
        let &[n, h, w, c] = x0.dims() else { panic!() };
        let x = x0.to_f64()?;
        let (row, image) = (2 * w * c, 4 * h * w * c);
        let value = |i: usize| {
            let (k, y, rest) = (i / image, i % image / row / 2, i % row);
            0.5 * x[((k * h + y) * w + rest / c / 2) * c + rest % c]
        };
        cx.upload(
            &Vec::from_iter((0..n * image).map(value)),
            [n, 2 * h, 2 * w, c],
        )
    }

    fn decode_vjp<'a>(&'a self, cx: &'a Cx, x0: &Tensor) -> Result<(Tensor, Pullback<'a>)> {
        Ok((
            self.decode(cx, x0)?,
            Box::new(|dy| self.halved(cx, dy, 0.5)),
        ))
    }

    fn encode_vjp<'a>(&'a self, cx: &'a Cx, image: &Tensor) -> Result<(Tensor, Pullback<'a>)> {
        let pull = |dz: &Tensor| combine::forward(cx, &[(0.5, &self.decode(cx, dz)?)]);
        Ok((self.halved(cx, image, 0.25)?, Box::new(pull)))
    }
}

impl Fourfold {
    /// The sums of four pixels times `scale`.
    fn halved(&self, cx: &Cx, image: &Tensor, scale: f64) -> Result<Tensor> {
        let &[n, h, w, c] = image.dims() else {
            panic!()
        };
        let x = image.to_f64()?;
        let at =
            |k: usize, y: usize, i: usize, channel: usize| x[((k * h + y) * w + i) * c + channel];
        let mut z = Vec::new();
        for k in 0..n {
            for (y, i) in (0..h / 2).flat_map(|y| (0..w / 2).map(move |i| (2 * y, 2 * i))) {
                z.extend((0..c).map(|channel| {
                    let four = [(0, 0), (0, 1), (1, 0), (1, 1)];
                    scale
                        * four
                            .iter()
                            .map(|(a, b)| at(k, y + a, i + b, channel))
                            .sum::<f64>()
                }));
            }
        }
        cx.upload(&z, [n, h / 2, w / 2, c])
    }
}

#[test]
fn what_is_local_is_the_same_in_tiles() {
    let cx = double();
    let size @ [h, w] = [13, 24];
    let tiling = Tiling::new(size, 6).unwrap();
    let (states, images) = (tiling.tiles(&cx, 1).unwrap(), tiling.tiles(&cx, 2).unwrap());
    let near = |what: &str, a: &Tensor, b: &Tensor| {
        assert_close(
            what,
            &a.to_f64().unwrap(),
            &b.to_f64().unwrap(),
            1e-12,
            1e-12,
        );
    };
    let (x, dy) = (
        normal(&cx, "x", [2, h, w, 3]),
        normal(&cx, "dy", [2, h, w, 3]),
    );
    let t = cx.upload(&[3.0, 3.0], [2]).unwrap();
    let part = || Box::new(Sines { wide: false }) as Box<dyn Denoiser>;
    let parts = Vec::from_iter(states.iter().map(|_| part()));
    let tiled = TiledDenoiser {
        tiles: &states,
        parts,
    };
    let (got, pull) = tiled.predict_vjp(&cx, &x, &t).unwrap();
    let whole = part();
    let (want, pull_whole) = whole.predict_vjp(&cx, &x, &t).unwrap();
    near("prediction", &got, &want);
    near(
        "its cotangent",
        &pull(&dy).unwrap(),
        &pull_whole(&dy).unwrap(),
    );

    let tiled = TiledCodec {
        codec: Box::new(Fourfold),
        states: &states,
        images: &images,
    };
    let image = normal(&cx, "image", [2, 2 * h, 2 * w, 3]);
    for (what, of_tiles, of_whole, dy) in [
        (
            "decode",
            tiled.decode_vjp(&cx, &x),
            Fourfold.decode_vjp(&cx, &x),
            &image,
        ),
        (
            "encode",
            tiled.encode_vjp(&cx, &image),
            Fourfold.encode_vjp(&cx, &image),
            &dy,
        ),
    ] {
        let ((got, pull), (want, pull_whole)) = (of_tiles.unwrap(), of_whole.unwrap());
        near(what, &got, &want);
        near(what, &pull(dy).unwrap(), &pull_whole(dy).unwrap());
    }
    near(
        "decoded",
        &tiled.decode(&cx, &x).unwrap(),
        &Fourfold.decode(&cx, &x).unwrap(),
    );
}

#[test]
fn the_cotangent_of_what_is_not_local_is_that_of_the_tiled_map() {
    let cx = double();
    let size @ [h, w] = [9, 14];
    let tiles = Tiling::new(size, 8).unwrap().tiles(&cx, 1).unwrap();
    let part = || Box::new(Sines { wide: true }) as Box<dyn Denoiser>;
    let parts = Vec::from_iter(tiles.iter().map(|_| part()));
    let tiled = TiledDenoiser {
        tiles: &tiles,
        parts,
    };
    let shape = [2, h, w, 3];
    let [x, v, dy] = ["x", "v", "dy"].map(|name| normal(&cx, name, shape));
    let t = cx.upload(&[3.0, 3.0], [2]).unwrap();
    let (_, pull) = tiled.predict_vjp(&cx, &x, &t).unwrap();
    let (got, scale) = dot(&v, &pull(&dy).unwrap());
    let step = 1e-5;
    let at = |s: f64| {
        let x = combine::forward(&cx, &[(1.0, &x), (s, &v)]).unwrap();
        dot(&tiled.predict(&cx, &x, &t).unwrap(), &dy).0
    };
    let want = (at(step) - at(-step)) / (2.0 * step);
    assert!((got - want).abs() < 1e-8 * scale, "{got} {want}");
    // It is not that of the whole map.
    let whole = part();
    let (_, pull) = whole.predict_vjp(&cx, &x, &t).unwrap();
    assert!((dot(&v, &pull(&dy).unwrap()).0 - want).abs() > 1e-6 * scale);
}

/// A measurement of smooth colour.
fn waves([h, w]: [usize; 2]) -> Image {
    let value =
        |i: usize| ((i / 3 % w) as f32 * 0.3 + (i / 3 / w) as f32 * 0.2 + (i % 3) as f32).sin();
    Image::new(w, h, (0..h * w * 3).map(|i| 0.7 * value(i)).collect()).unwrap()
}

/// The residual of a result, by the operator of its own size.
fn residual(task: &Task, y: &Image, image: &Image) -> f64 {
    let cx = Cx::native();
    let x = cx
        .upload(&image.pixels, [1, image.height, image.width, 3])
        .unwrap();
    let operator = task.build(&cx, [image.height, image.width]).unwrap();
    let again = operator.measure(&cx, &x).unwrap().to_f64().unwrap();
    let squares = again
        .iter()
        .zip(&y.pixels)
        .map(|(a, y)| (a - f64::from(*y)).powi(2));
    squares.sum::<f64>().sqrt()
}

/// Latent and pixel models, with and without a condition, of a size that they do not make: whole and in tiles.
#[test]
fn images_of_any_size() {
    let sd1 = oracle::checkpoint("tiny-sd1");
    let open = |folder| Pipeline::open(folder, Device::cpu()).unwrap();
    let conditional = open(sd1.clone())
        .with_controlnet(sd1.join("controlnet"))
        .unwrap();
    let methods = [Method::dps(), Method::psld(), Method::dmap()];
    let pipelines = [
        open(oracle::checkpoint("tiny-pixel")),
        open(sd1),
        conditional,
    ];
    for (pipeline, method) in pipelines.iter().zip(methods) {
        let multiple = pipeline.prior().multiple();
        let method = match pipeline.prior().vae {
            Some(_) => method,
            None => Method::dps(),
        };
        let size @ [h, w] = [4 * multiple - 4, 2 * multiple + 8];
        let task = Task::super_resolution(4);
        let y = waves([h / 4, w / 4]);
        let job = Restore::new(task.clone(), method.steps(4).zeta(0.5)).seed(3);
        let whole = pipeline.restore(&job, &y, |_| ()).unwrap();
        assert_eq!([whole.image.height, whole.image.width], size);
        assert_eq!(whole.tile, None);
        let want = residual(&task, &y, &whole.image);
        assert!(
            (whole.residual - want).abs() < 1e-4 * want,
            "{} {want}",
            whole.residual
        );
        // One tile over all is no tile.
        let job_in = |side| job.clone().tiles(Tiles::Of(side));
        let one = pipeline.restore(&job_in(4 * multiple), &y, |_| ()).unwrap();
        assert!(one.tile.is_none() && one.image.pixels == whole.image.pixels);

        let job = job_in(2 * multiple);
        let item = |y| Item {
            y,
            key: 0,
            sample: 0,
        };
        let other = waves([h / 4, w / 4]).clone();
        let tiled = pipeline.restore(&job, &y, |_| ()).unwrap();
        assert_eq!(tiled.tile, Some(2 * multiple));
        assert_eq!([tiled.image.height, tiled.image.width], size);
        let want = residual(&task, &y, &tiled.image);
        assert!((tiled.residual - want).abs() < 1e-4 * want);
        assert!(tiled.image.pixels != whole.image.pixels);
        let two = pipeline
            .restore_batch(&job, &[item(&other), item(&y)], |_| ())
            .unwrap();
        let [_, last] = &two[..] else { panic!() };
        assert!(last.as_ref().unwrap().image.pixels == tiled.image.pixels);
        // Guidance goes through tiles: without it the measurement is met less well.
        let unguided = pipeline
            .restore(&job.clone().unguided(), &y, |_| ())
            .unwrap();
        assert!(tiled.residual < unguided.residual);

        let plan = |job: &Restore| pipeline.plan(job, [8 * multiple; 2], 1).unwrap();
        let (whole, tiled) = (plan(&job.clone().tiles(Tiles::Never)), plan(&job));
        assert_eq!((whole.tile, tiled.tile), (None, Some(2 * multiple)));
        assert!(3 * tiled.slab < whole.slab, "{} {}", tiled.slab, whole.slab);
    }
}

#[test]
fn a_tile_that_the_model_does_not_make_is_refused() {
    let pipeline = Pipeline::open(oracle::checkpoint("tiny-sd1"), Device::cpu()).unwrap();
    let multiple = pipeline.prior().multiple();
    for side in [0, 1, multiple, 2 * multiple + 1] {
        let job = Restore::new(Task::super_resolution(4), Method::dps()).tiles(Tiles::Of(side));
        let error = pipeline
            .restore(&job, &waves([16, 16]), |_| ())
            .unwrap_err();
        assert!(matches!(error, Error::Argument { .. }), "{side}: {error}");
        assert!(
            error
                .to_string()
                .contains(&format!("multiple of {multiple}")),
            "{error}"
        );
    }
}
