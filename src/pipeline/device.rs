//! [`Device`]: where a pipeline runs.

use crate::cx::Cx;
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
            #[cfg(feature = "emu")]
            "emu" => Ok(Device {
                rt: Runtime::emu(Default::default()),
                dtype: DType::F32,
            }),
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
            "bf16" => DType::Bf16,
            "f16" => DType::F16,
            _ => {
                let why = format!("wanted f32, f64, bf16 or f16, got `{precision}`");
                return Err(Error::argument("--precision", why));
            }
        };
        Cx::new(self.rt.clone(), self.dtype)?;
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
