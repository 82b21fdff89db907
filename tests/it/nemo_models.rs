//! Base models of NeMo by the whole command: `prompt_learning.model.language_model_path=….nemo`.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use indexmap::IndexMap;
use ptune::model::config::{
    GptConfig, Layout, MegatronVariant, ModelConfig, NormKind, StackConfig, StackPositions,
    T5Config,
};
use ptune::model::feed_forward::Activation;
use ptune::sys::rng::SeededRng;
use ptune::tensors::nemo::NemoArchive;
use ptune::tensors::torch::StateValue;

use crate::sandbox::Sandbox;
use crate::tiny_models::{tiny_gpt2, tiny_t5};

const VOCABULARY: usize = 384;
const HIDDEN: usize = 16;

/// Writes a `.nemo` of random weights under the names that NeMo has for them.
fn write(path: &Path, config: &ModelConfig, layout: Layout, yaml: &str) -> PathBuf {
    let mut rng = SeededRng::new(7, 0);
    let mut state = IndexMap::new();
    for slot in config.names(layout).slots {
        let is_norm = slot.path.ends_with("norm.weight");
        for part in slot.parts {
            let count = part.shape.iter().product();
            let (mean, std) = if is_norm { (1.0, 0.05) } else { (0.0, 0.25) };
            let numbers: Vec<f32> = rng.normals(count, std).iter().map(|x| x + mean).collect();
            let tensor = Tensor::from_vec(numbers, part.shape, &Device::Cpu).unwrap();
            for key in part.keys {
                state.insert(key, StateValue::Tensor(tensor.clone()));
            }
        }
    }
    let archive = NemoArchive {
        model_config: yaml.to_owned(),
        weights: StateValue::Dict(state),
    };
    archive.write(path).unwrap();
    path.to_owned()
}

fn gpt(path: &Path) -> PathBuf {
    let config = GptConfig {
        vocab_size: VOCABULARY,
        hidden_size: HIDDEN,
        layers: 2,
        heads: 2,
        key_value_heads: 2,
        head_size: 8,
        feed_forward_size: 32,
        max_positions: 96,
        rotary: None,
        norm: NormKind::LayerNorm,
        norm_epsilon: 1e-5,
        activation: Activation::GeluTanh,
        gated: false,
        query_key_value_bias: true,
        output_bias: true,
        feed_forward_bias: true,
        parallel_residual: false,
        tied_head: true,
        scale_scores: true,
        scale_scores_by_layer: false,
    };
    let layout = Layout::MegatronGpt(MegatronVariant::default());
    let yaml = "encoder_seq_length: 96\nmax_position_embeddings: 96\nnum_layers: 2\nhidden_size: 16\n\
                ffn_hidden_size: 32\nnum_attention_heads: 2\n";
    write(path, &ModelConfig::Gpt(config), layout, yaml)
}

fn t5(path: &Path) -> PathBuf {
    let stack = StackConfig {
        layers: 1,
        heads: 2,
        head_size: 8,
        feed_forward_size: 24,
        positions: StackPositions::Learned { count: 96 },
        norm: NormKind::LayerNorm,
        norm_epsilon: 1e-5,
        activation: Activation::GeluTanh,
        gated: true,
        bias: true,
        scale_scores: true,
        scale_bias_by_layer: true,
    };
    let config = T5Config {
        vocab_size: VOCABULARY,
        hidden_size: HIDDEN,
        encoder: stack.clone(),
        decoder: stack,
        shared_tokens: true,
        tied_head: true,
        head_bias: true,
        scale_decoder_output: false,
    };
    let layout = Layout::MegatronT5 {
        encoder: MegatronVariant::default(),
        decoder: MegatronVariant::default(),
    };
    let yaml = "seq_length: 96\nmax_position_embeddings: 96\nnum_layers: 1\nhidden_size: 16\nffn_hidden_size: 24\n\
                num_attention_heads: 2\nkv_channels: 8\nactivation: geglu\napply_query_key_layer_scaling: true\n\
                share_token_embeddings: true\nshare_decoder_tokens_head_embeddings: true\n";
    write(path, &ModelConfig::T5(config), layout, yaml)
}

const TEMPLATE: &str = "[{taskname: squad, \
    prompt_template: '<|VIRTUAL_PROMPT_0|> {context} {question} {answer}', total_virtual_tokens: 4, \
    virtual_token_splits: [4], truncate_field: context, answer_only_loss: true, answer_field: answer}]";

