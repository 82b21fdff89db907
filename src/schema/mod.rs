//! The typed meaning of the configuration's sections.
