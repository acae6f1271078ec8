//! [`Page`]: a report as one HTML file that loads nothing: style, plots and pictures are inside it, and there is no script.
//!
//! Every text is escaped and every tag closed, so the page is well-formed XML after its first line. It is readable in light
//! and dark, and prints. What is added is appended: a table of 10,000 rows costs what its text costs.

mod rows;

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, Result};
use crate::io::atomic::{failed, write_atomic};
use crate::io::image::{Format, Image, encode};

pub use rows::Rows;

/// Pictures of sides up to this are shown larger than they are, pixel by pixel.
const CRISP: usize = 128;

/// A report in the making: its parts, in the order in which they were added.
#[derive(Debug)]
pub struct Page {
    title: String,
    body: String,
    /// Tables in files, and where in the body they stand.
    rows: Vec<(usize, Rows)>,
}

/// What a cell of a table holds. A column is aligned, with its heading, as its first row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Words, to the left.
    Text(String),
    /// A number, to the right.
    Number(String),
    /// A picture, as wide as all in tables.
    Picture(Picture),
}

/// A picture as a page holds it: PNG.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    png: Vec<u8>,
    /// `[h, w]`.
    size: [usize; 2],
}

impl Picture {
    /// An image, shrunk so that no side has more than `most` pixels: each is the mean of those that it stands for. A smaller
    /// image keeps its pixels.
    ///
    /// # Errors
    /// [`Error::Argument`] when `most` is 0 or a pixel is no finite number; [`Error::Shape`] when the image does not hold together.
    pub fn of(image: &Image, most: usize) -> Result<Self> {
        let image = shrunk(image, most)?;
        Ok(Picture {
            png: encode(&image, Format::Png, &[])?,
            size: [image.height, image.width],
        })
    }

    /// The bytes of a PNG file, as they are.
    ///
    /// # Errors
    /// [`Error::Argument`] when they do not begin as a PNG file does.
    pub fn from_png(png: Vec<u8>) -> Result<Self> {
        // Signature; length and name of the first chunk; width; height.
        const BEGIN: &[u8; 16] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
        let sides = png
            .strip_prefix(BEGIN)
            .and_then(|rest| rest.first_chunk::<8>())
            .map(|sides| u64::from_be_bytes(*sides));
        let Some(sides) = sides else {
            let why = format!(
                "wanted the bytes of a PNG file, got {} others: encode the image first",
                png.len()
            );
            return Err(Error::argument("picture of a report", why));
        };
        let (width, height) = ((sides >> 32) as usize, (sides & 0xffff_ffff) as usize);
        Ok(Picture {
            png,
            size: [height, width],
        })
    }
}

/// The image with no side above `most` pixels.
fn shrunk(image: &Image, most: usize) -> Result<Image> {
    const WHAT: &str = "picture of a report";
    image.check(WHAT)?;
    if most == 0 {
        return Err(Error::argument(WHAT, "wanted sides of at least 1, got 0"));
    }
    let longest = image.width.max(image.height);
    if longest <= most {
        return Ok(image.clone());
    }
    let side = |n: usize| ((n as f64 / longest as f64 * most as f64).round() as usize).max(1);
    let (width, height) = (side(image.width), side(image.height));
    // The old pixels that lie in the new one `i` of `n`, wholly or in part.
    let part = |i: usize, n: usize, of: usize| i * of / n..((i + 1) * of).div_ceil(n);
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        let rows = part(y, height, image.height);
        for x in 0..width {
            let columns = part(x, width, image.width);
            let mut sum = [0.0_f64; 3];
            for row in rows.clone() {
                let start = (row * image.width + columns.start) * 3;
                let old = &image.pixels[start..][..columns.len() * 3];
                for (i, v) in old.iter().enumerate() {
                    sum[i % 3] += f64::from(*v);
                }
            }
            let count = (rows.len() * columns.len()) as f64;
            pixels.extend(sum.map(|sum| (sum / count) as f32));
        }
    }
    Image::new(width, height, pixels)
}

impl Cell {
    /// A number, as it prints.
    pub fn number(value: impl ToString) -> Self {
        Cell::Number(value.to_string())
    }

    fn class(&self) -> &'static str {
        match self {
            Cell::Number(_) => " class=\"number\"",
            Cell::Text(_) | Cell::Picture(_) => "",
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.into())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text)
    }
}

impl From<Picture> for Cell {
    fn from(picture: Picture) -> Self {
        Cell::Picture(picture)
    }
}

impl Page {
    /// An empty page with this title, which is its first heading too.
    pub fn new(title: &str) -> Self {
        Page {
            title: title.into(),
            body: String::new(),
            rows: Vec::new(),
        }
    }

    /// A heading.
    pub fn heading(&mut self, text: &str) -> &mut Self {
        self.element("h2", text)
    }

