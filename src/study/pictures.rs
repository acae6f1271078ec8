//! Contact sheets: the first images of a study, for each task a sheet of truth, measurement and every row.

use std::path::{Path, PathBuf};

use super::{Sample, Study};
use crate::error::{Error, Result};
use crate::io::image::{Format, Image, read, save};
use crate::operators::Task;
use crate::sheet::Sheet;

/// Pictures of a sheet are enlarged to sides of at least so many pixels.
const SHORTEST: usize = 128;
/// What is shown of an image that failed, in [-1, 1].
const GREY: f32 = 0.0;

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

    /// Draws `sheet-TASK.png`. Images of another size than the first, and those without a measurement, are left out.
    pub(super) fn draw(&self, folder: &Path, task: &Task) -> Result<()> {
        let cells: Vec<_> = self.cells.iter().enumerate().collect();
        let cells: Vec<_> = cells
            .iter()
            .filter(|(_, cell)| cell.job.task == *task)
            .collect();
        let Some((_, first)) = cells.first() else {
            return Ok(());
        };
        let names = cells.iter().map(|(_, cell)| cell.row.to_uppercase());
        let headings: Vec<String> = ["TRUTH".into(), "MEASURED".into()]
            .into_iter()
            .chain(names)
            .collect();
        let mut sheet: Option<([usize; 2], Sheet)> = None;
        for i in 0..self.shown.min(self.images.count()) {
            let Ok(Sample { truth, y, .. }) = self.sample(first, i) else {
                continue;
            };
            let size @ [h, w] = [truth.height, truth.width];
            let (shown, sheet) = sheet.get_or_insert_with(|| {
                let factor = SHORTEST.div_ceil(h.min(w));
                (size, Sheet::new([h * factor, w * factor], headings.clone()))
            });
            if *shown != size {
                continue;
            }
            let mut pictures = vec![truth, y];
            for (c, _) in &cells {
                let path = path(folder, *c, i);
                pictures.push(match path.exists() {
                    true => read(path)?,
                    false => Image::new(w, h, vec![GREY; h * w * 3])?,
                });
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
