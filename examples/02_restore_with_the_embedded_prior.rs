//! The library in twenty lines: a scene, its x4 measurement, and its restoration by DMAP with the prior and the conditional
//! score estimator that ship with the crate.
//!
//! Run with `cargo run --release --example 02_restore_with_the_embedded_prior`.

use posteriori::io::image::Image;
use posteriori::metrics::psnr::psnr;
use posteriori::pipeline::embedded;
use posteriori::{Cx, Device, Method, Pipeline, Restore, Task, scenes};

fn main() -> posteriori::Result<()> {
    let task = Task::parse(embedded::CSE_TASK)?;
    let truth = scenes::render(3, 0, embedded::SIZE)?;

    // What a camera would do.
    let cx = Cx::native();
    let [h, w] = embedded::SIZE;
    let operator = task.build(&cx, [h, w])?;
    let x = cx.upload(&truth.pixels, [1, h, w, 3])?;
    let [mh, mw, _] = operator.measurement_shape();
    let y = Image::new(mw, mh, operator.measure(&cx, &x)?.to_vec()?)?;

    let pipeline =
        Pipeline::open(embedded::folder()?, Device::auto()?)?.with_controlnet(embedded::cse()?)?;
    let job = Restore::new(task, Method::dmap().steps(25)).seed(7);
    let restored = pipeline.restore(&job, &y, |step| {
        eprint!("\r{}/{}", step.index, step.of);
    })?;
    println!("\nPSNR {:.2} dB", psnr(&restored.image, &truth)?);
    restored.image.save("target/restored.png")
}