    /// A paragraph.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.element("p", text)
    }

    /// Text that is shown as it is, line by line.
    pub fn code(&mut self, text: &str) -> &mut Self {
        self.element("pre", text)
    }

    fn element(&mut self, tag: &str, text: &str) -> &mut Self {
        self.body += &format!("<{tag}>");
        escape(text, &mut self.body);
        self.body += &format!("</{tag}>\n");
        self
    }

    /// Names and what they stand for.
    pub fn facts<K: AsRef<str>, V: AsRef<str>>(
        &mut self,
        facts: impl IntoIterator<Item = (K, V)>,
    ) -> &mut Self {
        self.body += "<dl>\n";
        for (name, value) in facts {
            self.element("dt", name.as_ref());
            self.element("dd", value.as_ref());
        }
        self.body += "</dl>\n";
        self
    }

    /// A table under these headings, row by row; a row that is shorter than the head is filled up. Rows are taken one at a
    /// time and forgotten once they are appended.
    pub fn table(&mut self, head: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>) -> &mut Self {
        let mut rows = rows.into_iter().peekable();
        let first = rows.peek().map_or(&[][..], |row| &row[..]);
        push_head(head, first, &mut self.body);
        for row in rows {
            push_row(&row, head.len(), &mut self.body);
        }
        push_foot(&mut self.body);
        self
    }

    /// A table whose rows wait in a file, from where they are copied when the page is written; nothing when there are none.
    ///
    /// # Errors
    /// [`Error::File`] when that file cannot be written.
    pub fn rows(&mut self, mut rows: Rows) -> Result<&mut Self> {
        if !rows.is_empty() {
            rows.end()?;
            self.rows.push((self.body.len(), rows));
        }
        Ok(self)
    }

    /// A plot. `svg` is one `<svg>` element and stands in the page as it is, but for the name of its dialect, which HTML
    /// knows: its maker escapes its texts.
    pub fn svg(&mut self, caption: &str, svg: &str) -> &mut Self {
        self.body += "<figure class=\"plot\">\n";
        self.body += svg
            .replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1)
            .trim();
        self.body += "\n";
        self.caption(caption);
        self.body += "</figure>\n";
        self
    }

    /// Pictures side by side, all of one width, each over its caption.
    pub fn figures<C: AsRef<str>>(
        &mut self,
        figures: impl IntoIterator<Item = (C, Picture)>,
    ) -> &mut Self {
        self.body += "<div class=\"grid\">\n";
        for (caption, picture) in figures {
            self.body += "<figure>";
            push_picture(&picture, caption.as_ref(), &mut self.body);
            self.caption(caption.as_ref());
            self.body += "</figure>\n";
        }
        self.body += "</div>\n";
        self
    }

    fn caption(&mut self, text: &str) {
        if !text.is_empty() {
            self.element("figcaption", text);
        }
    }

    /// Writes the page, all of it or nothing.
    ///
    /// # Errors
    /// [`Error::File`] when the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let [head, foot] = self.frame();
        write_atomic(path, |w| {
            w.write_all(head.as_bytes()).map_err(failed(path))?;
            let mut done = 0;
            for (at, rows) in &self.rows {
                let part = &self.body[done..*at];
                w.write_all(part.as_bytes()).map_err(failed(path))?;
                rows.copy_to(w)?;
                done = *at;
            }
            let rest = [&self.body[done..], &foot];
            let write = |part: &&str| w.write_all(part.as_bytes());
            rest.iter().try_for_each(write).map_err(failed(path))
        })
    }

    /// What stands before the parts and after them.
    fn frame(&self) -> [String; 2] {
        let mut title = String::new();
        escape(&self.title, &mut title);
        // The policy in it tells the browser to load nothing, whatever a plot may say.
        let (begin, style) = (include_str!("head.html"), include_str!("style.css"));
        let head = format!(
            "{begin}<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        );
        let version = env!("CARGO_PKG_VERSION");
        let foot = format!("<footer>posteriori {version}</footer>\n</body>\n</html>\n");
        [head, foot]
    }
}

/// Appends the beginning of a table; `first` is its first row.
fn push_head<T: AsRef<str>>(head: &[T], first: &[Cell], out: &mut String) {
    out.push_str("<div class=\"wide\"><table>\n<thead><tr>");
    for (i, text) in head.iter().enumerate() {
        *out += &format!("<th{}>", first.get(i).map_or("", Cell::class));
        escape(text.as_ref(), out);
        out.push_str("</th>");
    }
    out.push_str("</tr></thead>\n<tbody>\n");
}

fn push_foot(out: &mut String) {
    out.push_str("</tbody>\n</table></div>\n");
}

/// A row of so many columns.
fn push_row(row: &[Cell], columns: usize, out: &mut String) {
    out.push_str("<tr>");
    for cell in row {
        push_cell(cell, out);
    }
    out.push_str(&"<td></td>".repeat(columns.saturating_sub(row.len())));
    out.push_str("</tr>\n");
}

fn push_cell(cell: &Cell, out: &mut String) {
    *out += &format!("<td{}>", cell.class());
    match cell {
        Cell::Text(text) | Cell::Number(text) => escape(text, out),
        Cell::Picture(picture) => push_picture(picture, "", out),
    }
    out.push_str("</td>");
}

fn push_picture(Picture { png, size }: &Picture, alt: &str, out: &mut String) {
    let [h, w] = size;
    let class = match h.max(w) <= &CRISP {
        true => " class=\"crisp\"",
        false => "",
    };
    *out += &format!("<img{class} width=\"{w}\" height=\"{h}\" alt=\"");
    escape(alt, out);
    out.push_str("\" src=\"data:image/png;base64,");
    STANDARD.encode_string(png, out);
    out.push_str("\"/>");
}

/// Appends a text as HTML and XML take it, in an element or an attribute. What neither may hold becomes U+FFFD.
fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
}
