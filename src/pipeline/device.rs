//! [`Device`]: where a pipeline runs, and in which precision.

use std::path::Path;

use crate::cx::Cx;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::runtime::mapped::Mapped;
use crate::runtime::native::Products;
use crate::runtime::product::has_bf16;

/// A device that a pipeline can run on.
#[derive(Clone, Debug)]
pub struct Device {
    rt: Runtime,
    dtype: DType,
}

impl Device {
    /// The best device of this machine: its first GPU if that can be used, else its processors.
    /// `posteriori doctor` tells why a GPU cannot be used.
    ///
    /// # Errors
    /// None: there are always processors. It is a `Result` as the other ways to a device are.
    pub fn auto() -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let Ok(device) = Self::cuda(0) {
            return Ok(device);
        }
        Ok(Self::cpu())
    }

    /// This machine's processors, in f32.
    pub fn cpu() -> Self {
        Device {
            rt: Runtime::native(),
            dtype: DType::F32,
        }
    }

    /// GPU number `ordinal`, in bf16.
    ///
    /// # Errors
    /// [`Error::Device`] when it cannot be used, with what to do.
    #[cfg(feature = "cuda")]
    pub fn cuda(ordinal: usize) -> Result<Self> {
        Ok(Device {
            rt: Runtime::cuda(ordinal)?,
            dtype: DType::Bf16,
        })
    }

    /// The GPUs' kernels on an emulator, in f32: for tests.
    #[cfg(feature = "emu")]
    pub fn emu() -> Self {
        Device {
            rt: Runtime::emu(Default::default()),
            dtype: DType::F32,
        }
    }

    /// `auto`, `cpu`, `cuda`, `cuda:1`, or `emu`.
    ///
    /// # Errors
    /// [`Error::Device`] for a device that this machine or this build does not have, [`Error::Argument`] for
    /// anything else.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "auto" => Self::auto(),
            "cpu" => Ok(Self::cpu()),
            "cuda" => numbered(0),
            "emu" => emulated(),
            _ => {
                let why = format!("wanted auto, cpu, cuda, cuda:N or emu, got `{text}`");
                let number = text.strip_prefix("cuda:").and_then(|n| n.parse().ok());
                numbered(number.ok_or_else(|| Error::argument("--device", why))?)
            }
        }
    }

    /// The same device in another precision.
    ///
    /// # Errors
    /// [`Error::Argument`] for an unknown precision, [`Error::Device`] for one this device does not have.
    pub fn with_precision(mut self, precision: &str) -> Result<Self> {
        let all = [DType::F32, DType::F64, DType::Bf16, DType::F16];
        let dtype = all.into_iter().find(|dtype| dtype.name() == precision);
        self.dtype = dtype.ok_or_else(|| {
            let why = format!("wanted f32, f64, bf16 or f16, got `{precision}`");
            Error::argument("--precision", why)
        })?;
        if let Runtime::Native(_) = self.rt
            && self.dtype == DType::Bf16
        {
            return self.cpu_bf16();
        }
        Cx::new(self.rt.clone(), self.dtype)?;
        Ok(self)
    }

    /// This machine's processors, convolutions and linear maps with bf16 operands; weights are stored in bf16, sums,
    /// activations and everything else are f32.
    fn cpu_bf16(&self) -> Result<Self> {
        if !has_bf16() {
            return Err(Error::Device {
                device: "cpu".into(),
                why: "bf16 wants a processor that multiplies such numbers (AMX-BF16 or AVX512-BF16), this one \
                      does not; use --precision f32"
                    .into(),
            });
        }
        Ok(Device {
            rt: Runtime::native_with(Products::Bf16, self.rt.offload().map(Path::to_owned)),
            dtype: DType::F32,
        })
    }

    /// The same processors with large weights in files of `folder` instead of memory: each launch maps those that it reads,
    /// and leaves them to the system's cache. The files have no names, and end with the process. Results are the same.
    ///
    /// # Errors
    /// [`Error::Argument`] for a GPU, which reads nothing from files, [`Error::File`] when `folder` is none that can be
    /// written to.
    pub fn offloading(mut self, folder: impl AsRef<Path>) -> Result<Self> {
        let Runtime::Native(_) = self.rt else {
            let why = format!(
                "wanted --device cpu, whose weights can lie in files, got {}",
                self.rt.name()
            );
            return Err(Error::argument("--offload", why));
        };
        Mapped::nameless(folder.as_ref(), &[0])?;
        let folder = Some(folder.as_ref().to_owned());
        self.rt = Runtime::native_with(self.rt.products(), folder);
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

    /// The type of what is multiplied: on processors bf16 is one of operands, activations are f32.
    pub fn precision(&self) -> DType {
        match self.rt.products() {
            Products::Bf16 => DType::Bf16,
            Products::F32 => self.dtype,
        }
    }
}

#[cfg(feature = "cuda")]
fn numbered(ordinal: usize) -> Result<Device> {
    Device::cuda(ordinal)
}

#[cfg(not(feature = "cuda"))]
fn numbered(ordinal: usize) -> Result<Device> {
    Err(not_built(&format!("cuda:{ordinal}"), "cuda"))
}

#[cfg(feature = "emu")]
fn emulated() -> Result<Device> {
    Ok(Device::emu())
}

#[cfg(not(feature = "emu"))]
fn emulated() -> Result<Device> {
    Err(not_built("emu", "emu"))
}

#[cfg(not(all(feature = "cuda", feature = "emu")))]
fn not_built(device: &str, feature: &str) -> Error {
    Error::Device {
        device: device.into(),
        why: format!(
            "this build has no such device; build with --features {feature}, or use --device cpu"
        ),
    }
}
