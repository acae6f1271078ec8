//! A launch of a `.cu` kernel: which entry, over what grid, with which arguments.
//!
//! An entry's parameters are pointers, then tensor maps, then one struct of 32-bit words: whole numbers first, then reals.
//! `kernels/<module>.cu` holds entries named `<module>[_<part>]_<dtype>`, with `_` for `/`.

use std::fmt;

use crate::dtype::DType;
use crate::error::{Error, Result};

/// The generation of a GPU, as ten times its compute capability: 80, 89, 90, 100, 120.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arch(pub u32);

impl Arch {
    /// Whether it runs code that was compiled for sm_90a, which no other generation takes.
    pub fn is_hopper(self) -> bool {
        self.0 == 90
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}", self.0)
    }
}

/// What kernels a runtime runs, or, for a dry one, is asked to plan for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Rust functions.
    Native,
    /// `.cu` kernels.
    Kernels(Arch),
}

/// The name of a compiled kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The file under `kernels/`, without its ending: `group_norm/fwd_1_plain`.
    pub module: &'static str,
    /// Which of the file's kernels, when there are several; else empty.
    pub part: &'static str,
    /// The storage type.
    pub dtype: DType,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = self.module.split('/');
        f.write_str(words.next().unwrap_or_default())?;
        for word in words.chain((!self.part.is_empty()).then_some(self.part)) {
            write!(f, "_{word}")?;
        }
        write!(f, "_{}", self.dtype)
    }
}

/// A pointer that a kernel gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ptr {
    /// Argument i of the op's launch; null when that is absent.
    Arg(usize),
    /// This byte of the plan's scratch memory.
    Scratch(usize),
    /// None: for what a kernel may be given and this launch has not.
    Null,
}

/// A dense tensor of 16-bit elements as Hopper's copy engine (TMA) sees it. A kernel copies boxes of it to shared memory,
/// where rows of 128 bytes are swizzled; what of a box is outside the tensor arrives as zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Where it is.
    pub at: Ptr,
    /// Its sizes, innermost first, that one a multiple of 8; at most five.
    pub dims: Vec<u64>,
    /// The sizes of a box: 64, then at most 256.
    pub boxed: Vec<u32>,
}

impl TensorMap {
    /// Bytes of an element.
    pub const ELEMENT: usize = 2;
    /// Bytes of a box's rows.
    pub const SWIZZLE: usize = 128;

    /// Boxes of the sizes `boxed` of a tensor of the sizes `dims`.
    pub fn new<const RANK: usize>(at: Ptr, dims: [usize; RANK], boxed: [u32; RANK]) -> Self {
        TensorMap {
            at,
            dims: dims.map(|dim| dim as u64).to_vec(),
            boxed: boxed.to_vec(),
        }
    }

    /// Bytes from one index to the next, of every dimension but the innermost.
    pub fn strides(&self) -> Vec<u64> {
        let outer = &self.dims[..self.dims.len() - 1];
        let stride = |bytes: &mut u64, &dim: &u64| {
            *bytes *= dim;
            Some(*bytes)
        };
        outer.iter().scan(Self::ELEMENT as u64, stride).collect()
    }
}

/// One kernel launch of an op.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What is launched.
    pub entry: Entry,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// The pointers, in order; `None`: all of the op's arguments.
    pub pointers: Option<Vec<Ptr>>,
    /// The tensor maps, in order.
    pub maps: Vec<TensorMap>,
    /// The words of the parameter struct.
    pub params: Vec<u32>,
    /// Whether blocks go from one part of the work to the next: no more of them than a GPU has multiprocessors.
    pub stays: bool,
    /// Bytes of the op's arguments that it reads, and a launch of the same plan before it: for predictions.
    pub again: usize,
    too_large: Option<usize>,
}

impl Launch {
    /// `grid` blocks of `threads` threads of the kernel `module` for storage type `dtype`.
    pub fn new(module: &'static str, dtype: DType, grid: [usize; 3], threads: u32) -> Self {
        let mut launch = Launch {
            entry: Entry {
                module,
                part: "",
                dtype,
            },
            grid: [1; 3],
            block: [threads, 1, 1],
            shared: 0,
            pointers: None,
            maps: Vec::new(),
            params: Vec::new(),
            stays: false,
            again: 0,
            too_large: None,
        };
        let limits = [i32::MAX as usize, 65_535, 65_535];
        for (axis, (blocks, limit)) in grid.into_iter().zip(limits).enumerate() {
            launch.grid[axis] = launch.checked(blocks, limit);
        }
        launch
    }

