//! The typed meaning of the configuration's sections: data, defaults and validation; no behaviour, no tensors.
//!
//! Both halves of ptune read these types: the launcher checks a section on the login node, the worker reads the same
//! section back from the resolved YAML beside its job script. Key names and defaults are those of NeMo's prompt
//! learning and of NeMo-Framework-Launcher; a key that only ptune knows says so in its documentation.

mod check;
mod cluster;
mod conversion;
mod data_preparation;
mod evaluation;
mod exp_manager;
mod inference;
mod lenient;
mod manifest;
mod monitored;
mod optim;
mod prompt_learning;
mod prompt_tuning;
mod run;
mod step_plan;
mod task_template;
mod time_limit;
mod trainer;
mod training;

pub use check::{
    Problems, Section, UnknownKey, read_section, read_value, section_problems, unknown_keys,
};
pub use cluster::ClusterSection;
pub use conversion::{Conversion, ConversionModel, ConversionRun, OutputFormat};
pub use data_preparation::{DataPreparation, DataPreparationRun};
pub use evaluation::{Evaluation, EvaluationData, EvaluationModel, EvaluationPlan, EvaluationRun};
pub use exp_manager::{
    CheckpointCallbackSection, EarlyStoppingSection, ExpManagerSection, WandbSection,
};
pub use inference::{EarlyStoppingSetting, InferenceSection, Never};
pub use manifest::JobManifest;
pub use monitored::{Monitored, canonical_metric};
pub use optim::{Epsilon, OptimSection, OptimizerName, PolicyName, ScheduleSection};
pub use prompt_learning::{
    PTuningSection, PromptEncoderType, PromptLearning, PromptLearningModel, VirtualPromptStyle,
};
pub use prompt_tuning::{OneOrMore, PromptInitMethod, PromptTuningSection};
pub use run::{RunSection, WorkerJob};
pub use step_plan::StepPlan;
pub use task_template::TaskTemplateSection;
pub use time_limit::TimeLimit;
pub use trainer::{Accelerator, Amount, ClipAlgorithm, Precision, TrainerSection};
pub use training::DataSection;
