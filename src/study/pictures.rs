//! Contact sheets: the first images of a study, for each task a sheet of truth, measurement and every row.

use std::path::{Path, PathBuf};

use super::{Sample, Study};
use crate::error::{Error, Result};
use crate::io::image::{Format, Image, read, save};
use crate::operators::{Measurement, Task};
use crate::pipeline::job::Restore;
use crate::sheet::Sheet;

/// Pictures of a sheet are enlarged to sides of at least so many pixels.
const SHORTEST: usize = 128;
/// What is shown of an image that failed, in [-1, 1].
const GREY: f32 = 0.0;

/// One of the first images, on one task.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The name of the image.
    pub name: String,
    /// The true image.
    pub truth: Image,
    /// Its measurement, as [`Measurement::shown`] shows it.
    pub measured: Image,
    /// What each row made of it, in the order of the study; none where it failed.
    pub made: Vec<Option<Image>>,
}

impl Study {
    /// Keeps what cell `c` made of image `i`, if it is one of those shown.
    pub(super) fn keep(&self, folder: &Path, c: usize, i: usize, image: &Image) -> Result<()> {
        if i >= self.shown {
            return Ok(());
        }
        let path = path(folder, c, i);
        let folder = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(folder)
            .map_err(|e| Error::file(folder, format!("the folder cannot be made: {e}")))?;
        save(&path, image, Format::Png, &[])
    }

    /// Whether what cell `c` made of image `i` is to be shown and is not there.
    pub(super) fn lacks(&self, folder: &Path, c: usize, i: usize) -> bool {
        i < self.shown && !path(folder, c, i).exists()
    }

    /// What is shown of a task, by the name that it prints, after a run that kept its pictures in `folder`: the first images but
    /// those that cannot be measured.
    ///
    /// # Errors
    /// [`Error::File`] when a picture that is there cannot be read.
    pub fn pictures(&self, folder: &Path, task: &str) -> Result<Vec<Shown>> {
        let cells = self.cells.iter().enumerate();
        let cells: Vec<_> = cells
            .filter(|(_, cell)| cell.job.task.to_string() == task)
            .collect();
        let Some((_, first)) = cells.first() else {
            return Ok(Vec::new());
        };
        let mut all = Vec::new();
        for i in 0..self.shown.min(self.images.count()) {
            let Ok(Sample { truth, y }) = self.sample(first, i) else {
                continue;
            };
            let made = cells.iter().map(|(c, _)| {
                let path = path(folder, *c, i);
                path.exists().then(|| read(path)).transpose()
            });
            let (Restore { task, seed, .. }, size) = (&first.job, [truth.height, truth.width]);
            let measurement = Measurement::new(task.clone(), self.noise, *seed, size)?;
            all.push(Shown {
                name: self.images.name(i)?,
                measured: measurement.shown(&y)?,
                truth,
                made: made.collect::<Result<_>>()?,
            });
        }
        Ok(all)
    }

    /// Draws `sheet-TASK.png`. Images of another size than the first, and those without a measurement, are left out.
    pub(super) fn draw(&self, folder: &Path, task: &Task) -> Result<()> {
        let cells = self.cells.iter().filter(|cell| cell.job.task == *task);
        let names = cells.map(|cell| cell.row.to_uppercase());
        let headings: Vec<String> = ["TRUTH".into(), "MEASURED".into()]
            .into_iter()
            .chain(names)
            .collect();
        let mut sheet: Option<([usize; 2], Sheet)> = None;
        for one in self.pictures(folder, &task.to_string())? {
            let size @ [h, w] = [one.truth.height, one.truth.width];
            let (shown, sheet) = sheet.get_or_insert_with(|| {
                let factor = SHORTEST.div_ceil(h.min(w));
                (size, Sheet::new([h * factor, w * factor], headings.clone()))
            });
            if *shown != size {
                continue;
            }
            let mut pictures = vec![one.truth, one.measured];
            for made in one.made {
                let grey = || Image::new(w, h, vec![GREY; h * w * 3]);
                pictures.push(made.map_or_else(grey, Ok)?);
            }
            sheet.row(pictures)?;
        }
        let Some((_, sheet)) = sheet else {
            return Ok(());
        };
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        };
        let name: String = task.to_string().chars().map(plain).collect();
        save(
            folder.join(format!("sheet-{name}.png")),
            &sheet.draw()?,
            Format::Png,
            &[],
        )
    }
}

fn path(folder: &Path, c: usize, i: usize) -> PathBuf {
    folder.join(format!("pictures/cell-{}-image-{}.png", c + 1, i + 1))
}
