//! The stages a launch can run, and how they depend on each other.
