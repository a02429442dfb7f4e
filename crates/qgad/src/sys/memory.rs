//! Where memory comes from.
//!
//! A message or a reply may take tens of mebibytes, once. From [`LARGE`] on a buffer comes straight from the kernel and
//! goes straight back, so that an agent that has just carried 48 MiB is as small as before; in huge pages where the
//! kernel has them, because touching small ones would take longer than all else that is done with the bytes. Growing
//! moves pages, not bytes. Everything smaller is the C library's business.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ptr,
};

use nix::libc;

/// From this size on, in bytes: two huge pages, which a buffer that is not aligned to them still holds one of.
const LARGE: usize = 4 * 1024 * 1024;
/// What the kernel aligns to at least.
const PAGE: usize = 4096;

/// The agent's allocator.
pub(crate) struct Allocator;

fn is_large(layout: Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= PAGE
}

fn map(size: usize) -> *mut u8 {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: asks for memory at a place of the kernel's choice.
    let mapped = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
    prefer_huge_pages(mapped, size)
}

/// Null, as allocators say it, where the kernel says that it failed.
fn prefer_huge_pages(mapped: *mut libc::c_void, size: usize) -> *mut u8 {
    if mapped == libc::MAP_FAILED {
        return ptr::null_mut();
    }
    // SAFETY: advice about memory that was just mapped, which does not change what it holds. It may be declined.
    unsafe { libc::madvise(mapped, size, libc::MADV_HUGEPAGE) };
    mapped.cast()
}

// SAFETY: large blocks are whole mappings that are told apart from the system's blocks by their layout alone, which is
// the same when they are freed; mappings are aligned to pages, and new ones are zeroed.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return map(layout.size());
        }
        // SAFETY: the caller keeps the trait's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return map(layout.size());
        }
        // SAFETY: the caller keeps the trait's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_large(layout) {
            // SAFETY: a large block is a whole mapping of this size, and the caller is done with it.
            unsafe { libc::munmap(block.cast(), layout.size()) };
            return;
        }
        // SAFETY: a block that is not large is the system's.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller guarantees that the size fits with this alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        match (is_large(layout), is_large(new_layout)) {
            (true, true) => {
                // SAFETY: a large block is a whole mapping of this size, and the caller forgets where it was.
                let moved = unsafe { libc::mremap(block.cast(), layout.size(), new_size, libc::MREMAP_MAYMOVE) };
                prefer_huge_pages(moved, new_size)
            }
            // SAFETY: both are the system's.
            (false, false) => unsafe { System.realloc(block, layout, new_size) },
            _ => {
                // SAFETY: the caller guarantees that the new size is not zero.
                let new_block = unsafe { self.alloc(new_layout) };
                if !new_block.is_null() {
                    // SAFETY: both blocks hold so many bytes, and a new one overlaps with no other.
                    unsafe { ptr::copy_nonoverlapping(block, new_block, layout.size().min(new_size)) };
                    // SAFETY: the caller forgets the old block.
                    unsafe { self.dealloc(block, layout) };
                }
                new_block
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_buffer_keeps_its_bytes_while_it_grows_and_shrinks_across_the_limit() {
        let mut bytes: Vec<u8> = Vec::new();
        for number in 0..3_000_000_u32 {
            bytes.extend(number.to_le_bytes());
        }
        bytes.truncate(1_000_000);
        bytes.shrink_to_fit();
        bytes.reserve_exact(20_000_000);
        for (number, chunk) in (0_u32..).zip(bytes.chunks(4)) {
            assert_eq!(chunk, number.to_le_bytes());
        }
        assert!(vec![0_u8; 10_000_000].iter().all(|&byte| byte == 0));
    }
}
