//! (filled by its area)
