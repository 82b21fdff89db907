//! Prompt encoders: small trainable networks whose output is the virtual tokens (p-tuning, Liu et al. 2021).
//!
//! Follows generation A of NeMo (`prompt_encoder.py` of 1.16): a trainable embedding [V, H] whose first rows are
//! replaced by the frozen word embeddings of the task's name, then a head. The name is never padded here, so a task's
//! prompt does not depend on which other tasks share its batch. `embedding` is generation B's prompt tuning: no head,
//! no name. One head a file; names of parameters are those of the upstream state dict.

mod config;
mod dropout;
mod linear_stack;
mod lstm;
mod recurrence;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor, Var};
use indexmap::IndexMap;

pub use self::config::EncoderConfig;
use self::dropout::Dropout;
use self::linear_stack::{FirstValues, LinearStack};
use self::lstm::BidirectionalLstm;
use super::init;
use crate::diag::Diagnostic;
use crate::model::feed_forward::Activation;
use crate::schema::PromptEncoderType;
use crate::sys::rng::SeededRng;

/// The trainable network of p-tuning.
#[derive(Debug)]
pub struct PromptEncoder {
    encoder_type: PromptEncoderType,
    embedding: Var, // [V, H]; [V, h] of `biglstm`
    lstm: Option<BidirectionalLstm>,
    linear: LinearStack,
    dropout: Dropout,
}

impl PromptEncoder {
    /// A fresh encoder, f32, drawn from `rng`.
    ///
    /// # Errors
    /// When `mlp` is asked for fewer than two layers, an LSTM for none, or `biglstm` for an odd width.
    pub fn new(config: &EncoderConfig, rng: &mut SeededRng, device: &Device) -> Result<Self> {
        let problems = config.problems();
        if let Some(first) = problems.first() {
            let diagnostic = Diagnostic::configuration(first.clone());
            return Err(problems[1..]
                .iter()
                .fold(diagnostic, |diagnostic, problem| {
                    diagnostic.note(problem.clone())
                })
                .into());
        }
        let (virtual_tokens, width) = (config.total_virtual_tokens, config.input_width());
        let kind = config.encoder_type;
        let embedding = match kind {
            // As generation B starts what has no head.
            PromptEncoderType::Embedding => init::random(virtual_tokens, width, rng, device)?,
            _ => init::normal(virtual_tokens, width, rng, device)?,
        }; // [V, H]
        let inner = config.encoder_hidden;
        let lstm = match kind {
            PromptEncoderType::Lstm => Some((width, inner)),
            PromptEncoderType::BigLstm => Some((width, inner / 2)),
            PromptEncoderType::Mlp | PromptEncoderType::TpMlp | PromptEncoderType::Embedding => {
                None
            }
        }
        .map(|(input, units)| BidirectionalLstm::new(input, units, config.num_layers, rng, device))
        .transpose()?;
        let linear = match kind {
            PromptEncoderType::TpMlp => LinearStack::new(
                &config.linear_widths(),
                Activation::GeluTanh,
                FirstValues::Normal {
                    std: config.init_std,
                },
                |index| ["first", "second"][index].to_owned(),
                rng,
                device,
            ),
            _ => LinearStack::new(
                &config.linear_widths(),
                Activation::Relu,
                FirstValues::Uniform,
                // Activations take the odd places of the sequence, as in the upstream `mlp_head`.
                |index| format!("mlp_head.{}", 2 * index),
                rng,
                device,
            ),
        }?;
        Ok(Self {
            encoder_type: kind,
            embedding: Var::from_tensor(&embedding)?,
            lstm,
            linear,
            dropout: Dropout::new(config.dropout, config.dropout_seed),
        })
    }

    /// The virtual tokens [V, H] of a task, differentiable in the encoder's parameters.
    ///
    /// `task_name` holds the frozen word embeddings [T, H] of the task's name; they take the place of the first
    /// min(T, V) rows of the trainable embedding. `embedding` does not look at them.
    pub fn forward(&self, task_name: Option<&Tensor>) -> Result<Tensor> {
        self.run(task_name, false)
    }

    /// [`Self::forward`] with the dropout of the current training step.
    pub fn forward_in_training(&self, task_name: Option<&Tensor>) -> Result<Tensor> {
        self.run(task_name, true)
    }

