//! The emulator's C interface, `kernels/emu/interface.h`: linked in by the build, or loaded from a library of
//! the same files that were built otherwise, with a sanitizer or a planted fault.

use std::ffi::{CStr, c_char, c_void};
use std::sync::LazyLock;

/// Names a library whose kernels come before those of the same names that were linked in.
const VARIABLE: &str = "POSTERIORI_EMU_KERNELS";

#[repr(C)]
pub(super) struct RawSchedule {
    pub(super) threads: u32,
    pub(super) order: u32,
    pub(super) asynchrony: u32,
    pub(super) padding: u32,
    pub(super) seed: u64,
}

macro_rules! interface {
    ($($field:ident = $name:ident($($arg:ident: $of:ty),*) $(-> $to:ty)?;)*) => {
        unsafe extern "C" {
            $(fn $name($($arg: $of),*) $(-> $to)?;)*
        }

        /// An emulator with its kernels.
        pub(super) struct Library {
            $(pub(super) $field: unsafe extern "C" fn($($of),*) $(-> $to)?,)*
        }

        static LINKED: Library = Library { $($field: $name,)* };

        impl Library {
            fn load(path: &str) -> Result<Self, libloading::Error> {
                // SAFETY: a library of these very files, whose functions have these very types; it stays
                // loaded for the rest of the process.
                unsafe {
                    let library = std::mem::ManuallyDrop::new(libloading::Library::new(path)?);
                    Ok(Library { $($field: *library.get(concat!(stringify!($name), "\0"))?,)* })
                }
            }
        }
    };
}

interface! {
    function = emu_function(name: *const c_char) -> *const c_void;
    arg_count = emu_arg_count(function: *const c_void) -> u32;
    arg_size = emu_arg_size(function: *const c_void, index: u32) -> u32;
    launch = emu_launch(
        function: *const c_void,
        grid: *const u32,
        block: *const u32,
        shared: u32,
        args: *mut *mut c_void,
        schedule: *const RawSchedule,
        error: *mut c_char,
        error_len: usize
    ) -> i32;
    tensor_map = emu_tensor_map(
        map: *mut c_void,
        rank: i32,
        element_bytes: i32,
        base: *mut c_void,
        dims: *const u64,
        strides: *const u64,
        boxed: *const u32,
        swizzle_bytes: i32,
        error: *mut c_char,
        error_len: usize
    ) -> i32;
    sanitized = emu_sanitized() -> i32;
    alloc = emu_alloc(bytes: usize) -> *mut c_void;
    free = emu_free(start: *mut c_void, bytes: usize);
}

/// The library that the environment names.
static LOADED: LazyLock<Option<Library>> = LazyLock::new(|| {
    let path = std::env::var(VARIABLE).ok()?;
    let library = Library::load(&path);
    Some(library.unwrap_or_else(|why| panic!("{VARIABLE}, {path}: {why}")))
});

/// The library that memory comes from, and kernels where it has them.
pub(super) fn first() -> &'static Library {
    LOADED.as_ref().unwrap_or(&LINKED)
}

/// A registered kernel, and who launches it.
#[derive(Clone, Copy)]
pub(super) struct Function {
    pub(super) library: &'static Library,
    pub(super) kernel: *const c_void,
}

// SAFETY: points to a constant of the library.
unsafe impl Send for Function {}

impl Function {
    pub(super) fn find(name: &CStr) -> Option<Self> {
        [first(), &LINKED].into_iter().find_map(|library| {
            // SAFETY: a NUL-terminated name.
            let kernel = unsafe { (library.function)(name.as_ptr()) };
            (!kernel.is_null()).then_some(Function { library, kernel })
        })
    }

    pub(super) fn arg_sizes(self) -> Vec<usize> {
        // SAFETY: a registered kernel; the index is below its count.
        unsafe {
            (0..(self.library.arg_count)(self.kernel))
                .map(|i| (self.library.arg_size)(self.kernel, i) as usize)
                .collect()
        }
    }
}
