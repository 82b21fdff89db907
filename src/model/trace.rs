//! Where a number stops being one: the model's layers one after another, each result looked at.

use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::{DType, Tensor};

use super::{LanguageModel, LmInputs};

impl LanguageModel {
    /// The first part of the model, by the name of its layer, whose result for this batch holds a number that is not
    /// finite; nothing where all are. Slower than a loss, and without a gradient: for finding out after the fact.
    ///
    /// # Errors
    /// As [`Self::loss`].
    pub fn first_not_finite(&self, inputs: &LmInputs<'_>) -> Result<Option<String>> {
        let engine = self.engine();
        let embeddings = inputs.embeddings.detach();
        let rows = Arc::new(inputs.rows.clone());
        let mut x = embeddings;
        macro_rules! look {
            ($name:expr) => {
                if !all_finite(&x)? {
                    return Ok(Some($name));
                }
            };
        }
        look!("the embedded input".to_owned());
        match self {
            Self::Gpt(gpt) => {
                let (placed, positions) = gpt.place(&x, &rows.positions())?;
                x = placed;
                look!("position embeddings".to_owned());
                for (number, layer) in gpt.layers.iter().enumerate() {
                    let attended = layer.attention.forward(&x, &rows, &positions, engine)?;
                    if !all_finite(&attended)? {
                        return Ok(Some(format!("layer {number}, attention")));
                    }
                    x = layer.finish(&x, attended, engine)?;
                    look!(format!("layer {number}, feed-forward"));
                }
                x = gpt.norm.apply(&x, engine)?;
                look!("the final norm".to_owned());
            }
            Self::T5(t5) => {
                let stack = &t5.encoder;
                x = stack.positions.place(&x, &rows.positions())?;
                let positions = stack
                    .positions
                    .of_layers(stack.layers.len(), rows.longest());
                for (number, (layer, positions)) in stack.layers.iter().zip(&positions).enumerate()
                {
                    x = layer.attention.forward(&x, &rows, positions, engine)?;
                    look!(format!("encoder layer {number}, attention"));
                    x = layer.feed_forward.forward(&x, engine)?;
                    look!(format!("encoder layer {number}, feed-forward"));
                }
                let memory = stack.norm.apply(&x, engine)?;
                let answer_rows = inputs
                    .decoder_rows
                    .context("a T5 was given no decoder rows")?;
                let answer_rows = Arc::new(answer_rows.clone());
                let stack = &t5.decoder;
                x = t5
                    .embed_decoder(inputs.decoder_ids, &answer_rows.positions())?
                    .to_dtype(memory.dtype())?;
                let positions = stack
                    .positions
                    .of_layers(stack.layers.len(), answer_rows.longest());
                for (number, (layer, positions)) in stack.layers.iter().zip(&positions).enumerate()
                {
                    x = layer
                        .attention
                        .forward(&x, &answer_rows, positions, engine)?;
                    look!(format!("decoder layer {number}, attention"));
                    x = layer
                        .cross_attention
                        .forward(&x, &answer_rows, &memory, &rows, engine)?;
                    look!(format!("decoder layer {number}, attention to the encoder"));
                    x = layer.feed_forward.forward(&x, engine)?;
                    look!(format!("decoder layer {number}, feed-forward"));
                }
                x = stack.norm.apply(&x, engine)?;
                look!("the decoder's final norm".to_owned());
            }
        }
        Ok(None)
    }
}

fn all_finite(x: &Tensor) -> Result<bool> {
    // A sum of f64 cannot overflow where its terms are finite f32.
    let sum = x.to_dtype(DType::F64)?.abs()?.sum_all()?;
    Ok(sum.to_scalar::<f64>()?.is_finite())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::model::{Rows, toy};

    #[test]
    fn a_layer_whose_weights_are_not_finite_is_named() {
        let model = toy::random(crate::model::ModelConfig::Gpt(toy::gpt_config()), 3).unwrap();
        let hidden = model.hidden_size();
        let rows = Rows::new([3]);
        let look = |value: f32| {
            let embeddings = Tensor::full(value, (3, hidden), &Device::Cpu).unwrap();
            model
                .first_not_finite(&LmInputs {
                    embeddings: &embeddings,
                    trained_positions: None,
                    rows: &rows,
                    decoder_ids: &[],
                    decoder_rows: None,
                    loss_positions: &[2],
                    labels: &[1],
                    weights: &[1.0],
                })
                .unwrap()
        };
        assert_eq!(look(0.5), None);
        assert_eq!(look(f32::NAN).as_deref(), Some("the embedded input"));
        // Squares of such numbers do not fit into f32.
        assert!(look(f32::MAX).is_some_and(|name| name.starts_with("layer 0")));
    }
}
