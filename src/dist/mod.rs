//! Ranks that train together.
