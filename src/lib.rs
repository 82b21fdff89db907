//! ptune tunes virtual tokens over a frozen GPT, T5 or mT5, and launches that work where its users have machines.
//!
//! The modules below stand in layer order, and a module may import only what its layer allows (`tests/it/layers.rs`
//! holds the table and checks it):
//!
//! ```text
//! main → cli ─┬─→ stages → launch ───────────────────────────────┐
//!             │   └────→ prepare ────────────────────────────────┤
//!             │   (feature "worker")                             ├─→ schema → config → yaml → diag, sys
//!             └─→ worker ─┬─→ eval → generate ─┐                 │
//!                         ├─→ train → dist ────┼─→ data → prompt ┘
//!                         └─→ export ──────────┘      └─→ model → tokenize → tensors
//! ```
//!
//! The left half (the launcher) and the right half (the worker) share one file: the resolved YAML that a stage writes
//! beside its job script. The launcher never loads a tensor; the worker never composes a configuration.

// Layer 0: ground.
pub mod diag;
pub mod sys;

// Layers 1 to 3: text to typed sections.
pub mod config;
pub mod schema;
pub mod yaml;

// Layer 4a: the launcher.
pub mod launch;
pub mod prepare;
pub mod report;
pub mod stages;

pub mod application;

// Layer 4b: the worker.
#[cfg(feature = "worker")]
pub mod data;
#[cfg(feature = "worker")]
pub mod dist;
#[cfg(feature = "worker")]
pub mod eval;
#[cfg(feature = "worker")]
pub mod export;
#[cfg(feature = "worker")]
pub mod generate;
#[cfg(feature = "worker")]
pub mod inspect;
#[cfg(feature = "worker")]
pub mod model;
#[cfg(feature = "worker")]
pub mod prompt;
#[cfg(feature = "worker")]
pub mod quickstart;
#[cfg(feature = "worker")]
pub mod tensors;
#[cfg(feature = "worker")]
pub mod tokenize;
#[cfg(feature = "worker")]
pub mod train;
#[cfg(feature = "worker")]
pub mod worker;

// Layer 5: the command line.
pub mod cli;
