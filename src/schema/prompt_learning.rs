//! `prompt_learning`: the whole section a tuning job is made from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    DataSection, ExpManagerSection, InferenceSection, OptimSection, Problems, PromptTuningSection,
    RunSection, Section, TaskTemplateSection, TrainerSection, lenient,
};

/// The whole section: what `ptune worker prompt_learning --config FILE` reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromptLearning {
    /// Name, place and scheduling of the job.
    pub run: RunSection,
    /// Length, precision and devices of the training.
    pub trainer: TrainerSection,
    /// Logs and checkpoints.
    pub exp_manager: ExpManagerSection,
    /// Base model, tasks, virtual tokens, data, optimiser.
    pub model: PromptLearningModel,
}

/// `model.virtual_prompt_style`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VirtualPromptStyle {
    /// A small network makes the virtual tokens (Liu et al., 2021).
    #[default]
    PTuning,
    /// The virtual tokens are trained themselves (Lester et al., 2021).
    PromptTuning,
    /// Nothing is trained.
    Inference,
    /// No virtual tokens are put in: the frozen model alone.
    NoPrompts,
}

/// `model.p_tuning.encoder_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptEncoderType {
    /// Linear layers with ReLU between.
    Mlp,
    /// Bidirectional LSTM, as wide as `encoder_hidden` in each direction, and two linear layers.
    Lstm,
    /// Two linear layers with GELU between; NeMo splits them over tensor-parallel ranks.
    #[default]
    TpMlp,
    /// The same with `encoder_hidden` shared by both directions and as the embedding's width, so that a large model's
    /// encoder stays small; NeMo 1.12 names it and cannot build it.
    BigLstm,
    /// The virtual tokens themselves, without a network and without the task's name: NeMo 1.17's prompt tuning.
    Embedding,
}

/// `model.p_tuning`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PTuningSection {
    /// Kind of network.
    #[serde(deserialize_with = "lenient::lower_case")]
    pub encoder_type: PromptEncoderType,
    /// Dropout between LSTM layers.
    pub dropout: f64,
    /// LSTM depth, or number of linear layers of `mlp`; not used by `tpmlp` and `embedding`.
    pub num_layers: usize,
    /// Width inside; 2048 for `tpmlp` and half of the model's width otherwise where it is not given.
    pub encoder_hidden: Option<usize>,
    /// Standard deviation of the first weights of `tpmlp`.
    pub init_std: f64,
    /// Go on with the encoder that `model.restore_path` holds; null does so where it holds one (ptune's own key).
    pub restore_encoder: Option<bool>,
    /// Keep the encoder in `model.nemo_path` beside the prompts that it made, so that it can be trained further (ptune's
    /// own key).
    pub save_encoder: bool,
}

impl Default for PTuningSection {
    fn default() -> Self {
        Self {
            encoder_type: PromptEncoderType::default(),
            dropout: 0.0,
            num_layers: 2,
            encoder_hidden: None,
            init_std: 0.023,
            restore_encoder: None,
            save_encoder: false,
        }
    }
}

