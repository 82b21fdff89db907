//! Frozen GPT and T5 models.
