//! [`Sheet`]: pictures side by side, in columns with headings.

use crate::error::{Error, Result};
use crate::io::image::Image;
use crate::scenes::heading;

/// A grid of pictures of one size.
#[derive(Clone, Debug)]
pub struct Sheet {
    cell: [usize; 2],
    headings: Vec<String>,
    rows: Vec<Vec<Image>>,
}

/// Pixels between pictures.
const GAP: usize = 4;
/// Pixels of the headings' line.
const LINE: usize = 24;
/// The paper, in [-1, 1].
const PAPER: f32 = 1.0;

impl Sheet {
    /// An empty sheet for pictures of `cell = [h, w]` pixels, with these columns. Headings are in capitals, digits and
    /// `+ -`; other characters leave a gap.
    pub fn new(cell: [usize; 2], headings: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Sheet {
            cell,
            headings: headings.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, one picture a column; smaller ones are enlarged by a whole factor, pixel by pixel.
    ///
    /// # Errors
    /// [`Error::Shape`] when there is not one picture a column, or one whose size does not divide the cells'.
    pub fn row(&mut self, pictures: Vec<Image>) -> Result<()> {
        if pictures.len() != self.headings.len() {
            let want = format!("{} pictures", self.headings.len());
            return Err(Error::shape("row of a sheet", want, pictures.len()));
        }
        let fit = |picture: Image| self.fit(picture);
        let fitted = pictures.into_iter().map(fit).collect::<Result<_>>()?;
        self.rows.push(fitted);
        Ok(())
    }

    fn fit(&self, picture: Image) -> Result<Image> {
        let [h, w] = self.cell;
        picture.check("picture of a sheet")?;
        let factor = (h / picture.height).max(1);
        if [picture.height * factor, picture.width * factor] != [h, w] {
            let want = format!("{h} x {w} divided by a whole number");
            let got = format!("{} x {}", picture.height, picture.width);
            return Err(Error::shape("picture of a sheet", want, got));
        }
        let mut pixels = Vec::with_capacity(h * w * 3);
        for y in 0..h {
            let row = &picture.pixels[y / factor * picture.width * 3..][..picture.width * 3];
            for pixel in row.chunks_exact(3) {
                pixels.extend(pixel.iter().cycle().take(3 * factor));
            }
        }
        Image::new(w, h, pixels)
    }

    /// The sheet as one picture.
    ///
    /// # Errors
    /// [`Error::Shape`] when it has no column.
    pub fn draw(&self) -> Result<Image> {
        let ([h, w], columns) = (self.cell, self.headings.len());
        let width = columns * (w + GAP) + GAP;
        let height = LINE + self.rows.len() * (h + GAP) + GAP;
        let mut sheet = Image::new(width, height, vec![PAPER; width * height * 3])?;
        for (i, text) in self.headings.iter().enumerate() {
            paste(
                &mut sheet,
                &heading(text, [LINE, w])?,
                [0, GAP + i * (w + GAP)],
            );
        }
        for (j, row) in self.rows.iter().enumerate() {
            for (i, picture) in row.iter().enumerate() {
                let at = [LINE + j * (h + GAP), GAP + i * (w + GAP)];
                paste(&mut sheet, picture, at);
            }
        }
        Ok(sheet)
    }
}

/// Puts a picture onto a larger one, its corner at `[y, x]`.
fn paste(sheet: &mut Image, picture: &Image, [y, x]: [usize; 2]) {
    let row = picture.width * 3;
    for (i, pixels) in picture.pixels.chunks_exact(row).enumerate() {
        let start = ((y + i) * sheet.width + x) * 3;
        sheet.pixels[start..][..row].copy_from_slice(pixels);
    }
}

/// How far two pictures are apart at each pixel, four times enlarged: black where they agree.
///
/// # Errors
/// [`Error::Shape`] when their sizes differ.
pub fn difference(a: &Image, b: &Image) -> Result<Image> {
    if [a.height, a.width] != [b.height, b.width] {
        let size = |i: &Image| format!("{} x {}", i.height, i.width);
        return Err(Error::shape("difference of pictures", size(a), size(b)));
    }
    let apart = |(a, b): (&f32, &f32)| (4.0 * (a - b).abs()).min(2.0) - 1.0;
    let pixels = a.pixels.iter().zip(&b.pixels).map(apart).collect();
    Image::new(a.width, a.height, pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(size: usize, value: f32) -> Image {
        Image::new(size, size, vec![value; size * size * 3]).unwrap()
    }

    #[test]
    fn pictures_lie_where_they_belong() {
        let mut sheet = Sheet::new([32, 32], ["A", "B"]);
        sheet.row(vec![plain(32, -1.0), plain(8, 0.5)]).unwrap();
        let drawn = sheet.draw().unwrap();
        assert_eq!([drawn.height, drawn.width], [24 + 32 + 8, 2 * 36 + 4]);
        let at = |y: usize, x: usize| drawn.pixels[(y * drawn.width + x) * 3];
        assert_eq!([at(24, 4), at(55, 35)], [-1.0, -1.0]);
        assert_eq!([at(24, 40), at(55, 71)], [0.5, 0.5]);
        assert_eq!([at(24, 3), at(24, 36), at(56, 4)], [PAPER; 3]);
        // The headings are there, and differ.
        let heading = |x: usize| (0..24).map(|y| at(y, x + 16)).collect::<Vec<_>>();
        assert!(heading(4).iter().any(|v| *v < 0.0));
        assert!(heading(4) != heading(40));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut sheet = Sheet::new([32, 32], ["A"]);
        assert!(sheet.row(vec![]).is_err());
        assert!(sheet.row(vec![plain(20, 0.0)]).is_err());
        assert!(difference(&plain(8, 0.0), &plain(9, 0.0)).is_err());
    }

    #[test]
    fn a_difference_is_black_where_there_is_none() {
        let apart = difference(&plain(8, 0.25), &plain(8, 0.0)).unwrap();
        assert!(apart.pixels.iter().all(|v| *v == 0.0));
        let none = difference(&plain(8, 0.25), &plain(8, 0.25)).unwrap();
        assert!(none.pixels.iter().all(|v| *v == -1.0));
    }
}
