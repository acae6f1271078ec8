//! [`Reading`]: values on their way to the host.

use crate::dtype::DType;
use crate::error::Result;
use crate::runtime::Runtime;
#[cfg(feature = "cuda")]
use crate::runtime::cuda::Copied;
use crate::tensor::Tensor;

/// The values of some tensors, as they are after all that was asked for before. On a GPU they come while it goes on, and
/// what is asked for later may overwrite the tensors; elsewhere they are there at once.
#[derive(Debug)]
pub struct Reading {
    /// The type of each tensor, and how many bytes it has.
    parts: Vec<(DType, usize)>,
    from: From,
}

#[derive(Debug)]
enum From {
    Here(Vec<u8>),
    #[cfg(feature = "cuda")]
    Gpu(Copied),
}

impl Reading {
    /// Begins to read tensors of this runtime.
    ///
    /// # Errors
    /// As [`Runtime::copy_out`].
    pub fn begin(rt: &Runtime, tensors: &[&Tensor]) -> Result<Self> {
        let parts = tensors.iter().map(|t| (t.dtype(), t.byte_range().len()));
        #[cfg(feature = "cuda")]
        if let Runtime::Cuda(cuda) = rt {
            let from = From::Gpu(cuda.begin_copy_out(tensors)?);
            let parts = parts.collect();
            return Ok(Reading { parts, from });
        }
        let mut bytes = vec![0; parts.clone().map(|(_, len)| len).sum()];
        let mut rest = &mut bytes[..];
        for t in tensors {
            let (to, later) = rest.split_at_mut(t.byte_range().len());
            rt.copy_out(t.buffer(), t.byte_range().start, to)?;
            rest = later;
        }
        Ok(Reading {
            parts: parts.collect(),
            from: From::Here(bytes),
        })
    }

    /// Whether the values are there, and nothing would be waited for.
    pub fn is_here(&self) -> bool {
        match self.from {
            From::Here(_) => true,
            #[cfg(feature = "cuda")]
            From::Gpu(_) => false,
        }
    }

    /// The values of each tensor, as f64.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when a launch before has failed.
    pub fn values(self) -> Result<Vec<Vec<f64>>> {
        #[cfg_attr(not(feature = "cuda"), allow(clippy::infallible_destructuring_match))]
        let bytes = match self.from {
            From::Here(bytes) => bytes,
            #[cfg(feature = "cuda")]
            From::Gpu(copied) => copied.wait()?,
        };
        let mut rest = &bytes[..];
        let values = self.parts.into_iter().map(|(dtype, len)| {
            let (part, later) = rest.split_at(len);
            rest = later;
            dtype.decode(part)
        });
        Ok(values.collect())
    }
}
