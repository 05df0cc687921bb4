//! Whether the write-ahead log of a file is what was written; looked at before SQLite opens it.
//!
//! SQLite takes the first frame that does not fit for the end of the log, since a crash in the middle
//! of a commit leaves such a tail. A flipped byte would hide everything behind it in the same way. What
//! tells them apart: a commit is begun only when the one before it is on the disk, so what a crash
//! leaves never has a commit's end and, fitting to it, the beginning of the next.
//! The format: <https://sqlite.org/walformat.html>.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::StoreError;
use super::open::io_fault;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// The last bit says in which order the checksum takes the bytes of a word.
const MAGIC: u32 = 0x377f_0682;
const BUFFER: usize = 1 << 20;

/// The log of a database file.
pub(super) fn log_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// Looks for damage in the log of a file. `loose`: several commits at the end may not have been synced,
/// so that a loss of power may have torn all of them.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Io`].
pub(super) fn check(file: &Path, loose: bool) -> Result<(), StoreError> {
    let log = log_of(file);
    let opened = match File::open(&log) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_fault("open", &log, &error)),
    };
    let found = find(&mut BufReader::with_capacity(BUFFER, opened), loose);
    match found.map_err(|error| io_fault("read", &log, &error))? {
        None => Ok(()),
        Some(Damage { at, detail }) => Err(StoreError::Corrupt {
            path: file.to_owned(),
            place: format!("byte {at} and later of its log `{}`", log.display()),
            detail: detail.to_owned(),
        }),
    }
}

struct Damage {
    at: u64,
    detail: &'static str,
}

fn find(log: &mut impl Read, loose: bool) -> io::Result<Option<Damage>> {
    let mut bytes = [0; HEADER];
    if !fill(log, &mut bytes)? {
        return Ok(None);
    }
    let Some(header) = Header::parse(&bytes) else {
        let blank = bytes.iter().all(|byte| *byte == 0) && all_zero(log)?;
        let detail = "the header does not fit its checksum";
        return Ok((!blank).then_some(Damage { at: 0, detail }));
    };
    let mut bytes = vec![0; FRAME_HEADER + header.page_size];
    let mut sums = header.sums;
    let mut at = HEADER as u64;
    while fill(log, &mut bytes)? {
        let frame = Frame { bytes: &bytes };
        let expected = header.sums_after(sums, &frame);
        if frame.sums() != expected {
            let seeds = [frame.sums(), expected];
            let hides = !loose && hides_commits(log, &header, seeds, frame.ends_commit())?;
            let detail = "the checksum does not fit, although later commits follow";
            return Ok(hides.then_some(Damage { at, detail }));
        }
        if frame.salts() != header.salts {
            // By its checksum it belongs here, and no frame of an earlier round does.
            return Ok(Some(Damage { at, detail: "the frame's salt is not the log's" }));
        }
        sums = expected;
        at += bytes.len() as u64;
    }
    Ok(None)
}

/// Whether, after a frame that does not fit, a commit ends and another begins.
fn hides_commits(log: &mut impl Read, header: &Header, mut seeds: [Sums; 2], mut ends: bool) -> io::Result<bool> {
    let mut bytes = vec![0; FRAME_HEADER + header.page_size];
    while fill(log, &mut bytes)? {
        let frame = Frame { bytes: &bytes };
        let fits = seeds.iter().any(|seed| header.sums_after(*seed, &frame) == frame.sums());
        if ends && fits && frame.salts() == header.salts {
            return Ok(true);
        }
        seeds = [frame.sums(); 2];
        ends = frame.ends_commit();
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

/// False at the end of the log; a part of a frame counts as the end.
fn fill(log: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn all_zero(log: &mut impl Read) -> io::Result<bool> {
    let mut bytes = [0; 8192];
    loop {
        match log.read(&mut bytes)? {
            0 => return Ok(true),
            count if bytes[..count].iter().any(|byte| *byte != 0) => return Ok(false),
            _ => {}
        }
    }
}
