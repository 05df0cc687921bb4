//! Client commands; knows the contract and the model only.

pub mod bench;
mod child;
pub mod demo;