/// Both stages in one command: a Hugging Face folder becomes an archive, and the archive is tuned.
#[test]
fn a_chain_converts_a_hugging_face_model_and_tunes_the_archive() {
    for (kind, conversion, file) in [
        ("gpt3", "gpt3/convert_gpt3", "megatron_gpt.nemo"),
        ("t5", "t5/convert_t5", "megatron_t5.nemo"),
    ] {
        let sandbox = Sandbox::new();
        let model = sandbox.path("model");
        let folder = match kind {
            "gpt3" => tiny_gpt2(&model),
            _ => tiny_t5(&model),
        };
        let converted = sandbox.path("converted");
        let words = [
            "stages=[conversion,prompt_learning]".to_owned(),
            format!("conversion={conversion}"),
            format!("conversion.run.results_dir={}", converted.display()),
            format!("conversion.model.checkpoint_folder={}", folder.display()),
            "conversion.model.verify=True".to_owned(),
        ];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let archive = converted.join("results").join(file);
        let losses = tune(&sandbox, kind, &archive, &words);
        assert!(archive.is_file());
        assert!(losses.last() < losses.first(), "{kind}: {losses:?}");
    }
}

/// Runs the shipped recipe of `kind` on `model` for a few steps, on this machine.
fn tune(sandbox: &Sandbox, kind: &str, model: &Path, more: &[&str]) -> Vec<f64> {
    let rows: String = (0..16)
        .map(|row| {
            let answer = ["even", "odd"][row % 2];
            format!(
                "{{\"taskname\":\"squad\",\"context\":\"row {row}\",\"question\":\"kind\",\"answer\":\"{answer}\"}}\n"
            )
        })
        .collect();
    let data = sandbox.write("rows.jsonl", rows);
    let results = sandbox.path(&format!("results_{kind}"));
    let set = |key: &str, value: &str| format!("prompt_learning.{key}={value}");
    let data = format!("[{}]", data.display());
    let mut words = vec![
        "cluster_type=interactive".to_owned(),
        "stages=[prompt_learning]".to_owned(),
        format!("base_results_dir={}", results.display()),
        format!("prompt_learning={kind}/squad"),
        set("run.results_dir", &results.display().to_string()),
        set("model.language_model_path", &model.display().to_string()),
        set("model.data.train_ds", &data),
        set("model.data.validation_ds", &data),
        set("trainer.max_steps", "20"),
        set("trainer.max_epochs", "-1"),
        set("trainer.val_check_interval", "10"),
        set("trainer.log_every_n_steps", "1"),
        set("trainer.accelerator", "cpu"),
        set("trainer.precision", "32"),
        set("trainer.devices", "1"),
        set("trainer.num_nodes", "1"),
        set("model.global_batch_size", "8"),
        set("model.micro_batch_size", "8"),
        set("model.task_templates", TEMPLATE),
        set("model.virtual_prompt_style", "prompt-tuning"),
        set("model.prompt_tuning.new_prompt_init_methods", "[random]"),
        set("model.prompt_tuning.new_prompt_init_text", "[null]"),
        set("model.optim.lr", "0.05"),
        set("model.optim.sched.warmup_steps", "1"),
        set("model.optim.sched.constant_steps", "0"),
    ];
    words.extend(more.iter().map(|&word| word.to_owned()));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ran = sandbox.expect(&words, 0);
    let metrics = sandbox.read(&format!("results_{kind}/results/metrics.jsonl"));
    let losses: Vec<f64> = metrics
        .lines()
        .filter_map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64()
        })
        .collect();
    assert_eq!(losses.len(), 20, "{}", ran.stderr);
    losses
}

fn falls(losses: &[f64]) {
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(
        mean(&losses[15..]) < 0.97 * mean(&losses[..3]),
        "{losses:?}"
    );
}

#[test]
fn a_gpt_of_nemo_is_tuned_by_the_whole_command() {
    let sandbox = Sandbox::new();
    let tokenizer = tiny_gpt2(&sandbox.path("tokenizer"));
    let model = gpt(&sandbox.path("megatron_gpt.nemo"));
    let tokenizer = format!(
        "prompt_learning.model.tokenizer_path={}",
        tokenizer.join("tokenizer.json").display()
    );
    falls(&tune(&sandbox, "gpt3", &model, &[&tokenizer]));
}

#[test]
fn a_t5_of_nemo_is_tuned_by_the_whole_command() {
    let sandbox = Sandbox::new();
    let tokenizer = tiny_t5(&sandbox.path("tokenizer"));
    let model = t5(&sandbox.path("megatron_t5.nemo"));
    let tokenizer = format!(
        "prompt_learning.model.tokenizer_path={}",
        tokenizer.join("tokenizer.json").display()
    );
    // This tokenizer has neither BOS nor sentinels, which a T5 of NeMo expects around answers.
    let more = [
        tokenizer.as_str(),
        "prompt_learning.model.data.decoder_starts_with_pad=true",
        "prompt_learning.model.data.add_sentinel_to_input=false",
    ];
    falls(&tune(&sandbox, "t5", &model, &more));
}
