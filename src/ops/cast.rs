//! stand-in until the room is merged
use crate::cx::Cx;
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::Tensor;
/// cast
pub fn forward(cx: &Cx, x: &Tensor, to: DType) -> Result<Tensor> {
    if x.dtype() == to {
        return Ok(x.clone());
    }
    Tensor::rounded(cx.rt(), x.to_f64()?.into_iter(), x.shape(), to)
}
