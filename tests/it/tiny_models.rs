//! Tiny random models with a byte-level tokenizer, made on the spot in Hugging Face layout.

use std::path::{Path, PathBuf};

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use ptune::sys::rng::SeededRng;
use serde_json::json;

/// The character that GPT-2's byte-level tokenizers write for each byte: printable bytes stand for themselves, the
/// others follow from U+0100 on.
fn byte_characters() -> Vec<char> {
    let mut next = 0x100u32;
    (0..=255u8)
        .map(|byte| {
            if matches!(byte, 33..=126 | 161..=172 | 174..=255) {
                char::from(byte)
            } else {
                next += 1;
                char::from_u32(next - 1).unwrap()
            }
        })
        .collect()
}

/// A byte-level tokenizer without merges: `special` tokens first, then one id for each byte.
fn write_tokenizer(folder: &Path, special: &[&str]) -> usize {
    let mut vocab = serde_json::Map::new();
    for (id, token) in special.iter().enumerate() {
        vocab.insert((*token).to_owned(), json!(id));
    }
    for character in byte_characters() {
        let id = vocab.len();
        vocab.insert(character.to_string(), json!(id));
    }
    let size = vocab.len();
    let added: Vec<_> = special
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab,
                  "merges": []}
    });
    fs_err::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    size
}

struct Weights {
    rng: SeededRng,
    tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    fn new() -> Self {
        Self {
            rng: SeededRng::new(42, 0),
            tensors: BTreeMap::new(),
        }
    }

    fn normal(&mut self, name: &str, shape: &[usize], std: f64) {
        let numbers = self.rng.normals(shape.iter().product(), std);
        self.tensors.insert(
            name.to_owned(),
            Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap(),
        );
    }

    fn constant(&mut self, name: &str, length: usize, value: f32) {
        self.tensors.insert(
            name.to_owned(),
            Tensor::from_vec(vec![value; length], length, &Device::Cpu).unwrap(),
        );
    }

    fn save(self, folder: &Path) {
        let bytes = safetensors::serialize(self.tensors.iter(), None).unwrap();
        fs_err::write(folder.join("model.safetensors"), bytes).unwrap();
    }
}

/// A random GPT-2 of two layers with a byte-level tokenizer, in Hugging Face layout.
pub(crate) fn tiny_gpt2(folder: &Path) -> PathBuf {
    fs_err::create_dir_all(folder).unwrap();
    let vocab = write_tokenizer(folder, &["<|endoftext|>"]);
    let (hidden, layers, positions) = (16, 2, 96);
    let config = json!({
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": vocab, "n_positions": positions,
        "n_ctx": positions, "n_embd": hidden, "n_layer": layers, "n_head": 2, "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5, "bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": true
    });
    fs_err::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut weights = Weights::new();
    weights.normal("wte.weight", &[vocab, hidden], 0.5);
    weights.normal("wpe.weight", &[positions, hidden], 0.1);
    for layer in 0..layers {
        let name = |rest: &str| format!("h.{layer}.{rest}");
        for norm in ["ln_1", "ln_2"] {
            weights.constant(&name(&format!("{norm}.weight")), hidden, 1.0);
            weights.constant(&name(&format!("{norm}.bias")), hidden, 0.0);
        }
        for (linear, inputs, outputs) in [
            ("attn.c_attn", hidden, 3 * hidden),
            ("attn.c_proj", hidden, hidden),
            ("mlp.c_fc", hidden, 4 * hidden),
            ("mlp.c_proj", 4 * hidden, hidden),
        ] {
            weights.normal(&name(&format!("{linear}.weight")), &[inputs, outputs], 0.2);
            weights.normal(&name(&format!("{linear}.bias")), &[outputs], 0.05);
        }
    }
    weights.constant("ln_f.weight", hidden, 1.0);
    weights.constant("ln_f.bias", hidden, 0.0);
    weights.save(folder);
    folder.to_owned()
}

/// A random T5 v1.1 of two plus two layers with a byte-level tokenizer, in Hugging Face layout.
pub(crate) fn tiny_t5(folder: &Path) -> PathBuf {
    fs_err::create_dir_all(folder).unwrap();
    let vocab = write_tokenizer(folder, &["<pad>", "</s>", "<unk>"]);
    let (hidden, width, heads, head, layers, buckets) = (16, 24, 2, 8, 2, 8);
    let config = json!({
        "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "is_encoder_decoder": true,
        "vocab_size": vocab, "d_model": hidden, "d_kv": head, "d_ff": width, "num_layers": layers,
        "num_decoder_layers": layers, "num_heads": heads, "relative_attention_num_buckets": buckets,
        "relative_attention_max_distance": 20, "layer_norm_epsilon": 1e-6, "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": false, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0
    });
    fs_err::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut weights = Weights::new();
    weights.normal("shared.weight", &[vocab, hidden], 1.0);
    weights.normal("lm_head.weight", &[vocab, hidden], 0.3);
    for stack in ["encoder", "decoder"] {
        for layer in 0..layers {
            let mut block = 0;
            let attentions: &[&str] = if stack == "encoder" {
                &["SelfAttention"]
            } else {
                &["SelfAttention", "EncDecAttention"]
            };
            for attention in attentions {
                let name = format!("{stack}.block.{layer}.layer.{block}");
                for projection in ["q", "k", "v"] {
                    weights.normal(
                        &format!("{name}.{attention}.{projection}.weight"),
                        &[heads * head, hidden],
                        0.2,
                    );
                }
                weights.normal(
                    &format!("{name}.{attention}.o.weight"),
                    &[hidden, heads * head],
                    0.2,
                );
                if layer == 0 && block == 0 {
                    weights.normal(
                        &format!("{name}.{attention}.relative_attention_bias.weight"),
                        &[buckets, heads],
                        0.5,
                    );
                }
                weights.constant(&format!("{name}.layer_norm.weight"), hidden, 1.0);
                block += 1;
            }
            let name = format!("{stack}.block.{layer}.layer.{block}");
            weights.normal(
                &format!("{name}.DenseReluDense.wi_0.weight"),
                &[width, hidden],
                0.2,
            );
            weights.normal(
                &format!("{name}.DenseReluDense.wi_1.weight"),
                &[width, hidden],
                0.2,
            );
            weights.normal(
                &format!("{name}.DenseReluDense.wo.weight"),
                &[hidden, width],
                0.2,
            );
            weights.constant(&format!("{name}.layer_norm.weight"), hidden, 1.0);
        }
        weights.constant(&format!("{stack}.final_layer_norm.weight"), hidden, 1.0);
    }
    weights.save(folder);
    folder.to_owned()
}
