//! The conversion job as a whole command, on the golden models of both worlds; each run compares logits at its end.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use ptune::tensors::TensorSource;
use ptune::tensors::nemo_files::NemoFiles;
use ptune::tensors::safetensors::SafetensorsFile;

use crate::sandbox::{Ran, Sandbox};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/fixtures")
        .join(name)
}

/// Converts `model`; `more` are further keys of `conversion.model`.
fn convert(sandbox: &Sandbox, model: &Path, name: &str, more: &str, status: i32) -> Ran {
    let text = format!(
        "run: {{name: convert, results_dir: {name}, nemo_file_name: model.nemo}}\n\
         model: {{checkpoint_folder: {}, verify: true, {more}}}\n",
        model.display()
    );
    let config = format!("{name}.yaml");
    sandbox.write(&config, text);
    sandbox.expect(&["worker", "conversion", "--config", &config], status)
}

fn largest(tensor: &Tensor) -> f32 {
    let wide = tensor.to_dtype(candle_core::DType::F32).unwrap();
    wide.abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

/// Every tensor of `before` is in `after`, number for number; vocabularies may have grown.
fn same_numbers(before: &Path, after: &Path) {
    let before = SafetensorsFile::open_folder(before).unwrap();
    let after = SafetensorsFile::open_folder(after).unwrap();
    for name in before.names() {
        let expected = before.load(&name, &Device::Cpu).unwrap();
        let key = match after.info(&name) {
            Some(_) => name.clone(),
            None => format!("transformer.{name}"),
        };
        let found = after.load(&key, &Device::Cpu).unwrap();
        assert_eq!(found.dtype(), expected.dtype(), "{name}");
        let rows = expected.dim(0).unwrap();
        let found = found.narrow(0, 0, rows).unwrap();
        assert!(
            largest(&(found - &expected).unwrap()) == 0.0,
            "{name} differs"
        );
    }
}

#[test]
fn models_of_hugging_face_become_archives_in_parts_and_come_back_number_for_number() {
    for name in [
        "gpt2_long_rows",
        "t5_gated_silu",
        "mt5_far_distances",
        "qwen2",
        "llama_bf16_shards",
        "llama_linear_biases",
    ] {
        let sandbox = Sandbox::new();
        // One key-value head or three heads cannot be shared by two ranks.
        let ranks = match name {
            "qwen2" | "t5_gated_silu" | "mt5_far_distances" => 1,
            _ => 2,
        };
        let parts = format!(
            "output_tensor_model_parallel_size: {ranks}, output_pipeline_model_parallel_size: 2"
        );
        let there = convert(&sandbox, &fixture(name), "there", &parts, 0);
        assert!(there.stderr.contains("verified"), "{}", there.stderr);
        let archive = sandbox.path("there/results/model.nemo");
        let files = NemoFiles::open(&archive).unwrap();
        let weights = files.names().filter(|name| name.ends_with(".ckpt")).count();
        assert_eq!(weights, 2 * ranks, "{name}");

        let back = "output_format: hugging_face";
        convert(&sandbox, &archive, "back", back, 0);
        same_numbers(&fixture(name), &sandbox.path("back/results/model"));
    }
}

#[test]
fn archives_of_nemo_are_cut_and_joined_for_other_ranks() {
    for name in [
        "nemo_gpt_layernorm1p_rope_tp2",
        "nemo_gpt_legacy_heads_tp2_pp2",
        "nemo_gpt_transformer_engine_tp2",
        "nemo_gpt_core_groups_tp2_pp2",
        "nemo_t5_learned_tp2",
        "nemo_t5_relative_scaled_by_layer_tp2_pp2",
        "nemo_t5_from_hugging_face_tp2",
        "nemo_t5_untied_tables",
    ] {
        let sandbox = Sandbox::new();
        let model = fixture(name).join("model.nemo");
        let one = "output_tensor_model_parallel_size: 1, output_pipeline_model_parallel_size: 1";
        convert(&sandbox, &model, "one", one, 0);
        let joined = sandbox.path("one/results/model.nemo");
        // NeMo wants shared tables for a T5 in stages.
        let stages = if name == "nemo_t5_untied_tables" {
            1
        } else {
            2
        };
        let stages = match name {
            "nemo_t5_relative_scaled_by_layer_tp2_pp2" => 2,
            _ => stages,
        };
        let cut = format!(
            "output_tensor_model_parallel_size: 2, output_pipeline_model_parallel_size: {stages}"
        );
        convert(&sandbox, &joined, "cut", &cut, 0);
        let files = NemoFiles::open(&sandbox.path("cut/results/model.nemo")).unwrap();
        assert_eq!(
            files.names().filter(|name| name.ends_with(".ckpt")).count(),
            2 * stages
        );
        let yaml = files.read_text("model_config.yaml").unwrap();
        assert!(yaml.contains("tensor_model_parallel_size: 2"), "{yaml}");
    }
}

#[test]
fn a_model_that_the_other_side_has_not_is_refused_with_all_that_is_missing() {
    let sandbox = Sandbox::new();
    let ran = convert(&sandbox, &fixture("t5_relu_tied"), "a", "", 1);
    for part in ["NeMo has no such model", "T5 1.0", "activation Relu"] {
        assert!(ran.stderr.contains(part), "{part} not in {}", ran.stderr);
    }
    let ran = convert(&sandbox, &fixture("gpt_neox_parallel"), "b", "", 1);
    assert!(ran.stderr.contains("beside each other"), "{}", ran.stderr);
    let model = fixture("nemo_t5_learned_tp2").join("model.nemo");
    let ran = convert(&sandbox, &model, "c", "output_format: hugging_face", 1);
    for part in [
        "transformers has no such model",
        "LayerNorm",
        "learned positions",
    ] {
        assert!(ran.stderr.contains(part), "{part} not in {}", ran.stderr);
    }
    let parts = "output_tensor_model_parallel_size: 3";
    let ran = convert(&sandbox, &fixture("gpt2_long_rows"), "d", parts, 1);
    assert!(ran.stderr.contains("evenly to 3"), "{}", ran.stderr);
}

#[test]
fn the_newest_checkpoint_of_a_training_becomes_an_archive() {
    let sandbox = Sandbox::new();
    let files = NemoFiles::open(&fixture("nemo_gpt_scaled_by_layer").join("model.nemo")).unwrap();
    let config = files.read_text("model_config.yaml").unwrap();
    let config: String = config.lines().map(|line| format!("  {line}\n")).collect();
    sandbox.write("hparams.yaml", format!("cfg:\n{config}"));
    sandbox.write("checkpoints/old.ckpt", "not a checkpoint");
    std::thread::sleep(std::time::Duration::from_millis(20));
    // As Lightning saves it: the weights are one entry of many.
    let weights = ptune::tensors::torch::read(&member(&files, "model_weights.ckpt")).unwrap();
    let state = ptune::tensors::torch::StateValue::Dict(indexmap::IndexMap::from([
        (
            "epoch".to_owned(),
            ptune::tensors::torch::StateValue::Integer(3),
        ),
        ("state_dict".to_owned(), weights),
    ]));
    let bytes = ptune::tensors::torch::write(&state).unwrap();
    sandbox.write("checkpoints/new.ckpt", bytes);
    let more = format!(
        "checkpoint_name: latest, hparams_file: {}",
        sandbox.path("hparams.yaml").display()
    );
    let ran = convert(&sandbox, &sandbox.path("checkpoints"), "out", &more, 0);
    assert!(ran.stderr.contains("verified"), "{}", ran.stderr);
    let empty = sandbox.path("empty");
    fs_err::create_dir_all(&empty).unwrap();
    let ran = convert(&sandbox, &empty, "none", "", 2);
    assert!(ran.stderr.contains("holds no model"), "{}", ran.stderr);
}

fn member(files: &NemoFiles, name: &str) -> Vec<u8> {
    files.read(name).unwrap().into_owned()
}
