//! [`Reading`]: values on their way to the host.

#[cfg(feature = "cuda")]
use crate::dtype::DType;
use crate::error::Result;
use crate::runtime::Runtime;
#[cfg(feature = "cuda")]
use crate::runtime::cuda::Copied;
use crate::tensor::Tensor;

/// The values of some tensors, as they are after all that was asked for before. On a GPU they come while it goes on, and
/// what is asked for later may overwrite the tensors; elsewhere they are there at once. Where nothing is computed there are none.
#[derive(Debug)]
pub struct Reading(State);

#[derive(Debug)]
enum State {
    Here(Vec<Vec<f64>>),
    /// Bytes that come one tensor after the other, and the type and bytes of each.
    #[cfg(feature = "cuda")]
    Coming(Copied, Vec<(DType, usize)>),
}

impl Reading {
    /// Begins to read tensors of this runtime.
    ///
    /// # Errors
    /// As [`Runtime::copy_out`].
    pub fn begin(rt: &Runtime, tensors: &[&Tensor]) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let Runtime::Cuda(cuda) = rt {
            let parts = tensors.iter().map(|t| (t.dtype(), t.byte_range().len()));
            let copied = cuda.begin_copy_out(tensors)?;
            return Ok(Reading(State::Coming(copied, parts.collect())));
        }
        if !rt.computes() {
            return Ok(Reading(State::Here(vec![Vec::new(); tensors.len()])));
        }
        let values = tensors.iter().map(|t| t.to_f64());
        Ok(Reading(State::Here(values.collect::<Result<_>>()?)))
    }

    /// Whether the values are there, and nothing would be waited for.
    pub fn is_here(&self) -> bool {
        match self.0 {
            State::Here(_) => true,
            #[cfg(feature = "cuda")]
            State::Coming(..) => false,
        }
    }

    /// The values of each tensor, as f64.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when a launch before has failed.
    pub fn values(self) -> Result<Vec<Vec<f64>>> {
        match self.0 {
            State::Here(values) => Ok(values),
            #[cfg(feature = "cuda")]
            State::Coming(copied, parts) => {
                let bytes = copied.wait()?;
                let mut rest = &bytes[..];
                let values = parts.into_iter().map(|(dtype, len)| {
                    let (part, later) = rest.split_at(len);
                    rest = later;
                    dtype.decode(part)
                });
                Ok(values.collect())
            }
        }
    }
}
