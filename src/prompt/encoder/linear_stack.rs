//! Linear layers with an activation between them: the heads `mlp` and `tpmlp`, and what stands on an LSTM.

use anyhow::Result;
use candle_core::{Device, Tensor, Var};

use crate::model::feed_forward::Activation;
use crate::model::trained::{activated, linear};
use crate::sys::rng::SeededRng;

/// How first weights are drawn.
#[derive(Clone, Copy, Debug)]
pub(super) enum FirstValues {
    /// PyTorch's for a linear layer: weights and biases uniform in ±1/√inputs.
    Uniform,
    /// Weights from N(0, std), biases zero.
    Normal { std: f64 },
}

/// The layers in order.
#[derive(Debug)]
pub(super) struct LinearStack {
    layers: Vec<NamedLinear>,
    activation: Activation,
}

#[derive(Debug)]
struct NamedLinear {
    name: String,
    weight: Var, // [out, in]
    bias: Var,   // [out]
}

impl LinearStack {
    /// Layers between neighbours of `widths`; `name(index)` is the name of each.
    pub(super) fn new(
        widths: &[usize],
        activation: Activation,
        first_values: FirstValues,
        name: impl Fn(usize) -> String,
        rng: &mut SeededRng,
        device: &Device,
    ) -> Result<Self> {
        let mut layers = vec![];
        for (index, pair) in widths.windows(2).enumerate() {
            let (inputs, outputs) = (pair[0], pair[1]);
            let (weight, bias) = match first_values {
                FirstValues::Normal { std } => {
                    (rng.normals(outputs * inputs, std), vec![0f32; outputs])
                }
                FirstValues::Uniform => {
                    let bound = 1.0 / (inputs as f64).sqrt();
                    (
                        rng.uniforms(outputs * inputs, bound),
                        rng.uniforms(outputs, bound),
                    )
                }
            };
            layers.push(NamedLinear {
                name: name(index),
                weight: Var::from_tensor(&Tensor::from_vec(weight, (outputs, inputs), device)?)?,
                bias: Var::from_tensor(&Tensor::from_vec(bias, outputs, device)?)?,
            });
        }
        Ok(Self { layers, activation })
    }

    /// Numbers in a stack of these widths.
    pub(super) fn parameter_count(widths: &[usize]) -> usize {
        widths.windows(2).map(|pair| (pair[0] + 1) * pair[1]).sum()
    }

    /// [V, first width] to [V, last width].
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let mut hidden = input.clone();
        for (index, layer) in self.layers.iter().enumerate() {
            if index > 0 {
                hidden = activated(&hidden, self.activation)?; // [V, in]
            }
            hidden = linear(&hidden, &layer.weight, &layer.bias)?; // [V, out]
        }
        Ok(hidden)
    }

    /// Weight [out, in] of the last layer.
    pub(super) fn last_weight(&self) -> Option<&Tensor> {
        self.layers.last().map(|layer| layer.weight.as_tensor())
    }

    /// Every parameter with its name.
    pub(super) fn named_parameters(&self) -> Vec<(String, Var)> {
        let mut parameters = vec![];
        for layer in &self.layers {
            parameters.push((format!("{}.weight", layer.name), layer.weight.clone()));
            parameters.push((format!("{}.bias", layer.name), layer.bias.clone()));
        }
        parameters
    }
}
