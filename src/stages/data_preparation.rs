//! The data_preparation stage.

use std::path::{Path, PathBuf};

use super::{Input, Stage};
use crate::launch::Resources;
use crate::prepare;
use crate::schema::{DataPreparation, WorkerJob};

impl Stage for DataPreparation {
    fn job(&self) -> WorkerJob {
        WorkerJob::DataPreparation
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
            nodes: self.run.nodes.unwrap_or(1),
            ntasks_per_node: self.run.ntasks_per_node.unwrap_or(1),
            time_limit: self.run.time_limit.clone(),
        }
    }

    fn inputs(&self) -> Vec<Input> {
        // What the job fetches by itself need not be there.
        let is_needed = |url: &Option<String>| url.is_none() || !prepare::can_download();
        let mut inputs = vec![];
        if is_needed(&self.train_url) {
            inputs.push(Input {
                key: "train_file",
                path: self.train_file.clone(),
            });
        }
        if is_needed(&self.dev_url) {
            inputs.extend(self.dev_file.iter().map(|path| Input {
                key: "dev_file",
                path: path.clone(),
            }));
        }
        inputs
    }

    fn outputs(&self) -> Vec<PathBuf> {
        ["train", "val", "test_ground_truth", "test"]
            .map(|split| {
                self.output_dir
                    .join(format!("{}_{split}.jsonl", self.save_name_base))
            })
            .to_vec()
    }
}
