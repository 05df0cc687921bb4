//! Writing large files to the disk while they grow.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Bytes of a file that may be in memory only.
const STEP_BYTES: u64 = 4 << 20;

/// Writes a growing file to the disk, step by step. A sync of another file, such as the journal for each commit, would otherwise wait
/// behind all that was written to this one.
#[derive(Debug, Default)]
pub struct WriteBack {
    /// Bytes that are on the disk.
    written: u64,
}

impl WriteBack {
    /// Must be called when the file has grown to `bytes`. Waits for the disk now and then. Does not make the file durable.
    ///
    /// # Errors
    /// If the disk did not take what was written before: a later sync may not report it again.
    pub fn advance(&mut self, file: &File, bytes: u64) -> io::Result<()> {
        if bytes.saturating_sub(self.written) < STEP_BYTES {
            return Ok(());
        }
        let start = std::mem::replace(&mut self.written, bytes);
        match write_range(file, start, bytes - start) {
            Err(error) if is_lost(&error) => Err(error),
            // This file system or container cannot do it.
            _ => Ok(()),
        }
    }
}

fn is_lost(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::ENOSPC | libc::EDQUOT))
}

/// Writes neither the size of the file nor where its blocks are, and does not empty the cache of the disk, so that it costs less than a
/// sync.
#[expect(unsafe_code, reason = "rustix has no sync_file_range")]
fn write_range(file: &File, start: u64, bytes: u64) -> io::Result<()> {
    const WRITE_AND_WAIT: libc::c_uint =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    let start = i64::try_from(start).map_err(io::Error::other)?;
    let bytes = i64::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: the file is open, and the call reads no memory.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), start, bytes, WRITE_AND_WAIT) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Pages of a file that are in memory only; `None` before Linux 6.5.
    #[expect(unsafe_code, reason = "libc has no cachestat")]
    fn dirty_pages(file: &File) -> Option<u64> {
        const CACHESTAT: libc::c_long = 451;
        let (all, mut found) = ([0_u64; 2], [0_u64; 5]);
        // SAFETY: the call reads two numbers and writes five.
        let result = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), all.as_ptr(), found.as_mut_ptr(), 0) };
        (result == 0).then_some(found[1])
    }

    #[test]
    fn only_the_last_part_of_a_file_is_in_memory_only() {
        let mut file = tempfile::tempfile().unwrap();
        let (mut write_back, part) = (WriteBack::default(), vec![1; 1 << 20]);
        for mebibytes in 1..=10 {
            file.write_all(&part).unwrap();
            write_back.advance(&file, mebibytes << 20).unwrap();
        }
        if let Some(dirty) = dirty_pages(&file) {
            assert!(dirty * 4096 < STEP_BYTES, "{dirty} pages");
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_to_the_disk_in_parts_is_no_error() {
        let (pipe, _writer) = rustix::pipe::pipe().unwrap();
        WriteBack::default().advance(&File::from(pipe), STEP_BYTES).unwrap();
        assert!(is_lost(&io::Error::from_raw_os_error(libc::ENOSPC)));
    }
}
