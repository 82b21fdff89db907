//! Hydra composition.
