//! Bytes to named tensors and back; knows no model.