/// `prompt_learning.model`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromptLearningModel {
    /// Start of every random stream.
    pub seed: u64,
    /// The result: an archive with the virtual tokens of all tasks.
    pub nemo_path: PathBuf,
    /// What is trained.
    pub virtual_prompt_style: VirtualPromptStyle,
    /// Ranks that share each layer.
    pub tensor_model_parallel_size: usize,
    /// Ranks that share the layers.
    pub pipeline_model_parallel_size: usize,
    /// T5: first pipeline rank of the decoder.
    pub pipeline_model_parallel_split_rank: Option<usize>,
    /// Product of the two sizes.
    pub model_parallel_size: Option<usize>,
    /// Not used: the base model says how long a row may be.
    pub encoder_seq_length: Option<usize>,
    /// T5: most tokens generated in validation.
    pub decoder_seq_length: usize,
    /// Rows in an optimiser step.
    pub global_batch_size: usize,
    /// Rows put through the model at once.
    pub micro_batch_size: usize,
    /// Like `global_batch_size`, for validation.
    pub validation_global_batch_size: Option<usize>,
    /// Like `micro_batch_size`, for validation.
    pub validation_micro_batch_size: Option<usize>,
    /// Leave out the last, smaller batch of a validation.
    pub validation_drop_last: bool,
    /// Generate and score in each validation.
    pub report_validation_metric: bool,
    /// The score told beside the loss: `accuracy`, `bleu`, `rouge`, or ptune's own `exact_match` and `f1`. All are measured.
    pub validation_metric: String,
    /// An earlier result to go on from, whose tasks are `existing_tasks`.
    pub restore_path: Option<PathBuf>,
    /// The frozen base model: a Hugging Face folder, a `.nemo`, or `builtin:quickstart`.
    pub language_model_path: PathBuf,
    /// A `tokenizer.json` in place of the base model's own (ptune's own key).
    pub tokenizer_path: Option<PathBuf>,
    /// Write `nemo_path` whenever validation improves.
    pub save_nemo_on_validation_end: bool,
    /// Tasks that stand in `restore_path` and stay as they are.
    #[serde(deserialize_with = "lenient::one_or_many")]
    pub existing_tasks: Vec<String>,
    /// Tasks to tune now.
    #[serde(deserialize_with = "lenient::one_or_many")]
    pub new_tasks: Vec<String>,
    /// Half precision: the first factor of the loss.
    pub native_amp_init_scale: f64,
    /// Half precision: good steps after which the factor doubles.
    pub native_amp_growth_interval: u64,
    /// Half precision: steps with a gradient that is not finite before the factor is halved.
    pub hysteresis: u64,
    /// Split activations along the sequence between tensor-parallel ranks.
    #[serde(deserialize_with = "lenient::null_is_default")]
    pub sequence_parallel: bool,
    /// The user guide's spelling of `sequence_parallel`.
    pub sequence_sequence_parallel: Option<bool>,
    /// `selective` or `full`: compute activations again in the backward pass rather than keep them.
    pub activations_checkpoint_granularity: Option<String>,
    /// `uniform` or `block`.
    pub activations_checkpoint_method: Option<String>,
    /// Layers in a block.
    pub activations_checkpoint_num_layers: Option<usize>,
    /// How rows of each task become prompts.
    pub task_templates: Vec<TaskTemplateSection>,
    /// First values of the virtual tokens of prompt tuning.
    #[serde(deserialize_with = "lenient::null_is_default")]
    pub prompt_tuning: PromptTuningSection,
    /// The name the original launcher's files have for `prompt_tuning`.
    #[serde(deserialize_with = "lenient::null_is_default")]
    pub prompt_learning: PromptTuningSection,
    /// The network of p-tuning.
    #[serde(deserialize_with = "lenient::null_is_default")]
    pub p_tuning: PTuningSection,
    /// Files and tokenisation.
    pub data: DataSection,
    /// Optimiser and schedule.
    pub optim: OptimSection,
    /// Generation in validation.
    #[serde(deserialize_with = "lenient::null_is_default")]
    pub inference: InferenceSection,
}

impl Default for PromptLearningModel {
    fn default() -> Self {
        Self {
            seed: 1234,
            nemo_path: "prompt.nemo".into(),
            virtual_prompt_style: VirtualPromptStyle::default(),
            tensor_model_parallel_size: 1,
            pipeline_model_parallel_size: 1,
            pipeline_model_parallel_split_rank: None,
            model_parallel_size: None,
            encoder_seq_length: None,
            decoder_seq_length: 40,
            global_batch_size: 8,
            micro_batch_size: 4,
            validation_global_batch_size: None,
            validation_micro_batch_size: None,
            validation_drop_last: false,
            report_validation_metric: false,
            validation_metric: "accuracy".into(),
            restore_path: None,
            language_model_path: PathBuf::new(),
            tokenizer_path: None,
            save_nemo_on_validation_end: false,
            existing_tasks: vec![],
            new_tasks: vec![],
            native_amp_init_scale: 4_294_967_296.0,
            native_amp_growth_interval: 1000,
            hysteresis: 2,
            sequence_parallel: false,
            sequence_sequence_parallel: None,
            activations_checkpoint_granularity: None,
            activations_checkpoint_method: None,
            activations_checkpoint_num_layers: None,
            task_templates: vec![],
            prompt_tuning: PromptTuningSection::default(),
            prompt_learning: PromptTuningSection::default(),
            p_tuning: PTuningSection::default(),
            data: DataSection::default(),
            optim: OptimSection::default(),
            inference: InferenceSection::default(),
        }
    }
}

