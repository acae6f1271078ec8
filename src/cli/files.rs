//! From `-i` and `-o` to pairs of files: a file or a folder on both sides, the tree kept, names never
//! doubled, and nothing ever written where the input lies.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use posteriori::io::image::{self, Format, Listed};
use posteriori::{Error, Result};

/// What to do when an output is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exists {
    Skip,
    Overwrite,
    Error,
}

impl Exists {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        match text {
            "skip" => Ok(Exists::Skip),
            "overwrite" => Ok(Exists::Overwrite),
            "error" => Ok(Exists::Error),
            _ => {
                let why = format!("wanted skip, overwrite or error, got `{text}`");
                Err(Error::argument("--exists", why))
            }
        }
    }

    /// Whether to write `output`; an error when it must not be there.
    pub(crate) fn admits(self, output: &Path) -> Result<bool> {
        match self {
            Exists::Overwrite => Ok(true),
            _ if !output.exists() => Ok(true),
            Exists::Skip => Ok(false),
            Exists::Error => Err(Error::file(
                output,
                "exists already; --exists skip or overwrite decides what to do with it",
            )),
        }
    }
}

/// One image to read and where its result goes.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) input: PathBuf,
    /// Relative to the input folder, with `/`: what noise depends on and what reports call it.
    pub(crate) name: String,
    pub(crate) output: PathBuf,
    pub(crate) format: Format,
    /// The name is not UTF-8, so `name` has lost some of it.
    pub(crate) lossy: bool,
    /// Of a folder inside the input, which may have images: why it cannot be read.
    pub(crate) unread: Option<String>,
}

impl Entry {
    /// # Errors
    /// [`Error::File`] for a folder that cannot be read.
    pub(crate) fn expect_readable(&self) -> Result<()> {
        match &self.unread {
            Some(why) => Err(Error::file(&self.input, why)),
            None => Ok(()),
        }
    }

    /// Fails for a name that does not tell the image from all others.
    pub(crate) fn expect_name(&self) -> Result<()> {
        if !self.lossy {
            return Ok(());
        }
        let why = "its name is not UTF-8, and noise and journal go by names; rename it";
        Err(Error::file(&self.input, why))
    }
}

/// The images of `input`, with outputs at `output` in `format` (`None`: that of each input, see [`kept`]).
pub(crate) fn entries(
    input: &Path,
    output: &Path,
    recursive: bool,
    format: Option<Format>,
) -> Result<Vec<Entry>> {
    if input.is_dir() {
        folder(input, output, recursive, format)
    } else if recursive && input.exists() {
        let why = format!("wanted a folder as input: {} is a file", input.display());
        Err(Error::argument("--recursive", why))
    } else if input.exists() {
        Ok(vec![file(input, output, format)?])
    } else {
        let why = "no such file or folder; -i wants an image or a folder of images";
        Err(Error::file(input, why))
    }
}

fn folder(
    input: &Path,
    output: &Path,
    recursive: bool,
    format: Option<Format>,
) -> Result<Vec<Entry>> {
    if output.exists() && !output.is_dir() {
        let why = "is a file, and the results of a folder need a folder; -o wants one";
        return Err(Error::file(output, why));
    }
    let (from, to) = (resolve(input), resolve(output));
    if from.starts_with(&to) || to.starts_with(&from) {
        let (input, output) = (input.display(), output.display());
        let why = format!(
            "the output folder {output} and the input folder {input} are the same or one inside the other; \
             the input is never written to: choose a folder beside it"
        );
        return Err(Error::argument("--output", why));
    }
    let Listed { images, unread } = image::list_readable(input, recursive)?;
    if images.is_empty() && unread.is_empty() {
        let hint = if recursive {
            "holds no images"
        } else {
            "holds no images itself; --recursive looks into the folders inside it"
        };
        return Err(Error::file(input, hint));
    }
    let given = format.is_some();
    let mut taken: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut all = Vec::new();
    for path in images {
        let format = format.unwrap_or_else(|| kept(&path));
        let output = output.join(renamed(&path, format));
        let name = slashed(&path);
        if let Some(other) = taken.insert(output.clone(), name.clone()) {
            return Err(collision(&other, &name, &output, given));
        }
        all.push(Entry {
            lossy: path.to_str().is_none(),
            unread: None,
            input: input.join(&path),
            name,
            output,
            format,
        });
    }
    all.extend(unread.into_iter().map(|(path, error)| Entry {
        lossy: false,
        unread: Some(match error {
            Error::File { why, .. } => why,
            other => other.to_string(),
        }),
        name: slashed(&path),
        output: output.join(&path),
        format: format.unwrap_or(Format::Png),
        input: input.join(path),
    }));
    Ok(all)
}

