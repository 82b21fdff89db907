//! The evaluation stage, in both of its shapes.

use std::path::{Path, PathBuf};

use super::{Devices, Input, Stage};
use crate::launch::Resources;
use crate::schema::{Evaluation, WorkerJob};

impl Stage for Evaluation {
    fn job(&self) -> WorkerJob {
        WorkerJob::Evaluation
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
        let trainer = self.trainer.as_ref();
        Resources {
            nodes: self
                .run
                .nodes
                .or(trainer.map(|trainer| trainer.num_nodes))
                .unwrap_or(1),
            ntasks_per_node: self
                .run
                .ntasks_per_node
                .or(trainer.map(|trainer| trainer.devices))
                .unwrap_or(1),
            time_limit: self.run.time_limit.clone(),
        }
    }

    fn inputs(&self) -> Vec<Input> {
        let gpt = self.model.is_some();
        let key = |gpt_key, t5_key| if gpt { gpt_key } else { t5_key };
        let plan = self.plan();
        let mut inputs = vec![];
        let mut add = |key, paths: &[PathBuf]| {
            inputs.extend(paths.iter().map(|path| Input {
                key,
                path: path.clone(),
            }));
        };
        add(
            key("model.language_model_path", "language_model_path"),
            plan.language_model_path.as_slice(),
        );
        add(
            key("model.nemo_model", "virtual_prompt_model_file"),
            plan.prompt_path.as_slice(),
        );
        add("tokenizer_path", self.tokenizer_path.as_slice());
        add(
            key("model.prompt_dataset_paths", "data.test_ds"),
            &plan.test_files,
        );
        add(
            key("model.ground_truth_file_path", "ground_truth_file_path"),
            plan.ground_truth.as_slice(),
        );
        inputs
    }

    fn outputs(&self) -> Vec<PathBuf> {
        let plan = self.plan();
        vec![plan.log_dir.join("metrics.json"), plan.predictions]
    }

    fn devices(&self) -> Option<Devices> {
        // The original sets no variables for the GPT shape, and never the one about connections for the other.
        self.model.is_none().then(|| Devices {
            trainer_devices: self.resources().ntasks_per_node,
            tensor_parallel: 1,
        })
    }
}
