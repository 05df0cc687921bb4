//! Verifies a write-ahead log before SQLite opens it.
//!
//! SQLite ends recovery at the first frame whose checksum does not match, because a crash in the middle of a commit
//! leaves such a frame at the end of the log. A flipped byte would therefore silently hide every commit behind it.
//! The two cases differ in what follows: a commit starts only after the one before it is on the disk, so behind the
//! frames of an interrupted commit there is never the end of a commit followed by a valid frame.
//!
//! File format: <https://sqlite.org/walformat.html>.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::error::StoreError;
use super::paths::wal_path;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// The lowest bit selects the byte order of the checksums.
const MAGIC: u32 = 0x377f_0682;
const BUFFER: usize = 1 << 20;

/// Looks for corruption in the log of a database file. `unsynced` allows several torn commits at the end: commits
/// that were not synced can all be torn by a power failure.
pub(super) fn check(database: &Path, unsynced: bool) -> Result<(), StoreError> {
    let path = wal_path(database);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io("open", &path, &error)),
    };
    let found = find_mismatch(&mut BufReader::with_capacity(BUFFER, file), unsynced);
    match found.map_err(|error| StoreError::io("read", &path, &error))? {
        None => Ok(()),
        Some(Mismatch { offset, detail }) => {
            let location = format!("byte {offset} and later of its log `{}`", path.display());
            Err(StoreError::corrupt(database, location, detail))
        }
    }
}

struct Mismatch {
    offset: u64,
    detail: &'static str,
}

fn find_mismatch(log: &mut impl Read, unsynced: bool) -> io::Result<Option<Mismatch>> {
    let mut bytes = [0; HEADER];
    if !read_full(log, &mut bytes)? {
        return Ok(None);
    }
    let Some(header) = Header::parse(&bytes) else {
        let blank = bytes.iter().all(|byte| *byte == 0) && is_zero(log)?;
        return Ok((!blank).then_some(Mismatch { offset: 0, detail: "header checksum mismatch" }));
    };
    let mut bytes = vec![0; FRAME_HEADER + header.page_size];
    let mut sums = header.sums;
    let mut offset = HEADER as u64;
    while read_full(log, &mut bytes)? {
        let frame = Frame { bytes: &bytes };
        let expected = header.sums_after(sums, &frame);
        if frame.sums() != expected {
            let seeds = [frame.sums(), expected];
            let hidden = !unsynced && hides_commits(log, &header, seeds, frame.ends_commit())?;
            let detail = "frame checksum mismatch, although later commits follow";
            return Ok(hidden.then_some(Mismatch { offset, detail }));
        }
        if frame.salts() != header.salts {
            // The checksum proves that the frame belongs to this log, so its salt was altered.
            return Ok(Some(Mismatch { offset, detail: "frame salt differs from the header" }));
        }
        sums = expected;
        offset += bytes.len() as u64;
    }
    Ok(None)
}

/// Whether, after a frame whose checksum does not match, a commit ends and a valid frame follows.
fn hides_commits(log: &mut impl Read, header: &Header, mut seeds: [Sums; 2], mut ended: bool) -> io::Result<bool> {
    let mut bytes = vec![0; FRAME_HEADER + header.page_size];
    while read_full(log, &mut bytes)? {
        let frame = Frame { bytes: &bytes };
        let valid = seeds.iter().any(|seed| header.sums_after(*seed, &frame) == frame.sums());
        if ended && valid && frame.salts() == header.salts {
            return Ok(true);
        }
        seeds = [frame.sums(); 2];
        ended = frame.ends_commit();
    }
    Ok(false)
}

#[derive(Clone, Copy, PartialEq)]
struct Sums(u32, u32);

struct Header {
    big_endian: bool,
    page_size: usize,
    salts: [u8; 8],
    sums: Sums,
}

impl Header {
    fn parse(bytes: &[u8; HEADER]) -> Option<Self> {
        let magic = word(bytes, 0);
        let page_size = word(bytes, 8);
        let fits = magic & !1 == MAGIC && page_size.is_power_of_two() && (512..=65_536).contains(&page_size);
        let mut salts = [0; 8];
        salts.copy_from_slice(&bytes[16..24]);
        let sums = Sums(word(bytes, 24), word(bytes, 28));
        let header = Self { big_endian: magic & 1 == 1, page_size: page_size as usize, salts, sums };
        (fits && header.add(Sums(0, 0), &bytes[..24]) == sums).then_some(header)
    }

    fn sums_after(&self, before: Sums, frame: &Frame<'_>) -> Sums {
        self.add(self.add(before, &frame.bytes[..8]), &frame.bytes[FRAME_HEADER..])
    }

    fn add(&self, sums: Sums, bytes: &[u8]) -> Sums {
        let of = if self.big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        let Sums(mut first, mut second) = sums;
        let (pairs, _) = bytes.as_chunks::<8>();
        for [a, b, c, d, e, f, g, h] in pairs {
            first = first.wrapping_add(of([*a, *b, *c, *d])).wrapping_add(second);
            second = second.wrapping_add(of([*e, *f, *g, *h])).wrapping_add(first);
        }
        Sums(first, second)
    }
}

struct Frame<'a> {
    bytes: &'a [u8],
}

impl Frame<'_> {
    fn ends_commit(&self) -> bool {
        word(self.bytes, 4) != 0
    }

    fn salts(&self) -> &[u8] {
        &self.bytes[8..16]
    }

    fn sums(&self) -> Sums {
        Sums(word(self.bytes, 16), word(self.bytes, 20))
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Returns false at the end of the log; an incomplete frame counts as the end.
fn read_full(log: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_zero(log: &mut impl Read) -> io::Result<bool> {
    let mut bytes = [0; 8192];
    loop {
        match log.read(&mut bytes)? {
            0 => return Ok(true),
            count if bytes[..count].iter().any(|byte| *byte != 0) => return Ok(false),
            _ => {}
        }
    }
}