impl PromptLearningModel {
    /// First values of new virtual tokens, under whichever of its two names they were given.
    pub fn initialisation(&self) -> &PromptTuningSection {
        if self.prompt_tuning.is_unset() {
            &self.prompt_learning
        } else {
            &self.prompt_tuning
        }
    }

    /// Whether activations are split along the sequence, under either spelling.
    pub fn is_sequence_parallel(&self) -> bool {
        self.sequence_sequence_parallel
            .unwrap_or(self.sequence_parallel)
    }

    /// Layers of each stack whose activations are computed again in the backward, out of `layers`: all of them for
    /// `uniform`, the first ones for `block`. `selective` asks for what is done in any case.
    pub fn recomputed_layers(&self, layers: usize) -> usize {
        if self.activations_checkpoint_granularity.as_deref() != Some("full") {
            return 0;
        }
        match self.activations_checkpoint_method.as_deref() {
            Some("block") => self
                .activations_checkpoint_num_layers
                .unwrap_or(1)
                .min(layers),
            _ => layers,
        }
    }

    /// Rows in an optimiser step: `global_batch_size`, as often as `trainer.accumulate_grad_batches` says.
    pub fn rows_per_step(&self, trainer: &TrainerSection) -> usize {
        self.global_batch_size
            .saturating_mul(trainer.accumulate_grad_batches.max(1))
    }

    /// Micro batches of one global batch when `data_parallel_size` ranks share it.
    pub fn micro_batches(&self, data_parallel_size: usize) -> usize {
        (self.global_batch_size / (self.micro_batch_size * data_parallel_size).max(1)).max(1)
    }
}

impl PromptLearning {
    /// Whether there is anything to validate on.
    pub fn validates(&self) -> bool {
        !self.model.data.validation_ds.is_empty() && !self.trainer.limit_val_batches.is_none()
    }

    /// Folder of logs, checkpoints and metrics.
    pub fn log_dir(&self) -> PathBuf {
        self.exp_manager
            .explicit_log_dir
            .clone()
            .or_else(|| self.exp_manager.exp_dir.clone())
            .unwrap_or_else(|| self.run.results_dir.join("results"))
    }
}

