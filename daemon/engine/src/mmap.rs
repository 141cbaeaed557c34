//! Maps of files and of memory: the one module of the engine with `unsafe`.
//!
//! A model file is mapped, not read: pages come in as they are touched and the kernel may drop them
//! again. The map is private and read-only, so nothing here can change the file.
//!
//! The risk that remains is the file itself: when another process truncates it, touching a page
//! that is gone raises SIGBUS, and when it is rewritten in place, bytes that were checked change.
//! Blobs of a store are never rewritten (they are published by rename under their own hash), and a
//! runner is a process of its own, so the first costs one runner. Against the second every reader
//! of a map must stay memory-safe for any bytes: no code may trust an earlier check so far that it
//! skips bounds or UTF-8 checks.
#![expect(unsafe_code, reason = "mapping a file is unsafe: others can change it under us")]

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::path::Path;

use memmap2::{Advice, Mmap, MmapMut, MmapOptions, UncheckedAdvice};

/// A whole file, mapped read-only.
#[derive(Debug)]
pub struct Map(Mmap);

impl Map {
    /// Maps the regular file at `path`. Devices, pipes and folders are refused: they have no length
    /// to check anything against, and opening a pipe would wait for a writer.
    pub fn open(path: &Path) -> io::Result<Map> {
        if !path.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = File::open(path)?;
        // SAFETY: the map is private and read-only, and hands out `&[u8]` only. Bytes that change
        // under us are the risk the module's text describes; readers re-check what they read.
        let map = unsafe { MmapOptions::new().map_copy_read_only(&file)? };
        Ok(Map(map))
    }

    /// Gives the pages that lie wholly or partly in `range` back to the kernel; they are read from
    /// the file again when touched. Best effort: what cannot be dropped stays.
    pub fn release(&self, range: Range<usize>) {
        let end = range.end.min(self.0.len());
        let Some(len) = end.checked_sub(range.start) else { return };
        // SAFETY: dropping pages of a private file map that was never written to loses nothing:
        // the next access reads the same bytes from the file.
        let dropped =
            unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, len) };
        if let Err(error) = dropped {
            tracing::debug!(%error, "pages of a model file could not be dropped");
        }
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Memory of our own in whole pages, zero until it is written to, in large pages where the kernel
/// gives them: weights are read from end to end for every token, and small pages cost a tenth of
/// the memory's speed.
#[derive(Debug)]
pub struct Arena(MmapMut);

impl Arena {
    /// `bytes` of it; the kernel finds the memory when it is written to.
    pub fn new(bytes: usize) -> io::Result<Arena> {
        // A map of nothing is refused by the kernel.
        let map = MmapMut::map_anon(bytes.max(1))?;
        if let Err(error) = map.advise(Advice::HugePage) {
            tracing::debug!(%error, "no large pages for the weights");
        }
        Ok(Arena(map))
    }
}

/// Gives memory that was allocated and freed back to the kernel. What loading a model allocates for a
/// moment (a hundred thousand short strings) lies between what stays, and the C library keeps it.
pub fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes locks of the allocator and returns free pages; allocations are not touched.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has all threads allocate from one heap. By itself the C library gives each its own, and what one thread
/// frees another cannot use: a program that does little at a time grows by that with every thread. To be
/// called before threads are started.
pub fn one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it sets a number that the allocator reads when a thread first allocates.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Unmaps the pages of this program's code that only starting needed; what runs again is mapped again
/// from the file, a page at a time. The code of a large program is most of what it takes at rest.
pub fn release_code() {
    #[cfg(target_os = "linux")]
    {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let Ok(program) = std::fs::read_link("/proc/self/exe") else { return };
        for range in code(&maps, &program.to_string_lossy()) {
            // SAFETY: the range is a mapping of the program's own file that may be run and not be
            // written to. Its pages are the file's, and come back unchanged when they are touched.
            unsafe {
                libc::madvise(range.start as *mut libc::c_void, range.len(), libc::MADV_DONTNEED);
            }
        }
    }
}

/// The mappings of `program` in /proc/self/maps that may be run and not be written to.
#[cfg(target_os = "linux")]
fn code(maps: &str, program: &str) -> Vec<Range<usize>> {
    let code = |line: &str| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (rights, path) = (fields.next()?, fields.nth(3)?);
        let address = |text: &str| usize::from_str_radix(text, 16).ok();
        let range = address(start)?..address(end)?;
        (rights == "r-xp" && path == program && range.start < range.end).then_some(range)
    };
    maps.lines().filter_map(code).collect()
}

impl Deref for Arena {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Arena {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_the_file_and_released_pages_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let map = Map::open(&path).unwrap();
        assert_eq!(&map[..], &bytes[..]);
        map.release(0..50_000);
        map.release(99_999..usize::MAX);
        assert_eq!(&map[..], &bytes[..]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_the_programs_code_is_released_and_it_still_runs() {
        let maps = "\
            1000-3000 r--p 00000000 fe:00 1 /bin/dsk\n\
            3000-8000 r-xp 00002000 fe:00 1 /bin/dsk\n\
            8000-9000 rw-p 00007000 fe:00 1 /bin/dsk\n\
            a000-b000 r-xp 00000000 fe:00 2 /lib/libc.so\n\
            c000-d000 r-xp 00000000 00:00 0 [vdso]\n\
            garbage\n";
        let found: Vec<_> = code(maps, "/bin/dsk").iter().map(|at| (at.start, at.end)).collect();
        assert_eq!(found, [(0x3000, 0x8000)]);
        release_code();
        assert!(code(maps, "/bin/other").is_empty());
    }

    #[test]
    fn only_regular_files_are_mapped() {
        for path in ["/dev/zero", "/"] {
            let error = Map::open(Path::new(path)).unwrap_err();
            assert_eq!(error.to_string(), "not a regular file", "{path}");
        }
    }
}
