//! Text files to batches.
