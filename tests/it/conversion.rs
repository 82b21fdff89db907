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

/// Every tensor of `before` is in `after`, number for number.
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
        assert_eq!(found.dims(), expected.dims(), "{name}");
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
        // A T5 of Hugging Face has a head of its own, which NeMo knows in one stage alone.
        let stages = if name.contains("t5") { 1 } else { 2 };
        let parts = format!(
            "output_tensor_model_parallel_size: {ranks}, output_pipeline_model_parallel_size: {stages}"
        );
        let there = convert(&sandbox, &fixture(name), "there", &parts, 0);
        assert!(there.stderr.contains("verified"), "{}", there.stderr);
        let archive = sandbox.path("there/results/model.nemo");
        let files = NemoFiles::open(&archive).unwrap();
        let weights = files
            .names()
            .filter(|name| name.ends_with("model_weights.ckpt"))
            .count();
        assert_eq!(weights, stages * ranks, "{name}");

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
        // NeMo wants one table for everything in a T5 in stages.
        let stages = match name {
            "nemo_t5_untied_tables" | "nemo_t5_from_hugging_face_tp2" => 1,
            _ => 2,
        };
        let cut = format!(
            "output_tensor_model_parallel_size: 2, output_pipeline_model_parallel_size: {stages}"
        );
        convert(&sandbox, &joined, "cut", &cut, 0);
        let files = NemoFiles::open(&sandbox.path("cut/results/model.nemo")).unwrap();
        assert_eq!(
            files
                .names()
                .filter(|name| name.ends_with("model_weights.ckpt"))
                .count(),
            2 * stages
        );
        let yaml = files.read_text("model_config.yaml").unwrap();
        assert!(yaml.contains("tensor_model_parallel_size: 2"), "{yaml}");
    }
}

fn rows(tensor: &Tensor) -> usize {
    tensor.dim(0).unwrap()
}

/// Every tensor of every rank of `expected`, by its file and key, is in `found` number for number.
fn same_archives(name: &str, found: &Path, expected: &Path) {
    let found = NemoFiles::open(found).unwrap();
    let expected = NemoFiles::open(expected).unwrap();
    let mut compared = 0;
    for member in expected
        .names()
        .filter(|name| name.ends_with("model_weights.ckpt"))
    {
        let found = found.torch(member).unwrap();
        let expected = expected.torch(member).unwrap();
        // The program copies the table into the last stage for a head of its own too, where NeMo has none.
        let has_head = found.info("model.output_layer.weight").is_some();
        let mut keys = expected.names();
        keys.retain(|key| !(has_head && key == "model.word_embeddings.weight"));
        assert_eq!(found.names(), keys, "{name}: {member}");
        for key in keys {
            let mut a = found.load(&key, &Device::Cpu).unwrap();
            let b = expected.load(&key, &Device::Cpu).unwrap();
            if key.ends_with(".word_embeddings.weight") && rows(&a) > rows(&b) {
                // GPT-2's table is padded as NeMo pads it.
                a = a.narrow(0, 0, rows(&b)).unwrap();
            }
            assert_eq!(a.dims(), b.dims(), "{name}: {member}: {key}");
            assert!(
                largest(&(a - b).unwrap()) == 0.0,
                "{name}: {member}: {key} differs"
            );
            compared += 1;
        }
    }
    assert!(compared > 10, "{name}: {compared} tensors were compared");
}

/// `tests/golden/fixtures/make_megatron.py` lays the tensors of NeMo out and cuts them for ranks by itself.
#[test]
fn what_is_written_lies_as_an_independent_program_lays_it_out() {
    for (name, ranks, stages) in [
        ("nemo_gpt_scaled_by_layer", 1, 1),
        ("nemo_gpt_layernorm1p_rope_tp2", 2, 1),
        ("nemo_gpt_legacy_heads_tp2_pp2", 2, 2),
        ("nemo_gpt_transformer_engine_tp2", 2, 1),
        ("nemo_gpt_core_groups_tp2_pp2", 2, 2),
        ("nemo_t5_learned_tp2", 2, 1),
        ("nemo_t5_from_hugging_face_tp2", 2, 1),
        ("nemo_t5_untied_tables", 1, 1),
    ] {
        let sandbox = Sandbox::new();
        let model = fixture(name).join("model.nemo");
        let one = "output_tensor_model_parallel_size: 1, output_pipeline_model_parallel_size: 1";
        convert(&sandbox, &model, "one", one, 0);
        let parts = format!(
            "output_tensor_model_parallel_size: {ranks}, output_pipeline_model_parallel_size: {stages}"
        );
        let joined = sandbox.path("one/results/model.nemo");
        convert(&sandbox, &joined, "again", &parts, 0);
        same_archives(name, &sandbox.path("again/results/model.nemo"), &model);
    }
}

