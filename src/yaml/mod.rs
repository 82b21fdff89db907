//! YAML as OmegaConf reads and writes it.