    /// Begins training step `step`, counted from 0: its dropout is drawn from a stream of its own.
    pub fn at_step(&self, step: u64) {
        self.dropout.at_step(Some(step));
    }

    fn run(&self, task_name: Option<&Tensor>, training: bool) -> Result<Tensor> {
        let input = self.input(task_name)?; // [V, H]
        let hidden = match &self.lstm {
            None => input,
            Some(lstm) => lstm.forward(&input, |states| {
                if training {
                    self.dropout.apply(states)
                } else {
                    Ok(states)
                }
            })?, // [V, 2h]
        };
        self.linear.forward(&hidden) // [V, H]
    }

    /// The embedding with the task's name in its first rows.
    fn input(&self, task_name: Option<&Tensor>) -> Result<Tensor> {
        let embedding = self.embedding.as_tensor();
        let name = match (self.encoder_type, task_name) {
            (PromptEncoderType::Embedding, _) | (_, None) => return Ok(embedding.clone()),
            (PromptEncoderType::BigLstm, Some(name)) => {
                // The name is as wide as the model, the LSTM's input is not: the last layer's weight [H, h] turned
                // round brings it there, as upstream meant it to.
                let weight = self
                    .linear
                    .last_weight()
                    .context("`biglstm` has linear layers")?;
                name.matmul(weight)? // [T, h]
            }
            (_, Some(name)) => name.clone(),
        };
        let virtual_tokens = embedding.dim(0)?;
        let rows = name.dim(0)?.min(virtual_tokens);
        let name = name.narrow(0, 0, rows)?;
        if rows == virtual_tokens {
            return Ok(name);
        }
        let rest = embedding.narrow(0, rows, virtual_tokens - rows)?;
        Ok(Tensor::cat(&[&name, &rest], 0)?) // [V, H]
    }

    /// Every trainable tensor with its upstream name, in a fixed order.
    pub fn named_parameters(&self) -> Vec<(String, Var)> {
        let mut parameters = vec![("embedding.weight".to_owned(), self.embedding.clone())];
        if let Some(lstm) = &self.lstm {
            for (name, var) in lstm.named_parameters() {
                parameters.push((format!("lstm_head.{name}"), var));
            }
        }
        parameters.extend(self.linear.named_parameters());
        parameters
    }