#[test]
fn what_goes_through_hugging_face_lies_as_an_independent_program_lays_it_out() {
    for (name, ranks, stages) in [
        // GPT-2: heads in turns, transposed weights.
        ("nemo_gpt_scaled_by_layer", 1, 1),
        // Llama: groups of queries, gate and value, norms beside their linear layers.
        ("nemo_gpt_core_groups_tp2_pp2", 2, 2),
        // T5 1.1: projections one after the other.
        ("nemo_t5_from_hugging_face_tp2", 2, 1),
    ] {
        let sandbox = Sandbox::new();
        let model = fixture(name).join("model.nemo");
        convert(&sandbox, &model, "there", "output_format: hugging_face", 0);
        let parts = format!(
            "output_tensor_model_parallel_size: {ranks}, output_pipeline_model_parallel_size: {stages}"
        );
        let folder = sandbox.path("there/results/model");
        convert(&sandbox, &folder, "back", &parts, 0);
        same_archives(name, &sandbox.path("back/results/model.nemo"), &model);
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
    let ran = convert(&sandbox, &fixture("gpt2_long_rows"), "d", parts, 2);
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

#[test]
fn a_checkpoint_of_lightning_with_omegaconf_objects_becomes_an_archive() {
    let sandbox = Sandbox::new();
    let torch = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/torch");
    fs_err::create_dir_all(sandbox.path("checkpoints")).unwrap();
    fs_err::copy(
        torch.join("lightning.ckpt"),
        sandbox.path("checkpoints/last.ckpt"),
    )
    .unwrap();
    let more = format!("hparams_file: {}", torch.join("lightning.yaml").display());
    let ran = convert(&sandbox, &sandbox.path("checkpoints"), "out", &more, 0);
    assert!(ran.stderr.contains("verified"), "{}", ran.stderr);
}

fn distributed(name: &str) -> PathBuf {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/distributed");
    cases.join(name)
}

#[test]
fn a_distributed_checkpoint_is_cut_for_ranks_again_number_for_number() {
    for name in ["stacked.nemo", "whole.nemo"] {
        let sandbox = Sandbox::new();
        // As an archive, and as the folder it was unpacked to.
        let archive = fs_err::read(distributed(name)).unwrap();
        tar::Archive::new(&archive[..])
            .unpack(sandbox.path("folder"))
            .unwrap();
        let parts = "output_tensor_model_parallel_size: 2, output_pipeline_model_parallel_size: 2";
        for (number, model) in [distributed(name), sandbox.path("folder")]
            .iter()
            .enumerate()
        {
            let out = format!("out{number}");
            convert(&sandbox, model, &out, parts, 0);
            let written = sandbox.path(&format!("{out}/results/model.nemo"));
            let expected = fixture("nemo_gpt_core_groups_tp2_pp2").join("model.nemo");
            same_archives(name, &written, &expected);
            let files = NemoFiles::open(&written).unwrap();
            let left: Vec<&str> = files
                .names()
                .filter(|name| name.contains("weights/"))
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

#[test]
fn a_training_that_left_distributed_checkpoints_becomes_an_archive() {
    let sandbox = Sandbox::new();
    let files = NemoFiles::open(&distributed("stacked.nemo")).unwrap();
    let config = files.read_text("model_config.yaml").unwrap();
    let config: String = config.lines().map(|line| format!("  {line}\n")).collect();
    sandbox.write("hparams.yaml", format!("cfg:\n{config}"));
    let checkpoint = "checkpoints/megatron_gpt--val_loss=2.00-step=10-consumed_samples=80-last";
    for name in files.names().filter(|name| *name != "model_config.yaml") {
        let short = name.rsplit('/').next().unwrap();
        sandbox.write(&format!("{checkpoint}/{short}"), member(&files, name));
    }
    let hparams = sandbox.path("hparams.yaml");
    let parts = "output_tensor_model_parallel_size: 2, output_pipeline_model_parallel_size: 2";
    let name = checkpoint.rsplit('/').next().unwrap();
    for (number, name) in ["latest", &format!("'{name}.ckpt'")].iter().enumerate() {
        let more = format!(
            "checkpoint_name: {name}, hparams_file: {}, {parts}",
            hparams.display()
        );
        let out = format!("out{number}");
        convert(&sandbox, &sandbox.path("checkpoints"), &out, &more, 0);
        let expected = fixture("nemo_gpt_core_groups_tp2_pp2").join("model.nemo");
        let written = sandbox.path(&format!("{out}/results/model.nemo"));
        same_archives(name, &written, &expected);
    }
}

#[test]
fn a_distributed_checkpoint_that_is_damaged_or_of_another_format_is_refused_with_what_is_wrong() {
    let cut = |sandbox: &Sandbox| {
        let file = sandbox.path("model/model_weights/__3_0.distcp");
        let bytes = fs_err::read(&file).unwrap();
        fs_err::write(&file, &bytes[..bytes.len() - 10]).unwrap();
    };
    let lost = |sandbox: &Sandbox| {
        fs_err::remove_file(sandbox.path("model/model_weights/__2_1.distcp")).unwrap();
    };
    let zeros = |sandbox: &Sandbox| {
        let file = sandbox.path("model/model_weights/__1_0.distcp");
        let size = fs_err::read(&file).unwrap().len();
        fs_err::write(&file, vec![0; size]).unwrap();
    };
    let undescribed = |sandbox: &Sandbox| {
        fs_err::remove_file(sandbox.path("model/model_weights/.metadata")).unwrap();
    };
    let other = |sandbox: &Sandbox| {
        let text = r#"{"sharded_backend": "fsdp_dtensor", "sharded_backend_version": 1}"#;
        sandbox.write("model/model_weights/metadata.json", text);
    };
    type Damage<'a> = &'a dyn Fn(&Sandbox);
    let all: [(Damage<'_>, &[&str]); 5] = [
        (&cut, &["__3_0.distcp", "past the end"]),
        (&lost, &["`__2_1.distcp` is missing"]),
        (&zeros, &["__1_0.distcp", "not a torch checkpoint"]),
        (&undescribed, &["its `.metadata` is missing"]),
        (&other, &["`fsdp_dtensor`", "`torch_dist` is read"]),
    ];
    for (damage, parts) in all {
        let sandbox = Sandbox::new();
        let archive = fs_err::read(distributed("stacked.nemo")).unwrap();
        tar::Archive::new(&archive[..])
            .unpack(sandbox.path("model"))
            .unwrap();
        damage(&sandbox);
        let ran = convert(&sandbox, &sandbox.path("model"), "out", "", 1);
        for part in parts {
            assert!(ran.stderr.contains(part), "{part} not in {}", ran.stderr);
        }
    }
    let sandbox = Sandbox::new();
    sandbox.write("two/context/model.yaml", "config: {}\n");
    sandbox.write("two/weights/.metadata", "");
    let ran = convert(&sandbox, &sandbox.path("two"), "out", "", 2);
    assert!(ran.stderr.contains("llm.export_ckpt"), "{}", ran.stderr);
    let two = sandbox.path("two");
    let ran = sandbox.expect(&["inspect", two.to_str().unwrap()], 1);
    assert!(ran.stderr.contains("llm.export_ckpt"), "{}", ran.stderr);

    sandbox.write("model/model_config.yaml", "hidden_size: 8\n");
    sandbox.write("model/model_weights/model.decoder.weight/.zarray", "");
    let ran = convert(&sandbox, &sandbox.path("model"), "out", "", 1);
    for part in [
        "`zarr`",
        "`torch_dist` is",
        "convert_zarr_to_torch_dist.py",
        "convert_*_nemo_to_hf.py",
    ] {
        assert!(ran.stderr.contains(part), "{part} not in {}", ran.stderr);
    }
}

fn member(files: &NemoFiles, name: &str) -> Vec<u8> {
    files.read(name).unwrap().into_owned()
}
