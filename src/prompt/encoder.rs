//! Prompt encoders: small trainable networks whose output is the virtual tokens (p-tuning, Liu et al. 2021).
//!
//! Follows generation A of NeMo (`prompt_encoder.py` of 1.16): a trainable embedding [V, H] whose first rows are
//! replaced by the frozen word embeddings of the task's name, then a head. The name is never padded here, so a task's
//! prompt does not depend on which other tasks share its batch.

use anyhow::{Result, bail};
use candle_core::{Device, Tensor, Var};
use candle_nn::{Linear, Module};

use crate::sys::rng::SeededRng;

/// Which head turns the embedding into virtual tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncoderType {
    /// `num_layers` linear layers with ReLU between them, PyTorch's default initialisation.
    Mlp,
    /// Two linear layers with a tanh GELU between them, weights from N(0, init_std), biases zero.
    TpMlp,
}

impl EncoderType {
    /// The type that `encoder_type` of the configuration names.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "mlp" => Some(Self::Mlp),
            "tpmlp" => Some(Self::TpMlp),
            _ => None,
        }
    }
}

/// Sizes and initialisation of a [`PromptEncoder`]; keys of `model.p_tuning`.
#[derive(Clone, Debug)]
pub struct EncoderConfig {
    /// Head.
    pub encoder_type: EncoderType,
    /// V, rows of the output.
    pub total_virtual_tokens: usize,
    /// H, columns of input and output.
    pub hidden_size: usize,
    /// Width between the linear layers.
    pub encoder_hidden: usize,
    /// Number of linear layers of `mlp`, at least 2; `tpmlp` always has two.
    pub num_layers: usize,
    /// Standard deviation of `tpmlp` weights.
    pub init_std: f64,
}

/// The trainable network of p-tuning.
#[derive(Debug)]
pub struct PromptEncoder {
    encoder_type: EncoderType,
    embedding: Var, // [V, H]
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    name: String,
    weight: Var, // [out, in]
    bias: Var,   // [out]
}

impl PromptEncoder {
    /// A fresh encoder, f32, drawn from `rng`.
    ///
    /// # Errors
    /// When `mlp` is asked for fewer than two layers.
    pub fn new(config: &EncoderConfig, rng: &mut SeededRng, device: &Device) -> Result<Self> {
        let (virtual_tokens, hidden) = (config.total_virtual_tokens, config.hidden_size);
        let embedding = Tensor::from_vec(
            rng.normals(virtual_tokens * hidden, 1.0),
            (virtual_tokens, hidden),
            device,
        )?; // [V, H]
        let widths = match config.encoder_type {
            EncoderType::TpMlp => vec![hidden, config.encoder_hidden, hidden],
            EncoderType::Mlp if config.num_layers < 2 => bail!(
                "`p_tuning.num_layers` is {}: an mlp prompt encoder must have at least 2 layers",
                config.num_layers
            ),
            EncoderType::Mlp => {
                let mut widths = vec![config.encoder_hidden; config.num_layers + 1];
                widths[0] = hidden;
                widths[config.num_layers] = hidden;
                widths
            }
        };
        let mut layers = vec![];
        for (index, pair) in widths.windows(2).enumerate() {
            let (inputs, outputs) = (pair[0], pair[1]);
            let (name, weight, bias) = match config.encoder_type {
                EncoderType::TpMlp => (
                    ["first", "second"][index].to_owned(),
                    rng.normals(outputs * inputs, config.init_std),
                    vec![0f32; outputs],
                ),
                EncoderType::Mlp => {
                    let bound = 1.0 / (inputs as f64).sqrt();
                    // Activations take the odd places of the sequence, as in the upstream `mlp_head`.
                    let name = format!("mlp_head.{}", 2 * index);
                    (
                        name,
                        rng.uniforms(outputs * inputs, bound),
                        rng.uniforms(outputs, bound),
                    )
                }
            };
            layers.push(Layer {
                name,
                weight: Var::from_tensor(&Tensor::from_vec(weight, (outputs, inputs), device)?)?,
                bias: Var::from_tensor(&Tensor::from_vec(bias, outputs, device)?)?,
            });
        }
        Ok(Self {
            encoder_type: config.encoder_type,
            embedding: Var::from_tensor(&embedding)?,
            layers,
        })
    }