/// Two images whose results would have one name, with `--format` or without.
fn collision(one: &str, other: &str, output: &Path, given: bool) -> Error {
    let (flag, way) = match given {
        true => (
            "--format",
            "leave --format out if they keep their names without it, or rename one",
        ),
        false => ("--input", "rename one"),
    };
    let output = output.display();
    let why = format!("{one} and {other} would both become {output}; {way}");
    Error::argument(flag, why)
}

fn file(input: &Path, output: &Path, format: Option<Format>) -> Result<Entry> {
    let own = input
        .file_name()
        .map(Path::new)
        .unwrap_or(Path::new("image"));
    let (output, format) = if is_folder(output) {
        let format = format.unwrap_or_else(|| kept(own));
        (output.join(renamed(own, format)), format)
    } else {
        (output.to_owned(), named_format(output, format)?)
    };
    if resolve(&output) == resolve(input) {
        let why = format!(
            "{} is the input itself, which is never written to",
            output.display()
        );
        return Err(Error::argument("--output", why));
    }
    Ok(Entry {
        input: input.to_owned(),
        name: slashed(own),
        output,
        format,
        lossy: own.to_str().is_none(),
        unread: None,
    })
}

/// Whether the output of a single image names the folder that it goes into.
pub(crate) fn is_folder(output: &Path) -> bool {
    let trailing = output.as_os_str().as_encoded_bytes().ends_with(b"/");
    output.is_dir() || trailing || output.extension().is_none()
}

/// The format of what is made of a file: its own, and PNG where that cannot be written. Float TIFF is only written where
/// it is asked for: a TIFF that was read is seldom one.
fn kept(path: &Path) -> Format {
    let own = Format::of(path).filter(|own| *own != Format::Tiff);
    own.unwrap_or(Format::Png)
}

/// Fails for a format that is not made for looking at, which `--format` names or, if that is not given, the name: `output` is
/// a picture.
pub(crate) fn expect_picture(output: &Path, format: Format, given: bool) -> Result<()> {
    if format != Format::Tiff {
        return Ok(());
    }
    let flag = if given { "--format" } else { "--output" };
    let why = format!(
        "{}: what is made is a picture, and tiff keeps measurements; wanted png, png16, jpg or webp",
        output.display()
    );
    Err(Error::argument(flag, why))
}

/// The format of a file that the user named; `--format` must not contradict the name.
pub(crate) fn named_format(path: &Path, format: Option<Format>) -> Result<Format> {
    let of_name = Format::of(path).ok_or_else(|| {
        let why = format!(
            "{}: the extension names no format that can be written; wanted .png, .jpg, .webp or .tiff",
            path.display()
        );
        Error::argument("--output", why)
    })?;
    match format {
        None => Ok(of_name),
        Some(format) if format.extension() == of_name.extension() => Ok(format),
        Some(format) => {
            let why = format!("{format} contradicts the name {}", path.display());
            Err(Error::argument("--format", why))
        }
    }
}

/// The same name in a format: the extension is kept where it is right (`.jpeg`), else replaced.
pub(crate) fn renamed(path: &Path, format: Format) -> PathBuf {
    let right = Format::of(path).is_some_and(|own| own.extension() == format.extension());
    if right {
        path.to_owned()
    } else {
        path.with_extension(format.extension())
    }
}