impl Section for PromptLearning {
    const TOLERATED: &'static [&'static str] = &[
        "name",
        "restore_from_path",
        "trainer.benchmark",
        "trainer.replace_sampler_ddp",
        "trainer.strategy",
        "trainer.num_sanity_val_steps",
        "trainer.enable_progress_bar",
        "trainer.enable_model_summary",
        "trainer.limit_test_batches",
        "exp_manager.create_fault_tolerance_callback",
        "exp_manager.fault_tolerance",
        "exp_manager.log_step_timing",
        "exp_manager.step_timing_kwargs",
        "exp_manager.use_datetime_version",
        "exp_manager.checkpoint_callback_params.always_save_nemo",
        "exp_manager.wandb_logger_kwargs",
        "model.precision",
        "model.megatron_amp_O2",
        "model.grad_clip_loss",
        "model.context_parallel_size",
        "model.virtual_pipeline_model_parallel_size",
        "model.fsdp",
        "model.nsys_profile",
        "model.ub_tp_comm_overlap",
        "model.data.train_cache_data_path",
        "model.data.validation_cache_data_path",
        "model.data.test_cache_data_path",
        "model.data.load_cache",
        "model.data.persistent_workers",
        "model.optim.sched.last_epoch",
    ];

    fn specimen() -> Self {
        let mut specimen = Self::default();
        specimen.model.task_templates = vec![TaskTemplateSection::default()];
        specimen
    }

    fn validate(&self, problems: &mut Problems) {
        self.run.validate(problems);
        self.trainer.validate(problems);
        self.exp_manager
            .validate(problems, self.model.report_validation_metric);
        let model = &self.model;
        model.data.validate(problems);
        model.optim.validate(problems);
        model.inference.validate(problems, "model.inference.");

        problems.require(
            !model.language_model_path.as_os_str().is_empty(),
            "model.language_model_path",
            "is empty: name the frozen base model, a Hugging Face folder or a `.nemo`",
        );
        problems.require(
            model.nemo_path.extension().is_some_and(|end| end == "nemo"),
            "model.nemo_path",
            format!("`{}` does not end in `.nemo`", model.nemo_path.display()),
        );
        let positive = "must be at least 1";
        for (key, size) in [
            (
                "model.tensor_model_parallel_size",
                model.tensor_model_parallel_size,
            ),
            (
                "model.pipeline_model_parallel_size",
                model.pipeline_model_parallel_size,
            ),
            ("model.micro_batch_size", model.micro_batch_size),
            ("model.global_batch_size", model.global_batch_size),
        ] {
            problems.require(size > 0, key, positive);
        }
        self.validate_batches(problems);
        self.validate_tasks(problems);
        problems.require(
            matches!(
                model.validation_metric.as_str(),
                "accuracy" | "exact_match" | "f1" | "bleu" | "rouge"
            ),
            "model.validation_metric",
            format!(
                "`{}` is not known, expected one of accuracy, bleu, rouge, exact_match, f1",
                model.validation_metric
            ),
        );
        problems.require(
            model.native_amp_init_scale > 0.0 && model.native_amp_init_scale.is_finite(),
            "model.native_amp_init_scale",
            "must be a positive number",
        );
        let encoder = &model.p_tuning;
        problems.require(
            encoder.encoder_type != PromptEncoderType::Mlp || encoder.num_layers >= 2,
            "model.p_tuning.num_layers",
            "the `mlp` encoder has at least 2 layers",
        );
        let is_lstm = matches!(
            encoder.encoder_type,
            PromptEncoderType::Lstm | PromptEncoderType::BigLstm
        );
        problems.require(
            !is_lstm || encoder.num_layers >= 1,
            "model.p_tuning.num_layers",
            "an LSTM has at least 1 layer",
        );
        problems.require(
            encoder.encoder_type != PromptEncoderType::BigLstm
                || encoder
                    .encoder_hidden
                    .is_none_or(|width| width.is_multiple_of(2)),
            "model.p_tuning.encoder_hidden",
            "`biglstm` gives half of it to each direction, so it must be even",
        );
        problems.require(
            encoder.init_std.is_finite() && encoder.init_std >= 0.0,
            "model.p_tuning.init_std",
            "must not be negative",
        );
        problems.require(
            (0.0..1.0).contains(&encoder.dropout),
            "model.p_tuning.dropout",
            "must be at least 0 and less than 1",
        );
        problems.require(
            encoder.encoder_hidden != Some(0),
            "model.p_tuning.encoder_hidden",
            positive,
        );
    }
}

impl PromptLearning {
    /// Devices, parallel sizes and batch sizes must divide one another.
    fn validate_batches(&self, problems: &mut Problems) {
        let model = &self.model;
        let devices = self.trainer.devices.saturating_mul(self.trainer.num_nodes);
        let model_parallel = model
            .tensor_model_parallel_size
            .saturating_mul(model.pipeline_model_parallel_size);
        let read = problems.knows(&[
            "trainer.devices",
            "trainer.num_nodes",
            "model.tensor_model_parallel_size",
            "model.pipeline_model_parallel_size",
            "model.micro_batch_size",
            "model.global_batch_size",
        ]);
        if !read
            || devices == 0
            || model_parallel == 0
            || model.micro_batch_size == 0
            || model.global_batch_size == 0
        {
            return;
        }
        if !devices.is_multiple_of(model_parallel) {
            problems.add(
                "model.tensor_model_parallel_size",
                format!(
                    "{} tensor-parallel times {} pipeline-parallel ranks do not divide the {devices} devices \
                     ({} nodes times {})",
                    model.tensor_model_parallel_size,
                    model.pipeline_model_parallel_size,
                    self.trainer.num_nodes,
                    self.trainer.devices
                ),
            );
            return;
        }
        let share = model
            .micro_batch_size
            .saturating_mul(devices / model_parallel);
        problems.require(
            model.global_batch_size.is_multiple_of(share),
            "model.global_batch_size",
            format!(
                "{} is not a multiple of {share}: micro batch {} times {} data-parallel ranks",
                model.global_batch_size,
                model.micro_batch_size,
                devices / model_parallel
            ),
        );
    }

