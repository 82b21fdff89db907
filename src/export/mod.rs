//! Prompts in the files that other programs read.

pub mod nemo;
