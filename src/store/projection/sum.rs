//! A sum of checksums, by which two lists of entries are compared that may be in different orders.

use crate::store::record::checksum;

#[derive(Clone, Copy, Default, PartialEq)]
pub(super) struct Sum {
    pub(super) entries: u64,
    checksums: u64,
}

impl Sum {
    pub(super) fn add(&mut self, seq: u64, texts: &[&[u8]]) {
        let key = seq.to_le_bytes();
        let crc = match texts {
            [one] => checksum(&[&key, one]),
            [one, two] => checksum(&[&key, one, b"\0", two]),
            _ => checksum(&[&key]),
        };
        self.entries += 1;
        self.checksums = self.checksums.wrapping_add(crc.into());
    }
}
