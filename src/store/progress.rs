//! What a long operation on a store has done so far.

/// Called with what is counted, such as `tasks checked`, how many there are so far, and how many there will be if that is known.
pub type Report<'a> = dyn FnMut(&'static str, u64, Option<u64>) + 'a;
