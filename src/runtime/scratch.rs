//! Memory that native kernels need while they run. It is kept for the next one that wants as much: a page that the
//! system hands out costs more than what a kernel does with it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use bytemuck::Pod;

use super::tile::Line;

/// Memory that nobody uses, by its lines.
static FREE: Mutex<BTreeMap<usize, Vec<Vec<Line>>>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// What this thread used last, of each size: it may still be in its caches.
    static NEAR: RefCell<BTreeMap<usize, Vec<Line>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Lines of memory that is large: no cache holds it, so no thread keeps it, and whoever wants less is given it too.
const LARGE: usize = (4 << 20) / size_of::<Line>();

/// Of large memory, the least that is enough; where none is, what is less goes back to the system.
fn take(count: usize) -> Vec<Line> {
    let near = || NEAR.with_borrow_mut(|near| near.remove(&count));
    let (is_large, near) = (count >= LARGE, (count < LARGE).then(near).flatten());
    if let Some(lines) = near {
        return lines;
    }
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    let most = if is_large { usize::MAX } else { count };
    let mut enough = free.range_mut(count..=most);
    if let Some(lines) = enough.find_map(|(_, lines)| lines.pop()) {
        return lines;
    }
    if is_large {
        free.retain(|&lines, _| !(LARGE..count).contains(&lines));
    }
    drop(free);
    bytemuck::zeroed_vec(count)
}

fn give(lines: Vec<Line>) {
    let count = lines.len();
    let rest = match count < LARGE {
        // A thread that ends keeps nothing.
        true => NEAR
            .try_with(|near| near.borrow_mut().insert(count, lines))
            .ok()
            .flatten(),
        false => Some(lines),
    };
    if let Some(lines) = rest {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free.entry(count).or_default().push(lines);
    }
}

/// `len` elements that start at a cache line, of unspecified content.
#[derive(Debug)]
pub(crate) struct Scratch<T> {
    lines: Vec<Line>,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Pod> Scratch<T> {
    pub(crate) fn new(len: usize) -> Self {
        // Powers of two: what one size leaves is of use for others.
        let count = (len * size_of::<T>()).div_ceil(size_of::<Line>());
        let count = count.next_power_of_two();
        Scratch {
            lines: take(count),
            len,
            of: PhantomData,
        }
    }
}

impl<T> Drop for Scratch<T> {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.lines));
    }
}

impl<T: Pod> Deref for Scratch<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<T: Pod> DerefMut for Scratch<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small and large, given back and taken again: as long as was asked for, and nobody else's.
    #[test]
    fn memory_in_use_is_used_once() {
        for round in 0..3 {
            let lens = [5, 3 << 20, 70, 1 << 20, 5 << 20, 2 << 20, 5];
            let take = |(i, &len): (usize, &usize)| {
                let mut scratch = Scratch::<f32>::new(len + round);
                scratch.fill(i as f32);
                scratch
            };
            let all: Vec<_> = lens.iter().enumerate().map(take).collect();
            for (i, scratch) in all.iter().enumerate() {
                assert!(scratch.len() == lens[i] + round);
                assert!(scratch.iter().all(|&x| x == i as f32));
            }
        }
    }
}
