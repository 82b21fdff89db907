//! The conversion stage.

use std::path::{Path, PathBuf};

use super::{Input, Stage};
use crate::launch::Resources;
use crate::schema::{Conversion, WorkerJob};

impl Stage for Conversion {
    fn job(&self) -> WorkerJob {
        WorkerJob::Conversion
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
        let model = &self.model;
        let mut inputs = vec![Input {
            key: "model.checkpoint_folder",
            path: model.checkpoint_folder.clone(),
        }];
        if model.is_whole_model() {
            return inputs;
        }
        for (key, path) in [
            ("model.hparams_file", &model.hparams_file),
            ("model.vocab_file", &model.vocab_file),
            ("model.merge_file", &model.merge_file),
            ("model.tokenizer_model", &model.tokenizer_model),
        ] {
            inputs.extend(path.iter().map(|path| Input {
                key,
                path: path.clone(),
            }));
        }
        inputs
    }

    fn outputs(&self) -> Vec<PathBuf> {
        let results = self.run.results_dir.join("results");
        vec![results.join(&self.run.nemo_file_name)]
    }
}