    fn validate_tasks(&self, problems: &mut Problems) {
        let model = &self.model;
        problems.require(
            !model.task_templates.is_empty(),
            "model.task_templates",
            "is empty: each task needs a template",
        );
        let trains = matches!(
            model.virtual_prompt_style,
            VirtualPromptStyle::PTuning | VirtualPromptStyle::PromptTuning
        );
        problems.require(
            !trains || !model.new_tasks.is_empty(),
            "model.new_tasks",
            "is empty: name the tasks to tune",
        );
        problems.require(
            !trains || !model.data.train_ds.is_empty(),
            "model.data.train_ds",
            "is empty: name the files to train on",
        );
        if !problems.knows(&[
            "model.task_templates",
            "model.new_tasks",
            "model.existing_tasks",
        ]) {
            return;
        }
        for (index, template) in model.task_templates.iter().enumerate() {
            let splits: usize = template.virtual_token_splits.iter().sum();
            problems.require(
                template.virtual_token_splits.is_empty() || splits == template.total_virtual_tokens,
                &format!("model.task_templates.{index}.virtual_token_splits"),
                format!(
                    "add up to {splits}, and `total_virtual_tokens` is {}",
                    template.total_virtual_tokens
                ),
            );
            let markers = template
                .prompt_template
                .matches("<|VIRTUAL_PROMPT_")
                .count();
            problems.require(
                template.virtual_token_splits.is_empty()
                    || markers == 0
                    || markers == template.virtual_token_splits.len(),
                &format!("model.task_templates.{index}.virtual_token_splits"),
                format!(
                    "{} splits for {markers} markers `<|VIRTUAL_PROMPT_k|>` in `prompt_template`",
                    template.virtual_token_splits.len()
                ),
            );
        }
        for task in model.new_tasks.iter().chain(&model.existing_tasks) {
            problems.require(
                model
                    .task_templates
                    .iter()
                    .any(|template| template.taskname == *task),
                "model.task_templates",
                format!("there is no template for task `{task}`"),
            );
        }
        for task in &model.new_tasks {
            problems.require(
                !model.existing_tasks.contains(task),
                "model.new_tasks",
                format!("`{task}` is also one of `model.existing_tasks`"),
            );
        }
        problems.require(
            model.existing_tasks.is_empty() || model.restore_path.is_some(),
            "model.restore_path",
            "is null, but `model.existing_tasks` names tasks that it should hold",
        );
        model.initialisation().validate(model, problems);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{PromptInitMethod, read_value};

    const GOOD: &str = "
run: {name: a, results_dir: r, task_name: squad}
trainer: {devices: 2, num_nodes: 1}
model:
  language_model_path: gpt2
  nemo_path: a.nemo
  global_batch_size: 8
  micro_batch_size: 4
  new_tasks: [squad]
  task_templates: [{taskname: squad, prompt_template: '<|VIRTUAL_PROMPT_0|>{a}', total_virtual_tokens: 2,
                    virtual_token_splits: [2]}]
  data: {train_ds: train.jsonl}
";

    fn read(change: &str) -> Result<PromptLearning, crate::diag::Diagnostic> {
        let mut value: serde_yaml::Value = serde_yaml::from_str(GOOD).unwrap();
        let (path, new) = change.split_once('=').unwrap_or(("", ""));
        if !path.is_empty() {
            let mut node = &mut value;
            for key in path.split('.') {
                node = node
                    .as_mapping_mut()
                    .unwrap()
                    .entry(key.into())
                    .or_insert(serde_yaml::Value::Null);
            }
            *node = serde_yaml::from_str(new).unwrap();
        }
        read_value(&value, "prompt_learning")
    }

    #[test]
    fn one_path_alone_is_a_list_of_one() {
        let section = read("").unwrap();
        assert_eq!(section.model.data.train_ds, [PathBuf::from("train.jsonl")]);
    }

    #[test]
    fn batch_sizes_that_do_not_divide_are_explained() {
        let error = read("model.global_batch_size=12").unwrap_err();
        assert_eq!(
            error.title,
            "`prompt_learning.model.global_batch_size`: 12 is not a multiple of 8: micro batch 4 times 2 \
             data-parallel ranks"
        );
    }

    #[test]
    fn a_task_without_template_and_a_bad_optimiser_are_reported_together() {
        let error = read(
            "model={new_tasks: [x], optim: {name: sgdd}, language_model_path: a, nemo_path: b.nemo, \
             data: {train_ds: [c]}, global_batch_size: 8, task_templates: [{taskname: squad}]}",
        )
        .unwrap_err();
        assert_eq!(error.title, "2 problems in `prompt_learning`");
        assert!(error.notes[0].contains("`sgdd` is not known"), "{error}");
        assert!(
            error.notes[1].contains("no template for task `x`"),
            "{error}"
        );
    }

    #[test]
    fn encoders_are_named_in_any_case_and_misspelt_ones_get_the_nearest_name() {
        for (name, expected) in [
            ("TPMLP", PromptEncoderType::TpMlp),
            ("BigLSTM", PromptEncoderType::BigLstm),
            ("embedding", PromptEncoderType::Embedding),
        ] {
            let section = read(&format!("model.p_tuning={{encoder_type: {name}}}")).unwrap();
            assert_eq!(section.model.p_tuning.encoder_type, expected);
        }
        let error = read("model.p_tuning={encoder_type: biglsm}").unwrap_err();
        assert_eq!(error.hints, ["did you mean `biglstm`?"]);
        let error =
            read("model.p_tuning={encoder_type: biglstm, encoder_hidden: 7, num_layers: 0}");
        let error = error.unwrap_err();
        assert_eq!(error.title, "2 problems in `prompt_learning`");
    }

    #[test]
    fn the_launcher_files_name_for_prompt_tuning_is_read_too() {
        let section = read("model.prompt_learning={new_prompt_init_methods: [Random]}").unwrap();
        assert_eq!(
            section.model.initialisation().new_prompt_init_methods,
            [PromptInitMethod::Random]
        );
    }

    #[test]
    fn first_values_are_checked_all_at_once() {
        let error = read(
            "model.prompt_tuning={new_prompt_init_methods: [file, Task], new_prompt_init_text: [null, null, a]}",
        )
        .unwrap_err();
        let notes = error.notes.join("\n");
        for part in [
            "new_prompt_init_methods`: has 2 entries for 1 new tasks",
            "new_prompt_init_text`: has 3 entries",
            "new_prompt_init_file`: entry 0 is missing",
            "new_prompt_init_task`: entry 1 is missing",
            "`prompt_learning.model.restore_path`: is null, but the method of new task 1 is `task`",
        ] {
            assert!(notes.contains(part), "{part} in {notes}");
        }
        let error =
            read("model.prompt_tuning={new_prompt_init_methods: [sample_vocb]}").unwrap_err();
        assert_eq!(error.hints, ["did you mean `sample_vocab`?"]);
        let read = read(
            "model={restore_path: a.nemo, new_tasks: [x, y, z], prompt_tuning: {new_prompt_init_methods: \
             [TASK, task, labels], new_prompt_init_task: [squad, [a, b], null], \
             new_prompt_init_labels: [null, null, ['yes', 'no']]}, language_model_path: m, nemo_path: b.nemo, \
             data: {train_ds: [c]}, global_batch_size: 8, task_templates: [{taskname: x}, {taskname: y}, {taskname: z}]}",
        )
        .unwrap();
        let init = read.model.initialisation();
        assert_eq!(init.method(0), PromptInitMethod::Task);
        assert_eq!(
            init.new_prompt_init_task[1].as_ref().unwrap().names(),
            ["a", "b"]
        );
        assert_eq!(
            init.new_prompt_init_labels[2],
            Some(vec!["yes".to_owned(), "no".to_owned()])
        );
    }

    #[test]
    fn labels_that_yaml_takes_for_booleans_are_refused_with_the_line_in_quotes() {
        for (given, line) in [
            ("[[true, false]]", "[['yes', 'no']]"),
            ("[true, maybe]", "[['yes', 'maybe']]"),
            ("[null, [false, 3]]", "[null, ['no', '3']]"),
            ("[it's, b]", "[['it''s', 'b']]"),
        ] {
            let given = format!("model.prompt_tuning={{new_prompt_init_labels: {given}}}");
            let error = read(&given).unwrap_err();
            assert_eq!(
                error.hints,
                [format!("new_prompt_init_labels: {line}")],
                "{given}: {error}"
            );
        }
    }

    #[test]
    fn text_initialisation_without_a_text_is_refused() {
        let error = read("model.prompt_tuning={new_prompt_init_methods: [text]}").unwrap_err();
        assert!(error.title.contains("new_prompt_init_text"), "{error}");
    }
}
