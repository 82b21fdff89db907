//! A bidirectional LSTM with the parameters, names and first values of `torch.nn.LSTM`.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor, Var};
use candle_nn::{Linear, Module};

use super::recurrence::hidden_states;
use crate::sys::rng::SeededRng;

/// Several layers, each reading the states of both directions of the one below.
#[derive(Debug)]
pub(super) struct BidirectionalLstm {
    layers: Vec<[Direction; 2]>,
}

/// One direction of one layer, with h hidden units and inputs of width I.
#[derive(Debug)]
struct Direction {
    weight_ih: Var, // [4h, I]
    weight_hh: Var, // [4h, h]
    bias_ih: Var,   // [4h]
    bias_hh: Var,   // [4h]
}

impl BidirectionalLstm {
    /// `num_layers` layers of `width` units in each direction over inputs of width `input`, uniform in ±1/√`width`.
    pub(super) fn new(
        input: usize,
        width: usize,
        num_layers: usize,
        rng: &mut SeededRng,
        device: &Device,
    ) -> Result<Self> {
        ensure!(
            num_layers > 0 && width > 0,
            "an LSTM without layers or units"
        );
        let bound = 1.0 / (width as f64).sqrt();
        let mut draw = |shape: &[usize]| -> Result<Var> {
            let numbers = rng.uniforms(shape.iter().product(), bound);
            Ok(Var::from_tensor(&Tensor::from_vec(
                numbers, shape, device,
            )?)?)
        };
        let layers = (0..num_layers)
            .map(|layer| {
                let input = if layer == 0 { input } else { 2 * width };
                let mut direction = || -> Result<Direction> {
                    Ok(Direction {
                        weight_ih: draw(&[4 * width, input])?,
                        weight_hh: draw(&[4 * width, width])?,
                        bias_ih: draw(&[4 * width])?,
                        bias_hh: draw(&[4 * width])?,
                    })
                };
                Ok([direction()?, direction()?])
            })
            .collect::<Result<_>>()?;
        Ok(Self { layers })
    }

    /// Numbers in such an LSTM.
    pub(super) fn parameter_count(input: usize, width: usize, num_layers: usize) -> usize {
        (0..num_layers)
            .map(|layer| {
                let input = if layer == 0 { input } else { 2 * width };
                2 * 4 * width * (input + width + 2)
            })
            .sum()
    }

    /// The states of the last layer, [V, 2h], forward and backward side by side, for inputs [V, I].
    ///
    /// `between` is applied to the states of every layer but the last: dropout, while training.
    pub(super) fn forward(
        &self,
        input: &Tensor,
        mut between: impl FnMut(Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut hidden = input.clone();
        for (index, directions) in self.layers.iter().enumerate() {
            let mut gates = vec![];
            let mut weights = vec![];
            for direction in directions {
                let bias = (direction.bias_ih.as_tensor() + direction.bias_hh.as_tensor())?;
                let linear = Linear::new(direction.weight_ih.as_tensor().clone(), Some(bias));
                gates.push(linear.forward(&hidden)?); // [V, 4h]
                weights.push(direction.weight_hh.as_tensor());
            }
            let states = hidden_states(&Tensor::stack(&gates, 0)?, &Tensor::stack(&weights, 0)?)?; // [2, V, h]
            hidden = Tensor::cat(&[states.get(0)?, states.get(1)?], 1)?; // [V, 2h]
            if index + 1 < self.layers.len() {
                hidden = between(hidden)?;
            }
        }
        Ok(hidden) // [V, 2h]
    }

    /// Every parameter with its name in PyTorch.
    pub(super) fn named_parameters(&self) -> Vec<(String, Var)> {
        let mut parameters = vec![];
        for (layer, directions) in self.layers.iter().enumerate() {
            for (direction, suffix) in directions.iter().zip(["", "_reverse"]) {
                for (kind, var) in [
                    ("weight_ih", &direction.weight_ih),
                    ("weight_hh", &direction.weight_hh),
                    ("bias_ih", &direction.bias_ih),
                    ("bias_hh", &direction.bias_hh),
                ] {
                    parameters.push((format!("{kind}_l{layer}{suffix}"), var.clone()));
                }
            }
        }
        parameters
    }
}
