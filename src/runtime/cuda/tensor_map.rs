//! Tensor maps, as the driver encodes them.

use std::ffi::c_void;

use cudarc::driver::sys::{
    self, CUtensorMap, CUtensorMapDataType, CUtensorMapFloatOOBfill, CUtensorMapInterleave,
    CUtensorMapL2promotion, CUtensorMapSwizzle,
};

use super::context::Context;
use crate::error::Result;
use crate::runtime::kernel::TensorMap;
use crate::runtime::record::EncodedMap;

/// The map of a tensor at this address.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device) when the driver takes no such tensor.
pub(super) fn encode(context: &Context, map: &TensorMap, address: u64) -> Result<EncodedMap> {
    let steps = vec![1u32; map.dims.len()];
    let mut encoded = EncodedMap::default();
    context.stream()?;
    // SAFETY: as many sizes as the rank says, one stride less; the result is as large and as aligned as a `CUtensorMap`.
    // The address is not read here.
    let done = unsafe {
        sys::cuTensorMapEncodeTiled(
            std::ptr::from_mut(&mut encoded).cast::<CUtensorMap>(),
            CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT16,
            map.dims.len() as u32,
            address as *mut c_void,
            map.dims.as_ptr(),
            map.strides().as_ptr(),
            map.boxed.as_ptr(),
            steps.as_ptr(),
            CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    context.done(&format!("encoding {map:?}"), done.result())?;
    Ok(encoded)
}
