//! The trainable part: virtual tokens and what makes them.

pub mod template;
