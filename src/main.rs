//! Arguments to configuration to server; everything else is in the library.

fn main() {}