    /// The virtual tokens [V, H] of a task, differentiable in the encoder's parameters.
    ///
    /// `task_name` holds the frozen word embeddings [T, H] of the task's name; they take the place of the first
    /// min(T, V) rows of the trainable embedding.
    pub fn forward(&self, task_name: Option<&Tensor>) -> Result<Tensor> {
        let virtual_tokens = self.embedding.dim(0)?;
        let input = match task_name {
            None => self.embedding.as_tensor().clone(),
            Some(name) => {
                let rows = name.dim(0)?.min(virtual_tokens);
                let name = name.narrow(0, 0, rows)?;
                if rows == virtual_tokens {
                    name
                } else {
                    Tensor::cat(
                        &[
                            &name,
                            &self.embedding.narrow(0, rows, virtual_tokens - rows)?,
                        ],
                        0,
                    )?
                }
            }
        }; // [V, H]
        let mut hidden = input;
        for (index, layer) in self.layers.iter().enumerate() {
            if index > 0 {
                hidden = match self.encoder_type {
                    EncoderType::Mlp => hidden.relu()?,
                    EncoderType::TpMlp => hidden.gelu()?, // the tanh form
                }; // [V, h]
            }
            let linear = Linear::new(
                layer.weight.as_tensor().clone(),
                Some(layer.bias.as_tensor().clone()),
            );
            hidden = linear.forward(&hidden)?; // [V, out]
        }
        Ok(hidden) // [V, H]
    }

    /// Every trainable tensor with its upstream name, in a fixed order.
    pub fn named_parameters(&self) -> Vec<(String, Var)> {
        let mut parameters = vec![("embedding.weight".to_owned(), self.embedding.clone())];
        for layer in &self.layers {
            parameters.push((format!("{}.weight", layer.name), layer.weight.clone()));
            parameters.push((format!("{}.bias", layer.name), layer.bias.clone()));
        }
        parameters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(encoder_type: EncoderType) -> EncoderConfig {
        EncoderConfig {
            encoder_type,
            total_virtual_tokens: 5,
            hidden_size: 4,
            encoder_hidden: 6,
            num_layers: 3,
            init_std: 0.023,
        }
    }

    #[test]
    fn heads_have_the_upstream_names_and_shapes() {
        let shapes = |encoder_type| {
            let encoder = PromptEncoder::new(
                &config(encoder_type),
                &mut SeededRng::new(1, 0),
                &Device::Cpu,
            )
            .unwrap();
            let parameters = encoder.named_parameters();
            parameters
                .iter()
                .map(|(name, var)| format!("{name} {:?}", var.dims()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            shapes(EncoderType::TpMlp),
            [
                "embedding.weight [5, 4]",
                "first.weight [6, 4]",
                "first.bias [6]",
                "second.weight [4, 6]",
                "second.bias [4]"
            ]
        );
        assert_eq!(
            shapes(EncoderType::Mlp),
            [
                "embedding.weight [5, 4]",
                "mlp_head.0.weight [6, 4]",
                "mlp_head.0.bias [6]",
                "mlp_head.2.weight [6, 6]",
                "mlp_head.2.bias [6]",
                "mlp_head.4.weight [4, 6]",
                "mlp_head.4.bias [4]"
            ]
        );
    }

    #[test]
    fn rows_under_the_task_name_get_no_gradient_and_the_others_do() {
        let device = Device::Cpu;
        let mut rng = SeededRng::new(1, 0);
        let encoder = PromptEncoder::new(&config(EncoderType::TpMlp), &mut rng, &device).unwrap();
        let name = Tensor::from_vec(rng.normals(8, 1.0), (2, 4), &device).unwrap();
        let loss = encoder
            .forward(Some(&name))
            .unwrap()
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap();
        let gradients = loss.backward().unwrap();
        let rows = gradients
            .get(&encoder.embedding)
            .unwrap()
            .sqr()
            .unwrap()
            .sum(1)
            .unwrap();
        let rows = rows.to_vec1::<f32>().unwrap();
        assert_eq!(rows[..2], [0.0, 0.0]);
        assert!(rows[2..].iter().all(|norm| *norm > 0.0), "{rows:?}");
    }

    #[test]
    fn a_name_longer_than_the_prompt_is_cut() {
        let device = Device::Cpu;
        let mut rng = SeededRng::new(1, 0);
        let encoder = PromptEncoder::new(&config(EncoderType::Mlp), &mut rng, &device).unwrap();
        let name = Tensor::from_vec(rng.normals(28, 1.0), (7, 4), &device).unwrap();
        assert_eq!(encoder.forward(Some(&name)).unwrap().dims(), [5, 4]);
    }
}
