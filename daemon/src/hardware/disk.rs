//! The disk that models lie on: its room, and how fast it reads.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::num::NonZeroU64;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, OFlags};

use super::Disk;

/// How much is read at most.
const READ_BYTES_MAX: u64 = 64 << 20;
/// A smaller file says little.
const FILE_BYTES_MIN: u64 = 16 << 20;
/// How long is read at most, but for the one read that is on its way then.
const READ_TIME_MAX: Duration = Duration::from_millis(200);
/// One read; a multiple of every disk's block.
const CHUNK_BYTES: usize = 4 << 20;
/// What reads past the cache have to be aligned to.
const ALIGNMENT: usize = 4096;
/// How many names of a folder are looked at.
const NAMES_MAX: usize = 10_000;

impl Disk {
    /// The disk of `folder`, or of the nearest folder above it that is there; `None` where the
    /// system does not say. Its speed is not measured. Blocking.
    pub fn read_at(folder: &Path) -> Option<Disk> {
        let existing = folder.ancestors().find(|folder| folder.exists())?;
        let stat = rustix::fs::statvfs(existing).ok()?;
        let total = stat.f_blocks.saturating_mul(stat.f_frsize);
        Some(Disk {
            path: folder.display().to_string(),
            total,
            free: stat.f_bavail.saturating_mul(stat.f_frsize).min(total),
            read_rate: None,
        })
    }
}

/// Bytes per second that the largest file in `folder` is read with, past the cache; `None` without
/// a file worth reading. Blocking, about 200 ms.
pub(super) fn read_rate(folder: &Path) -> Option<u64> {
    let (path, length) = largest(folder)?;
    measure(&path, length).ok().flatten()
}

fn largest(folder: &Path) -> Option<(PathBuf, u64)> {
    let entries = std::fs::read_dir(folder).ok()?.flatten().take(NAMES_MAX);
    let files = entries.filter_map(|entry| {
        let data = entry.metadata().ok()?;
        data.is_file().then(|| (entry.path(), data.len()))
    });
    files.filter(|(_, length)| *length >= FILE_BYTES_MIN).max_by_key(|(_, length)| *length)
}

fn measure(path: &Path, length: u64) -> io::Result<Option<u64>> {
    // From the middle: the header of a model is read often and may lie in the disk's own cache.
    let start = (length - length.min(READ_BYTES_MAX)) / 2 / ALIGNMENT as u64 * ALIGNMENT as u64;
    match timed(&mut past_the_cache(path)?, start) {
        // Some file systems open a file so and then refuse to read it.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            timed(&mut emptied_cache(path, start)?, start)
        }
        done => done,
    }
}

/// The file, to be read without the cache where the file system can.
fn past_the_cache(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECT.bits() as i32;
    File::options().read(true).custom_flags(flags).open(path).or_else(|_| File::open(path))
}

/// The file, with what is going to be read dropped from the cache, unless a process has it mapped.
fn emptied_cache(path: &Path, start: u64) -> io::Result<File> {
    let file = File::open(path)?;
    rustix::fs::fadvise(&file, start, NonZeroU64::new(READ_BYTES_MAX), Advice::DontNeed)?;
    Ok(file)
}

fn timed(file: &mut File, start: u64) -> io::Result<Option<u64>> {
    let mut room = vec![0; CHUNK_BYTES + ALIGNMENT];
    let offset = room.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    let chunk = &mut room[offset..offset + CHUNK_BYTES];
    file.seek(SeekFrom::Start(start))?;
    let (began, mut bytes) = (Instant::now(), 0_u64);
    while bytes < READ_BYTES_MAX && began.elapsed() < READ_TIME_MAX {
        match file.read(chunk)? {
            0 => break,
            count => bytes += count as u64,
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    // A float beyond any rate becomes the largest one.
    Ok((bytes >= CHUNK_BYTES as u64 && seconds > 0.0).then(|| (bytes as f64 / seconds) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_lies_on_its_parents_disk() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::read_at(&folder.path().join("a/b")).unwrap();
        assert!(disk.path.ends_with("a/b"), "{disk:?}");
        assert!(disk.total > 0 && disk.free <= disk.total, "{disk:?}");
    }

    #[test]
    fn the_largest_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("small"), vec![1; 1 << 20]).unwrap();
        assert_eq!(read_rate(folder.path()), None, "too small to say anything");
        std::fs::write(folder.path().join("large"), vec![1; 20 << 20]).unwrap();
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        let began = Instant::now();
        let rate = read_rate(folder.path()).unwrap();
        assert!(rate > 1_000_000, "{rate}");
        assert!(began.elapsed() < Duration::from_secs(10), "one slow read at most");
        assert_eq!(read_rate(&folder.path().join("absent")), None);
    }
}
