//! One suite that every implementation of the store passes.
