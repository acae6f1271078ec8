//! [`Tensor`]: a contiguous range of a runtime's buffer with a shape and an element type.
//!
//! There are no strides. A reshape or a slice of leading rows is a view; anything else is a kernel
//! that says so. Clones are handles to the same bytes.

use std::ops::Range;

use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::runtime::{Buffer, Runtime};
use crate::shape::Shape;

/// A contiguous tensor on a runtime.
#[derive(Clone, Debug)]
pub struct Tensor {
    buffer: Buffer,
    offset: usize,
    shape: Shape,
    dtype: DType,
}

impl Tensor {
    /// A transient tensor of unspecified content.
    ///
    /// # Errors
    /// [`Error::Plan`] when the runtime has no room.
    pub fn empty(rt: &Runtime, shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        let shape = shape.into();
        let buffer = rt.alloc(shape.bytes(dtype))?;
        Ok(Tensor {
            buffer,
            offset: 0,
            shape,
            dtype,
        })
    }

    /// A transient tensor with these values.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of values is not the shape's, [`Error::Plan`] when there is no room.
    pub fn from_slice<T: Element>(
        rt: &Runtime,
        values: &[T],
        shape: impl Into<Shape>,
    ) -> Result<Self> {
        let t = Tensor::empty(rt, shape, T::DTYPE)?;
        rt.copy_in(&t.buffer, bytemuck::cast_slice(values))?;
        Ok(t)
    }

    /// A tensor with these values that outlives every step: a weight or a table.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of values is not the shape's.
    pub fn permanent<T: Element>(
        rt: &Runtime,
        values: &[T],
        shape: impl Into<Shape>,
    ) -> Result<Self> {
        let shape = shape.into();
        let buffer = rt.alloc_permanent(shape.bytes(T::DTYPE))?;
        rt.copy_in(&buffer, bytemuck::cast_slice(values))?;
        Tensor::over(buffer, shape, T::DTYPE)
    }

    /// A transient tensor with these values, rounded to `dtype`.
    ///
    /// # Errors
    /// As [`Tensor::from_slice`].
    pub fn rounded(
        rt: &Runtime,
        values: impl Iterator<Item = f64>,
        shape: impl Into<Shape>,
        dtype: DType,
    ) -> Result<Self> {
        let t = Tensor::empty(rt, shape, dtype)?;
        rt.copy_in(&t.buffer, &dtype.encode(values))?;
        Ok(t)
    }

    /// The same, outliving every step.
    ///
    /// # Errors
    /// As [`Tensor::permanent`].
    pub fn rounded_permanent(
        rt: &Runtime,
        values: impl Iterator<Item = f64>,
        shape: impl Into<Shape>,
        dtype: DType,
    ) -> Result<Self> {
        let shape = shape.into();
        let buffer = rt.alloc_permanent(shape.bytes(dtype))?;
        rt.copy_in(&buffer, &dtype.encode(values))?;
        Tensor::over(buffer, shape, dtype)
    }

    /// A tensor over a whole buffer that was filled elsewhere.
    ///
    /// # Errors
    /// [`Error::Shape`] when the buffer's length is not the shape's.
    pub fn over(buffer: Buffer, shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        let shape = shape.into();
        if buffer.bytes() != shape.bytes(dtype) {
            return Err(Error::shape(
                "tensor over a buffer",
                shape,
                format!("{} bytes", buffer.bytes()),
            ));
        }
        Ok(Tensor {
            buffer,
            offset: 0,
            shape,
            dtype,
        })
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The dimensions.
    pub fn dims(&self) -> &[usize] {
        self.shape.dims()
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The bytes this tensor is a view of.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// What tells it from every other tensor alive: its buffer, and where it starts there.
    pub fn id(&self) -> (usize, usize) {
        (self.buffer.id(), self.byte_range().start)
    }

    /// Where in the buffer this tensor lies.
    pub fn byte_range(&self) -> Range<usize> {
        let start = self.offset * self.dtype.size();
        start..start + self.shape.bytes(self.dtype)
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of elements differs.
    pub fn view(&self, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        if shape.elements() != self.shape.elements() {
            return Err(Error::shape("view", shape, self.shape));
        }
        Ok(Tensor {
            shape,
            ..self.clone()
        })
    }

    /// Samples `range` of the first dimension, as a view.
    ///
    /// # Errors
    /// [`Error::Shape`] when the range leaves the tensor.
    pub fn samples(&self, range: Range<usize>) -> Result<Self> {
        if range.start > range.end || range.end > self.shape.samples() {
            return Err(Error::shape(
                "samples",
                format!("at least {} samples", range.end),
                self.shape,
            ));
        }
        let offset = self.offset + range.start * self.shape.per_sample();
        Ok(Tensor {
            offset,
            shape: self.shape.with_samples(range.len()),
            ..self.clone()
        })
    }

    /// Copies the values to the host.
    ///
    /// # Errors
    /// [`Error::DType`] when `T` is not the element type; what a copy returns.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if T::DTYPE != self.dtype {
            return Err(Error::DType {
                what: "to_vec".into(),
                want: self.dtype.to_string(),
                got: T::DTYPE.to_string(),
            });
        }
        let mut values = vec![T::zeroed(); self.shape.elements()];
        let to = bytemuck::cast_slice_mut(&mut values);
        self.buffer
            .runtime()
            .copy_out(&self.buffer, self.offset * self.dtype.size(), to)?;
        Ok(values)
    }

    /// Copies the values to the host as f64. On the dry runtime, zeros.
    ///
    /// # Errors
    /// What a copy returns.
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        let Range { start, end } = self.byte_range();
        let mut bytes = vec![0; end - start];
        let runtime = self.buffer.runtime();
        runtime.copy_out(&self.buffer, start, &mut bytes)?;
        Ok(self.dtype.decode(&bytes))
    }

    /// The shape as four numbers `[n, h, w, c]`.
    ///
    /// # Errors
    /// [`Error::Shape`], naming `what`, when the rank is not 4.
    pub fn nhwc(&self, what: &str) -> Result<[usize; 4]> {
        self.dims()
            .try_into()
            .map_err(|_| Error::shape(what, "[n, h, w, c]", self.shape))
    }

    /// The shape as three numbers `[n, t, c]`.
    ///
    /// # Errors
    /// [`Error::Shape`], naming `what`, when the rank is not 3.
    pub fn ntc(&self, what: &str) -> Result<[usize; 3]> {
        self.dims()
            .try_into()
            .map_err(|_| Error::shape(what, "[n, t, c]", self.shape))
    }

    /// # Errors
    /// [`Error::Shape`], naming `what`, when the shape is not `want`.
    pub fn expect_shape(&self, what: &str, want: impl Into<Shape>) -> Result<()> {
        let want = want.into();
        if self.shape == want {
            Ok(())
        } else {
            Err(Error::shape(what, want, self.shape))
        }
    }

    /// # Errors
    /// [`Error::DType`], naming `what`, when the element type is not `want`.
    pub fn expect_dtype(&self, what: &str, want: DType) -> Result<()> {
        if self.dtype == want {
            return Ok(());
        }
        Err(Error::DType {
            what: what.into(),
            want: want.to_string(),
            got: self.dtype.to_string(),
        })
    }
}
