//! Answers from a model.
