//! [`Device`]: where a pipeline runs.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::runtime::Runtime;

/// A device that a pipeline can run on.
#[derive(Clone, Debug)]
pub struct Device {
    rt: Runtime,
    dtype: DType,
}

impl Device {
    /// The best device of this machine. Today that is its processors: this version has no CUDA runtime.
    ///
    /// # Errors
    /// None today; [`Error::Device`] once there are devices that can fail.
    pub fn auto() -> Result<Self> {
        Ok(Self::cpu())
    }

    /// This machine's processors, in f32.
    pub fn cpu() -> Self {
        Device {
            rt: Runtime::native(),
            dtype: DType::F32,
        }
    }

    /// `auto`, `cpu`, or (not yet) `cuda:0`.
    ///
    /// # Errors
    /// [`Error::Device`] for a device this version does not have, [`Error::Argument`] for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "auto" => Self::auto(),
            "cpu" => Ok(Self::cpu()),
            cuda if cuda == "cuda" || cuda.starts_with("cuda:") => {
                let why = "this version has no CUDA runtime yet; use --device cpu".into();
                Err(Error::Device {
                    device: text.into(),
                    why,
                })
            }
            _ => Err(Error::argument(
                "--device",
                format!("wanted auto or cpu, got `{text}`"),
            )),
        }
    }

    /// The same device in another precision: `f32`, or `f64` for checks.
    ///
    /// # Errors
    /// [`Error::Argument`] for an unknown precision, [`Error::Device`] for one this device does not have.
    pub fn with_precision(mut self, precision: &str) -> Result<Self> {
        self.dtype = match precision {
            "f32" => DType::F32,
            "f64" => DType::F64,
            "bf16" | "f16" => {
                let why = format!(
                    "computes in f32 (f64 for checks), not in {precision}; use --precision f32"
                );
                return Err(Error::Device {
                    device: "cpu".into(),
                    why,
                });
            }
            _ => {
                let why = format!("wanted f32, f64, bf16 or f16, got `{precision}`");
                return Err(Error::argument("--precision", why));
            }
        };
        Ok(self)
    }

    /// The runtime.
    pub fn rt(&self) -> &Runtime {
        &self.rt
    }

    /// The element type of activations.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
}
