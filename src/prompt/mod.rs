//! The trainable part: virtual tokens, what makes them, and how they enter the input of a frozen model.
//!
//! `H` is the hidden size of the frozen model, `V` the number of virtual tokens of a task.

pub mod encoder;
pub mod init;
pub mod splice;
pub mod table;
pub mod template;
pub mod virtual_prompts;

pub use encoder::{EncoderConfig, PromptEncoder};
pub use splice::SplicePlan;
pub use table::PromptTable;
pub use virtual_prompts::VirtualPrompts;
