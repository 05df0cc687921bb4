//! A hash index that grows in parts: moving a million entries at once would stop the scheduler for tens of milliseconds.

use hashbrown::HashTable;

/// Parts of a hash index, a power of two. They grow independently.
const SHARDS: usize = 256;

/// Indices of entries, by hash.
#[derive(Debug)]
pub struct HashIndex(Box<[HashTable<u32>]>);

impl Default for HashIndex {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| HashTable::new()).collect())
    }
}

impl HashIndex {
    /// Uses bits of the hash that `HashTable` does not use.
    fn shard(hash: u64) -> usize {
        usize::try_from(hash >> 40).unwrap_or_default() % SHARDS
    }

    pub fn find(&self, hash: u64, is_match: impl FnMut(&u32) -> bool) -> Option<u32> {
        self.0[Self::shard(hash)].find(hash, is_match).copied()
    }

    /// All with this hash.
    pub fn all(&self, hash: u64) -> impl Iterator<Item = u32> {
        self.0[Self::shard(hash)].iter_hash(hash).copied()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.iter().map(HashTable::len).sum()
    }

    pub fn insert(&mut self, hash: u64, index: u32, rehash: impl Fn(&u32) -> u64) {
        self.0[Self::shard(hash)].insert_unique(hash, index, rehash);
    }

    pub fn remove(&mut self, hash: u64, index: u32) {
        if let Ok(entry) = self.0[Self::shard(hash)].find_entry(hash, |other| *other == index) {
            entry.remove();
        }
    }
}
