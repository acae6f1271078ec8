//! The one error type of the library. Every variant names the thing, what was wanted, what came
//! and, where there is something to do, what to do.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What can go wrong. Nothing a caller passes in makes the library panic; it comes back as one of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor has the wrong shape for what it is passed to.
    #[error("{what}: wanted shape {want}, got {got}")]
    Shape {
        /// The op, layer or tensor.
        what: String,
        /// The shape it takes.
        want: String,
        /// The shape that came.
        got: String,
    },
    /// A tensor has the wrong element type for what it is passed to.
    #[error("{what}: wanted dtype {want}, got {got}")]
    DType {
        /// The op, layer or tensor.
        what: String,
        /// The types it takes.
        want: String,
        /// The type that came.
        got: String,
    },
    /// No variant of an op can run this case on this runtime.
    #[error(
        "{op}: no variant on runtime `{runtime}` takes {key}; `posteriori check` lists the variants"
    )]
    NoVariant {
        /// The op.
        op: &'static str,
        /// The runtime it was asked of.
        runtime: &'static str,
        /// The case, printed.
        key: String,
    },
    /// A configuration (`config.json`, `scheduler_config.json`, run file, measurement file) is not usable.
    #[error("{what}: {why}")]
    Config {
        /// The file or setting.
        what: String,
        /// What was wanted, what came, what to do.
        why: String,
    },
    /// A tensor of a checkpoint is missing, has the wrong shape, or holds a NaN or infinity.
    #[error("weight `{name}`: {why}")]
    Weight {
        /// The full name in the checkpoint.
        name: String,
        /// What was wanted, what came, what to do.
        why: String,
    },
    /// A file or folder could not be read or written.
    #[error("{}: {why}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted and what happened.
        why: String,
    },
    /// There is no room left for a file that is written: the disk is full, or the share of it that the user may fill.
    #[error("{}: {why}", path.display())]
    Full {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted and what happened.
        why: String,
    },
    /// An argument or option is out of its range.
    #[error("{name}: {why}")]
    Argument {
        /// The option, as the user spells it.
        name: String,
        /// What was wanted and what came.
        why: String,
    },
    /// A device is missing or does not do what was asked of it.
    #[error("device `{device}`: {why}")]
    Device {
        /// The device, as the user spells it.
        device: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// Not even one image of this size fits into the memory that is free.
    #[error("memory plan: {why}")]
    TooLarge {
        /// What was planned, what came.
        why: String,
    },
    /// A run left the memory plan that was made for it, or the plan does not fit.
    #[error("memory plan: {why}")]
    Plan {
        /// What was planned, what came.
        why: String,
    },
    /// A sample became NaN or infinite.
    #[error(
        "sample {sample} diverged at step {step} (NaN or infinity); lower zeta or take more steps"
    )]
    Diverged {
        /// Which sample of the batch.
        sample: usize,
        /// The sampling step, counted from 0 at the noisiest.
        step: usize,
    },
    /// Somebody asked for the work to stop: [`Cancel`](crate::pipeline::cancel::Cancel).
    #[error("cancelled")]
    Cancelled,
    /// A training run left all bounds.
    #[error(
        "training diverged at step {step}: {why}; lower the learning rate, or clip the gradient more"
    )]
    Training {
        /// The step, counted from 0.
        step: usize,
        /// What left its bounds.
        why: String,
    },
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A [`Error::Shape`] from anything that prints.
    pub fn shape(
        what: impl Into<String>,
        want: impl std::fmt::Display,
        got: impl std::fmt::Display,
    ) -> Self {
        Error::Shape {
            what: what.into(),
            want: want.to_string(),
            got: got.to_string(),
        }
    }

    /// A [`Error::Config`].
    pub fn config(what: impl Into<String>, why: impl Into<String>) -> Self {
        Error::Config {
            what: what.into(),
            why: why.into(),
        }
    }

    /// A [`Error::Weight`].
    pub fn weight(name: impl Into<String>, why: impl Into<String>) -> Self {
        Error::Weight {
            name: name.into(),
            why: why.into(),
        }
    }

    /// A [`Error::File`].
    pub fn file(path: impl AsRef<Path>, why: impl Into<String>) -> Self {
        Error::File {
            path: path.as_ref().to_owned(),
            why: why.into(),
        }
    }

    /// The error of something that could not be written: [`Error::Full`] where it is for want of room, else [`Error::File`].
    pub fn written(path: impl AsRef<Path>, what: &str, error: &std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::Full {
                path,
                why: format!("{what}: {error}; make room for it, and begin again"),
            },
            _ => Error::File {
                path,
                why: format!("{what}: {error}"),
            },
        }
    }

    /// Whether an error of a batch is about its images, so that other batches are worth trying. Models, device
    /// and memory are the same for all.
    pub fn is_of_the_images(&self) -> bool {
        matches!(
            self,
            Error::Shape { .. }
                | Error::Argument { .. }
                | Error::Diverged { .. }
                | Error::TooLarge { .. }
        )
    }

    /// A [`Error::Argument`].
    pub fn argument(name: impl Into<String>, why: impl Into<String>) -> Self {
        Error::Argument {
            name: name.into(),
            why: why.into(),
        }
    }
}
