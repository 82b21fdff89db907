//! The trainable part: virtual tokens and what makes them.
