//! Text that is written to a file in large pieces.

use std::io::{self, Write};

const FLUSH_BYTES: usize = 64 * 1024;

pub(super) struct Buffer<W> {
    pub bytes: Vec<u8>,
    file: W,
}

impl<W: Write> Buffer<W> {
    pub fn new(file: W) -> Self {
        Self { bytes: Vec::with_capacity(2 * FLUSH_BYTES), file }
    }

    pub fn flush_if_full(&mut self) -> io::Result<()> {
        if self.bytes.len() < FLUSH_BYTES {
            return Ok(());
        }
        self.file.write_all(&self.bytes)?;
        self.bytes.clear();
        // One that held a large cell is not kept.
        self.bytes.shrink_to(2 * FLUSH_BYTES);
        Ok(())
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.file.write_all(&self.bytes)?;
        self.file.flush()
    }
}
