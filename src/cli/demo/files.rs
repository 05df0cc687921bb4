//! Real files to work on, and what is known about them without asking anybody.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::child::Result;

/// Files that are used at most.
const FILES_MAX: usize = 24;
/// Larger files would only take time.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Folders of a checkout that have files of ours.
const FOLDERS: [&str; 2] = ["proto", "src"];

/// Files of the checkout that this is run in or was built in; without one, those beside the program.
/// Answers the files, sorted, and the directory that they are from.
pub fn find() -> Result<(Vec<PathBuf>, PathBuf)> {
    let program = std::env::current_exe()?;
    let here = std::env::current_dir().unwrap_or_default();
    let checkout = here.ancestors().chain(program.ancestors()).find(|path| path.join("proto/lineshaft/v1").is_dir());
    let mut files = Vec::new();
    let whose = if let Some(checkout) = checkout {
        for folder in FOLDERS {
            collect(&checkout.join(folder), 4, &mut files);
        }
        checkout.to_owned()
    } else {
        let beside = program.parent().unwrap_or(Path::new("/")).to_owned();
        collect(&beside, 0, &mut files);
        beside
    };
    files.sort();
    files.truncate(FILES_MAX);
    if files.is_empty() {
        files.push(program);
    }
    Ok((files, whose))
}

/// Adds the plain files of a directory and of those below it, down to a depth.
fn collect(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let path = entry.path();
        // Arguments are text; a file with another name is left out.
        if kind.is_file() && path.to_str().is_some() {
            // Only what can be read: the processes run as the same user.
            let small = fs::metadata(&path).is_ok_and(|found| found.len() <= FILE_BYTES_MAX);
            if small && fs::File::open(&path).is_ok() {
                files.push(path);
            }
        } else if kind.is_dir() && depth > 0 {
            collect(&path, depth - 1, files);
        }
    }
}

/// Lines and bytes of a file, as `wc -lc` prints them.
pub fn lines_and_bytes(path: &Path) -> Result<[u64; 2]> {
    let content = fs::read(path)?;
    let lines = content.split(|byte| *byte == b'\n').count() - 1;
    Ok([lines as u64, content.len() as u64])
}

/// Checksum and bytes of a file, as `cksum` of POSIX prints them.
pub fn checksum_and_bytes(path: &Path) -> Result<[u64; 2]> {
    let content = fs::read(path)?;
    Ok([posix_crc(&content).into(), content.len() as u64])
}

/// CRC-32 of POSIX: polynomial 0x04C11DB7, most significant bit first, the length appended.
fn posix_crc(content: &[u8]) -> u32 {
    let table: [u32; 256] = std::array::from_fn(|index| {
        let mut word = u32::try_from(index).unwrap_or_default() << 24;
        for _ in 0..8 {
            word = (word << 1) ^ if word >> 31 == 1 { 0x04C1_1DB7 } else { 0 };
        }
        word
    });
    let step = |crc: u32, byte: u8| (crc << 8) ^ table[usize::from((crc >> 24).to_le_bytes()[0] ^ byte)];
    let mut crc = content.iter().copied().fold(0, step);
    let mut length = content.len();
    while length > 0 {
        crc = step(crc, length.to_le_bytes()[0]);
        length >>= 8;
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_posix() {
        // `printf '' | cksum`, `printf 123456789 | cksum`.
        assert_eq!(posix_crc(b""), 4_294_967_295);
        assert_eq!(posix_crc(b"123456789"), 930_766_865);
    }
}
