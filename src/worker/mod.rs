//! Binds a resolved configuration to the modules that do the work.