    /// Takes over the parameters of a trained encoder, by upstream name.
    ///
    /// # Errors
    /// When it is another network: the [`Diagnostic`] lists every parameter that is missing, left over or of another
    /// shape, and nothing is changed.
    pub fn load(&self, trained: &IndexMap<String, Tensor>) -> Result<()> {
        let parameters = self.named_parameters();
        let mut problems = vec![];
        for (name, var) in &parameters {
            match trained.get(name) {
                None => problems.push(format!("`{name}` is missing")),
                Some(tensor) if tensor.dims() != var.dims() => problems.push(format!(
                    "`{name}` is {:?} there, {:?} here",
                    tensor.dims(),
                    var.dims()
                )),
                Some(_) => {}
            }
        }
        for name in trained.keys() {
            if parameters.iter().all(|(known, _)| known != name) {
                problems.push(format!("`{name}` has no place here"));
            }
        }
        if !problems.is_empty() {
            return Err(Diagnostic::configuration(
                "the trained prompt encoder is another network than `p_tuning` describes",
            )
            .first_notes(problems)
            .into());
        }
        for (name, var) in parameters {
            let tensor = trained[&name].to_dtype(var.dtype())?;
            var.set(&tensor.to_device(var.device())?.contiguous()?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [PromptEncoderType; 5] = [
        PromptEncoderType::Mlp,
        PromptEncoderType::TpMlp,
        PromptEncoderType::Lstm,
        PromptEncoderType::BigLstm,
        PromptEncoderType::Embedding,
    ];

    fn config(encoder_type: PromptEncoderType) -> EncoderConfig {
        EncoderConfig {
            encoder_type,
            total_virtual_tokens: 5,
            hidden_size: 4,
            encoder_hidden: 6,
            num_layers: 3,
            init_std: 0.6,
            dropout: 0.0,
            dropout_seed: 1,
        }
    }

    /// Wide enough that no token's units are all off.
    fn wide(encoder_type: PromptEncoderType) -> EncoderConfig {
        EncoderConfig {
            encoder_hidden: 16,
            num_layers: 2,
            ..config(encoder_type)
        }
    }

    fn encoder(config: &EncoderConfig) -> PromptEncoder {
        PromptEncoder::new(config, &mut SeededRng::new(1, 0), &Device::Cpu).unwrap()
    }

    fn name_of(tokens: usize) -> Tensor {
        let numbers = SeededRng::new(2, 0).normals(tokens * 4, 1.0);
        Tensor::from_vec(numbers, (tokens, 4), &Device::Cpu).unwrap()
    }

    #[test]
    fn heads_have_the_upstream_names_and_shapes_and_the_size_that_is_foretold() {
        let shapes = |encoder_type| {
            let mut config = config(encoder_type);
            if encoder_type != PromptEncoderType::Mlp {
                config.num_layers = 2;
            }
            let parameters = encoder(&config).named_parameters();
            let count: usize = parameters.iter().map(|(_, var)| var.elem_count()).sum();
            assert_eq!(count, config.parameter_count(), "{encoder_type:?}");
            parameters
                .iter()
                .map(|(name, var)| format!("{name} {:?}", var.dims()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            shapes(PromptEncoderType::TpMlp),
            [
                "embedding.weight [5, 4]",
                "first.weight [6, 4]",
                "first.bias [6]",
                "second.weight [4, 6]",
                "second.bias [4]"
            ]
        );
        assert_eq!(
            shapes(PromptEncoderType::Mlp),
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
        let lstm = shapes(PromptEncoderType::Lstm);
        assert_eq!(lstm.len(), 1 + 16 + 4);
        assert_eq!(lstm[0], "embedding.weight [5, 4]");
        assert_eq!(lstm[1], "lstm_head.weight_ih_l0 [24, 4]");
        assert_eq!(lstm[6], "lstm_head.weight_hh_l0_reverse [24, 6]");
        assert_eq!(lstm[9], "lstm_head.weight_ih_l1 [24, 12]");
        assert_eq!(lstm[16], "lstm_head.bias_hh_l1_reverse [24]");
        assert_eq!(lstm[17], "mlp_head.0.weight [12, 12]");
        assert_eq!(lstm[19], "mlp_head.2.weight [4, 12]");
        let big = shapes(PromptEncoderType::BigLstm);
        assert_eq!(big[0], "embedding.weight [5, 6]");
        assert_eq!(big[1], "lstm_head.weight_ih_l0 [12, 6]");
        assert_eq!(big[2], "lstm_head.weight_hh_l0 [12, 3]");
        assert_eq!(big[17], "mlp_head.0.weight [6, 6]");
        assert_eq!(big[19], "mlp_head.2.weight [4, 6]");
        assert_eq!(
            shapes(PromptEncoderType::Embedding),
            ["embedding.weight [5, 4]"]
        );
    }

    /// Some numbers of every parameter, moved both ways.
    #[test]
    fn gradients_of_every_head_equal_finite_differences() {
        let factors = Tensor::from_vec(SeededRng::new(3, 0).normals(20, 1.0), (5, 4), &Device::Cpu);
        let factors = factors.unwrap();
        for kind in KINDS {
            let encoder = encoder(&wide(kind));
            let name = name_of(2);
            let loss = || {
                let output = encoder.forward(Some(&name)).unwrap();
                (output.tanh().unwrap() * &factors)
                    .unwrap()
                    .sum_all()
                    .unwrap()
            };
            let store = loss().backward().unwrap();
            for (parameter, var) in encoder.named_parameters() {
                let gradient = store
                    .get(&var)
                    .unwrap_or_else(|| panic!("{kind:?} {parameter}"));
                let gradient = gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let value = var.as_tensor().copy().unwrap();
                let numbers = value.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let largest = gradient.iter().fold(0f32, |most, one| most.max(one.abs()));
                assert!(largest > 0.0, "{kind:?}: nothing reaches {parameter}");
                for index in (0..numbers.len()).step_by(1 + numbers.len() / 12) {
                    let step = 2e-3f32; // short, so that few ReLUs switch on the way
                    let [above, below] = [step, -step].map(|move_by| {
                        let mut moved = numbers.clone();
                        moved[index] += move_by;
                        let moved = Tensor::from_vec(moved, value.shape(), &Device::Cpu).unwrap();
                        var.set(&moved).unwrap();
                        f64::from(loss().to_scalar::<f32>().unwrap())
                    });
                    let expected = (above - below) / (2.0 * f64::from(step));
                    let found = f64::from(gradient[index]);
                    assert!(
                        (found - expected).abs() < 0.02 * (f64::from(largest) + 0.05),
                        "{kind:?} {parameter}[{index}]: {found} instead of {expected}"
                    );
                }
                var.set(&value).unwrap();
            }
        }
    }

    #[test]
    fn rows_under_the_task_name_get_no_gradient_and_the_others_do() {
        for kind in KINDS {
            let encoder = encoder(&wide(kind));
            let output = encoder.forward(Some(&name_of(2))).unwrap();
            let loss = output.sqr().unwrap().sum_all().unwrap();
            let gradients = loss.backward().unwrap();
            let rows = gradients.get(&encoder.embedding).unwrap().sqr().unwrap();
            let rows = rows.sum(1).unwrap().to_vec1::<f32>().unwrap();
            if kind == PromptEncoderType::Embedding {
                assert!(rows.iter().all(|norm| *norm > 0.0), "{rows:?}");
            } else {
                assert_eq!(rows[..2], [0.0, 0.0], "{kind:?}");
                assert!(
                    rows[2..].iter().all(|norm| *norm > 0.0),
                    "{kind:?}: {rows:?}"
                );
            }
        }
    }

    #[test]
    fn a_name_longer_than_the_prompt_is_cut() {
        for kind in KINDS {
            let output = encoder(&config(kind)).forward(Some(&name_of(7))).unwrap();
            assert_eq!(output.dims(), [5, 4]);
        }
    }

    #[test]
    fn dropout_works_between_lstm_layers_while_training_and_never_in_a_finished_prompt() {
        let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let dropped = EncoderConfig {
            dropout: 0.5,
            ..config(PromptEncoderType::Lstm)
        };
        let encoder = encoder(&dropped);
        let finished = values(encoder.forward(None).unwrap());
        assert_eq!(values(encoder.forward_in_training(None).unwrap()), finished);
        encoder.at_step(0);
        let first = values(encoder.forward_in_training(None).unwrap());
        assert_ne!(first, finished);
        assert_eq!(values(encoder.forward(None).unwrap()), finished);
        encoder.at_step(0);
        assert_eq!(values(encoder.forward_in_training(None).unwrap()), first);
        encoder.at_step(1);
        assert_ne!(values(encoder.forward_in_training(None).unwrap()), first);
    }

    #[test]
    fn an_odd_width_of_biglstm_and_an_encoder_of_another_shape_are_refused() {
        let odd = EncoderConfig {
            encoder_hidden: 5,
            num_layers: 0,
            ..config(PromptEncoderType::BigLstm)
        };
        let error = PromptEncoder::new(&odd, &mut SeededRng::new(1, 0), &Device::Cpu).unwrap_err();
        let error = error.downcast::<Diagnostic>().unwrap();
        assert!(error.title.contains("at least 1 layer"), "{error}");
        assert!(error.notes[0].contains("must be even"), "{error}");

        let here = encoder(&config(PromptEncoderType::TpMlp));
        let mut trained: IndexMap<String, Tensor> = here
            .named_parameters()
            .into_iter()
            .map(|(name, var)| (name, var.as_tensor().copy().unwrap()))
            .collect();
        let other = PromptEncoder::new(
            &config(PromptEncoderType::TpMlp),
            &mut SeededRng::new(9, 0),
            &Device::Cpu,
        )
        .unwrap();
        other.load(&trained).unwrap();
        let values =
            |encoder: &PromptEncoder| encoder.forward(None).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(values(&other), values(&here));

        trained.swap_remove("first.bias");
        trained.insert("third.bias".into(), name_of(1));
        trained.insert("second.bias".into(), name_of(1));
        let error = other
            .load(&trained)
            .unwrap_err()
            .downcast::<Diagnostic>()
            .unwrap();
        assert_eq!(
            error.notes,
            [
                "`first.bias` is missing",
                "`second.bias` is [1, 4] there, [4] here",
                "`third.bias` has no place here"
            ]
        );
    }
}
