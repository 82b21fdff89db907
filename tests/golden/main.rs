//! Parity with reference numbers of tiny models.
