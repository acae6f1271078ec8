//! Tables as comma-separated values (RFC 4180).

use std::path::Path;

use super::atomic::{failed, write_atomic};
use crate::error::Result;

/// Writes a table, all of it or nothing.
///
/// # Errors
/// [`Error::File`](crate::Error::File) when the file cannot be written.
pub fn write(path: &Path, columns: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let mut text = columns.join(",") + "\n";
    rows.iter().for_each(|row| text += &line(row));
    write_atomic(path, |w| w.write_all(text.as_bytes()).map_err(failed(path)))
}

/// One row, with its end of line.
pub fn line(row: &[String]) -> String {
    let cell = |text: &String| match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.clone(),
    };
    row.iter().map(cell).collect::<Vec<_>>().join(",") + "\n"
}

/// The rows that end with their end of line, and the bytes that they take: what follows was cut off.
pub fn read(text: &str) -> (Vec<Vec<String>>, usize) {
    let (mut rows, mut whole) = (Vec::new(), 0);
    let (mut row, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' if quoted && chars.next_if(|(_, next)| *next == '"').is_some() => cell.push('"'),
            '"' => quoted = !quoted,
            _ if quoted => cell.push(c),
            ',' => row.push(std::mem::take(&mut cell)),
            '\n' => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
                whole = at + 1;
            }
            '\r' => {}
            _ => cell.push(c),
        }
    }
    (rows, whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_up_to_a_torn_line() {
        let rows =
            [["a", "b,c", ""], ["\"q\"", "two\r\nlines", "é"]].map(|row| row.map(String::from));
        let text: String = rows.iter().map(|row| line(row)).collect();
        let want: Vec<Vec<String>> = rows.iter().map(|row| row.to_vec()).collect();
        assert_eq!(read(&text), (want.clone(), text.len()));
        let first = line(&rows[0]).len();
        for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
            let (got, whole) = read(&text[..cut]);
            let complete = usize::from(cut >= first);
            assert_eq!(
                (&got[..], whole),
                (&want[..complete], first * complete),
                "{cut}"
            );
        }
    }

    #[test]
    fn quotes_follow_the_standard() {
        let (rows, _) = read("\"a \"\"b\"\"\",\"\"\r\nc,d\n");
        assert_eq!(rows, [["a \"b\"", ""], ["c", "d"]]);
    }
}