/// The output of one of several samples: `x-s1.png`.
pub(crate) fn of_sample(path: &Path, sample: u32, samples: u32) -> PathBuf {
    if samples == 1 {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_os_string();
    name.push(format!("-s{sample}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Creates the folder that a file goes into.
pub(crate) fn make_room(file: &Path) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new(""));
    match folder.as_os_str().is_empty() {
        true => Ok(()),
        false => make_folder(folder),
    }
}

/// Creates a folder, and those that it is in.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)
        .map_err(|e| Error::written(folder, "the output folder cannot be made", &e))
}

/// Makes the folder that results go into, and tries whether files can be made there: before hours of
/// work, not after.
pub(crate) fn prepare(input: &Path, output: &Path, first: &Entry) -> Result<()> {
    match input.is_dir() {
        true => prepare_folder(output),
        false => prepare_file(&first.output),
    }
}

/// The same for a single file.
pub(crate) fn prepare_file(file: &Path) -> Result<()> {
    if file.is_dir() {
        let why = "is a folder; wanted the name of a file to write";
        return Err(Error::file(file, why));
    }
    prepare_folder(file.parent().unwrap_or(Path::new("")))
}

fn prepare_folder(folder: &Path) -> Result<()> {
    let probe = folder.join(format!(".posteriori-{}.probe", std::process::id()));
    make_room(&probe)?;
    let made = std::fs::write(&probe, "").and_then(|()| std::fs::remove_file(&probe));
    made.map_err(|e| Error::file(folder, format!("no file can be made in this folder: {e}")))
}

/// A path with `/` between its parts on every system.
pub(crate) fn slashed(path: &Path) -> String {
    let parts = path.components().map(|c| c.as_os_str().to_string_lossy());
    parts.collect::<Vec<_>>().join("/")
}

/// The path without links and `..`, as far as it exists.
fn resolve(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut rest = Vec::new();
    let mut up = 0;
    let mut here = path.as_path();
    loop {
        if let Ok(real) = here.canonicalize() {
            return rest.iter().rev().fold(real, |path, part| path.join(part));
        }
        match here.components().next_back() {
            Some(Component::ParentDir) => up += 1,
            Some(_) if up > 0 => up -= 1,
            Some(Component::Normal(name)) => rest.push(name),
            _ => {}
        }
        let Some(parent) = here.parent() else {
            return path.clone();
        };
        here = parent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_never_doubled() {
        let renamed = |path: &str, format| renamed(Path::new(path), format).display().to_string();
        assert_eq!(renamed("a/x.png", Format::Png16), "a/x.png");
        assert_eq!(renamed("a/x.JPEG", Format::Jpeg(90)), "a/x.JPEG");
        assert_eq!(renamed("x.tar.bmp", Format::Png), "x.tar.png");
        let sample = |samples| of_sample(Path::new("a/x.png"), 1, samples);
        assert_eq!(sample(1), Path::new("a/x.png"));
        assert_eq!(sample(2), Path::new("a/x-s1.png"));
        assert_eq!(of_sample(Path::new("a/x"), 0, 2), Path::new("a/x-s0"));
    }

    #[test]
    fn the_input_is_never_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("in");
        std::fs::create_dir(&input).unwrap();
        std::fs::write(input.join("x.png"), b"").unwrap();
        let to = |output: &Path| entries(&input, output, false, None);
        for bad in [
            input.clone(),
            input.join("out"),
            input.join("not/yet/../x"),
            dir.path().to_owned(),
            dir.path().join("./in/."),
        ] {
            assert!(matches!(to(&bad), Err(Error::Argument { .. })), "{bad:?}");
        }
        let good = to(&dir.path().join("in2")).unwrap();
        assert_eq!(good[0].output, dir.path().join("in2/x.png"));
        let same = entries(
            &input.join("x.png"),
            &input.join("../in/x.png"),
            false,
            None,
        );
        assert!(matches!(same, Err(Error::Argument { .. })));
    }

    #[test]
    fn two_inputs_never_share_an_output() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("in");
        std::fs::create_dir(&input).unwrap();
        for name in ["x.png", "x.jpg"] {
            std::fs::write(input.join(name), b"").unwrap();
        }
        let output = dir.path().join("out");
        assert_eq!(entries(&input, &output, false, None).unwrap().len(), 2);
        let error = entries(&input, &output, false, Some(Format::Png)).unwrap_err();
        assert!(error.to_string().contains("x.jpg and x.png"), "{error}");
    }
}
