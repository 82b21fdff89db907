//! Prompts to the files other programs read.
