//! Files for the process tasks, and their expected results.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::server_process::Result;

const FILES_MAX: usize = 24;
/// Larger files are skipped: they would only make the demo slower.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Folders of the source tree in which files are searched, and how deep.
const FOLDERS: [&str; 2] = ["proto", "src"];
const DEPTH_MAX: usize = 4;

/// Finds up to 24 files, sorted: source files of this project if the current directory or the binary is inside its
/// tree, otherwise the files beside the binary.
pub fn find() -> Result<Vec<PathBuf>> {
    let binary = std::env::current_exe()?;
    let current = std::env::current_dir().unwrap_or_default();
    let tree = current.ancestors().chain(binary.ancestors()).find(|path| path.join("proto/lineshaft/v1").is_dir());
    let mut files = Vec::new();
    match tree {
        Some(tree) => FOLDERS.iter().for_each(|folder| collect(&tree.join(folder), DEPTH_MAX, &mut files)),
        None => collect(binary.parent().unwrap_or(Path::new("/")), 0, &mut files),
    }
    files.sort();
    files.truncate(FILES_MAX);
    if files.is_empty() {
        files.push(binary);
    }
    Ok(files)
}

/// Adds the regular files of a directory and of its subdirectories up to `depth` levels below.
fn collect(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let path = entry.path();
        // Task arguments are UTF-8.
        if kind.is_file() && path.to_str().is_some() {
            // The processes run as the same user, so they can open the same files.
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

/// Checksum and bytes of a file, as `cksum` prints them.
pub fn checksum_and_bytes(path: &Path) -> Result<[u64; 2]> {
    let content = fs::read(path)?;
    Ok([posix_crc(&content).into(), content.len() as u64])
}

/// CRC-32 of POSIX `cksum`: polynomial 0x04C11DB7, most significant bit first, the length appended.
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
    fn the_checksum_equals_that_of_cksum() {
        // `printf '' | cksum`, `printf 123456789 | cksum`.
        assert_eq!(posix_crc(b""), 4_294_967_295);
        assert_eq!(posix_crc(b"123456789"), 930_766_865);
    }
}
