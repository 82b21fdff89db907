//! The prompt_learning stage.

use std::path::{Path, PathBuf};

use super::{Devices, Input, Stage};
use crate::launch::Resources;
use crate::schema::{PromptLearning, WorkerJob};

impl Stage for PromptLearning {
    fn job(&self) -> WorkerJob {
        WorkerJob::PromptLearning
    }

    fn name(&self) -> &str {
        &self.run.name
    }

    fn results_dir(&self) -> &Path {
        &self.run.results_dir
    }

    fn dependency(&self) -> Option<&str> {
        self.run.dependency.as_deref()
    }

    fn resources(&self) -> Resources {
        Resources {
            nodes: self.run.nodes.unwrap_or(self.trainer.num_nodes),
            ntasks_per_node: self.run.ntasks_per_node.unwrap_or(self.trainer.devices),
            time_limit: self.run.time_limit.clone(),
        }
    }

    fn inputs(&self) -> Vec<Input> {
        let model = &self.model;
        let mut inputs = vec![Input {
            key: "model.language_model_path",
            path: model.language_model_path.clone(),
        }];
        let mut add = |key, paths: &[PathBuf]| {
            inputs.extend(paths.iter().map(|path| Input {
                key,
                path: path.clone(),
            }));
        };
        add("model.tokenizer_path", model.tokenizer_path.as_slice());
        add("model.restore_path", model.restore_path.as_slice());
        add("model.data.train_ds", &model.data.train_ds);
        add("model.data.validation_ds", &model.data.validation_ds);
        inputs
    }

    fn outputs(&self) -> Vec<PathBuf> {
        vec![self.model.nemo_path.clone()]
    }

    fn state_folder(&self) -> PathBuf {
        self.log_dir()
    }

    fn devices(&self) -> Option<Devices> {
        Some(Devices {
            trainer_devices: self.trainer.devices,
            tensor_parallel: self.model.tensor_model_parallel_size,
        })
    }
}