    /// One thread for each of `len` elements, in blocks of 256.
    pub fn each(module: &'static str, dtype: DType, len: usize) -> Self {
        Self::new(module, dtype, [len.div_ceil(256), 1, 1], 256)
    }

    /// The file's kernel `part`.
    pub fn part(mut self, part: &'static str) -> Self {
        self.entry.part = part;
        self
    }

    /// With `bytes` of dynamic shared memory.
    pub fn shared(mut self, bytes: usize) -> Self {
        self.shared = self.checked(bytes, 227 << 10);
        self
    }

    /// With these pointers instead of all arguments in their order.
    pub fn pointers(mut self, pointers: impl Into<Vec<Ptr>>) -> Self {
        self.pointers = Some(pointers.into());
        self
    }

    /// With a map of a tensor, after others that it has.
    pub fn map(mut self, map: TensorMap) -> Self {
        self.maps.push(map);
        self
    }

    /// With blocks that stay until all of the grid's work is done, however few of them there are.
    pub fn staying(mut self) -> Self {
        self.stays = true;
        self
    }

    /// With so many bytes that a launch before it reads too.
    pub fn reading_again(mut self, bytes: usize) -> Self {
        self.again = bytes;
        self
    }

    /// Whole numbers, next in the parameter struct.
    pub fn ints(mut self, values: impl IntoIterator<Item = usize>) -> Self {
        for value in values {
            let word = self.checked(value, i32::MAX as usize);
            self.params.push(word);
        }
        self
    }

    /// Reals, next in the parameter struct.
    pub fn floats(mut self, values: impl IntoIterator<Item = f64>) -> Self {
        let words = values.into_iter().map(|v| (v as f32).to_bits());
        self.params.extend(words);
        self
    }

    fn checked(&mut self, value: usize, limit: usize) -> u32 {
        if value > limit {
            self.too_large = Some(value);
        }
        value as u32
    }
}

/// The launches that run an op, in order, and the scratch memory between them.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In order.
    pub launches: Vec<Launch>,
    /// Bytes.
    pub scratch: usize,
}

impl From<Launch> for Plan {
    fn from(launch: Launch) -> Self {
        Plan {
            launches: vec![launch],
            scratch: 0,
        }
    }
}

impl Plan {
    /// # Errors
    /// [`Error::Shape`] when a size is beyond what a kernel counts to.
    pub fn check(&self, op: &str) -> Result<()> {
        match self.launches.iter().find_map(|l| l.too_large) {
            None => Ok(()),
            Some(size) => Err(Error::shape(
                op,
                "sizes below 2^31 and grids that a GPU takes; use a smaller batch or image",
                size,
            )),
        }
    }
}

/// Lays out a plan's scratch memory.
#[derive(Debug, Default)]
pub struct Scratch(usize);

impl Scratch {
    /// All that was laid out.
    pub fn bytes(&self) -> usize {
        self.0
    }

    /// The next `count` floats.
    pub fn floats(&mut self, count: usize) -> Ptr {
        let at = Ptr::Scratch(self.0);
        self.0 += (4 * count).next_multiple_of(256);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_named_after_their_file() {
        let launch = Launch::each("add/fwd_1_plain", DType::Bf16, 1000);
        assert_eq!(launch.entry.to_string(), "add_fwd_1_plain_bf16");
        assert_eq!(
            launch.part("sums").entry.to_string(),
            "add_fwd_1_plain_sums_bf16"
        );
    }

    #[test]
    fn strides_are_those_of_a_dense_tensor() {
        let map = TensorMap::new(Ptr::Arg(0), [8, 5, 3, 2], [64, 4, 2, 1]);
        assert_eq!(map.strides(), [16, 80, 240]);
    }

    #[test]
    fn sizes_that_no_kernel_counts_to_are_errors() {
        let plan = |len| Plan::from(Launch::each("add/fwd_1_plain", DType::F32, 1).ints([len]));
        assert!(plan(i32::MAX as usize).check("add").is_ok());
        assert!(plan(1 << 31).check("add").is_err());
        let tall = Launch::new("add/fwd_1_plain", DType::F32, [1, 65_536, 1], 32);
        assert!(Plan::from(tall).check("add").is_err());
    }
}
