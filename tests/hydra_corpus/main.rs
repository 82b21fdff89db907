//! Composition against cases executed with real Hydra.
