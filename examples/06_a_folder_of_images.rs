//! A folder of images: `Pipeline::restore_all` takes requests as they come and yields results as they are done, in batches of
//! one job and size, told by a `Watch` and ended by a `Cancel`.
//!
//! Run with `cargo run --release --example 06_a_folder_of_images`.

use std::sync::Arc;

use posteriori::io::image::{self, Image};
use posteriori::operators::Measurement;
use posteriori::pipeline::cancel::Cancel;
use posteriori::pipeline::plan::Plan;
use posteriori::pipeline::queue::{BatchSize, Request, Watch};
use posteriori::pipeline::{Progress, embedded};
use posteriori::{Device, Error, Method, Pipeline, Restore, Result, Task, rng, scenes};

/// Prints a line for each batch, and a dot for each step.
struct Lines;

impl Watch<String> for Lines {
    fn begins(&self, requests: &[Request<String>], first: Option<&Plan>) {
        let names: Vec<&str> = requests.iter().map(|r| r.tag.as_str()).collect();
        let slab = first.map(|plan| format!(", {:.0} MB", plan.slab as f64 / 1e6));
        eprint!("{}{} ", names.join(" "), slab.unwrap_or_default());
    }

    fn stepped(&self, _: &[Request<String>], progress: Progress) {
        let end = if progress.index == progress.of {
            "\n"
        } else {
            ""
        };
        eprint!(".{end}");
    }
}

fn main() -> Result<()> {
    let task = Task::parse(embedded::CSE_TASK)?;
    let folder = std::env::temp_dir().join(format!("posteriori-example-{}", std::process::id()));
    let cancel = Cancel::new();
    let pipeline = Pipeline::open(embedded::folder()?, Device::auto()?)?
        .with_controlnet(embedded::cse()?)?
        .stopped_by(cancel.clone());
    let job = Restore::new(task.clone(), Method::dmap().steps(10)).seed(7);
    measurements(&folder, &task)?;

    // Lazy: a file is read when its batch has room for it. What cannot be read is told and left out.
    let request = |name: std::path::PathBuf| {
        let y = image::read_values(folder.join(&name)).map_err(|e| eprintln!("{e}"));
        let name = name.display().to_string();
        Some(Request {
            job: job.clone(),
            y: Arc::new(y.ok()?),
            key: rng::image_key(&name),
            sample: 0,
            tag: name,
        })
    };
    let requests = image::list(&folder, false)?.into_iter().filter_map(request);
    let mut done = 0;
    for finished in pipeline.restore_all(requests, BatchSize::Of(2), Lines) {
        let name = &finished.request.tag;
        match finished.restored {
            Ok(restored) => {
                restored
                    .image
                    .save(folder.join(format!("restored-{name}")))?;
                println!(
                    "{name}: residual {:.2}, {:.2} s",
                    restored.residual, finished.seconds
                );
                done += 1;
            }
            Err(e) if matches!(*e, Error::Cancelled) => println!("{name}: not done"),
            Err(e) => println!("{name}: {e}"),
        }
        // Any thread may ask for the end; a batch stops after its step.
        if done == 3 {
            cancel.cancel();
        }
    }
    println!("{done} done");
    std::fs::remove_dir_all(&folder).map_err(|e| Error::file(&folder, e.to_string()))
}

/// Five scenes, measured; and a file that is no image.
fn measurements(folder: &std::path::Path, task: &Task) -> Result<()> {
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(|e| Error::file(&path, e.to_string()))
    };
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e.to_string()))?;
    let measurement = Measurement::new(task.clone(), 0.0, 0, embedded::SIZE)?;
    for i in 0..5 {
        let y: Image = measurement.measure(&scenes::render(3, i, embedded::SIZE)?, i)?;
        y.save(folder.join(format!("{i}.png")))?;
    }
    write("broken.png", b"no image")
}
