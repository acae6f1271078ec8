//! Element-wise loops at the width of the processor they run on.

/// Runs `f` compiled for the widest vector unit of this processor. Loops in `f` over slices, with
/// everything they call inlined, become vector loops.
#[inline]
pub fn wide<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}
