//! Optimizers: one update rule over all trainable tensors, and what a checkpoint must hold of them.
//!
//! As in NeMo there is one parameter group: weight decay applies to embeddings, weights and biases alike.

mod adafactor;
mod adam;
mod in_place;
mod sgd;

pub use adafactor::AdafactorConfig;
pub use adam::AdamConfig;
pub use sgd::SgdConfig;

use anyhow::{Context, Result, ensure};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use indexmap::IndexMap;

/// The rule by which a gradient changes a tensor, with its keys of `model.optim`.
#[derive(Clone, Copy, Debug)]
pub enum OptimizerConfig {
    /// Adam with weight decay taken off the weights themselves (Loshchilov and Hutter 2019), as Apex's `FusedAdam`.
    AdamW(AdamConfig),
    /// Adam with weight decay added to the gradient (`torch.optim.Adam`).
    Adam(AdamConfig),
    /// Adafactor (Shazeer and Stern 2018), Lester et al.'s optimizer of prompts.
    Adafactor(AdafactorConfig),
    /// Gradient descent with momentum (`torch.optim.SGD`).
    Sgd(SgdConfig),
}

/// A rule, the tensors it trains and what it remembers of each.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    parameters: Vec<Parameter>,
    /// Updates made: fewer than steps of the training where steps were skipped.
    updates: u64,
}

#[derive(Debug)]
struct Parameter {
    name: String,
    var: Var,
    /// What the rule remembers, in the order of [`OptimizerConfig::memory_names`].
    memory: Vec<Tensor>,
}

/// Name of the count of updates among the tensors of a checkpoint.
const UPDATES: &str = "optimizer.updates";

impl OptimizerConfig {
    /// What the rule remembers of a tensor of this rank.
    fn memory_names(&self, rank: usize) -> &'static [&'static str] {
        match self {
            Self::AdamW(_) | Self::Adam(_) => &["first_moment", "second_moment"],
            Self::Adafactor(config) => config.memory_names(rank),
            Self::Sgd(config) => config.memory_names(),
        }
    }

    fn fresh_memory(&self, value: &Tensor) -> Result<Vec<Tensor>> {
        match self {
            Self::Adafactor(config) => config.fresh_memory(value),
            _ => self
                .memory_names(value.rank())
                .iter()
                .map(|_| Ok(value.zeros_like()?))
                .collect(),
        }
    }

    /// The new value of a tensor, whose memory is brought up to date; `update` counts from 1.
    fn apply(
        &self,
        value: &Tensor,
        gradient: &Tensor,
        memory: &mut [Tensor],
        update: u64,
        learning_rate: f64,
    ) -> Result<Tensor> {
        match self {
            Self::AdamW(config) => config.decoupled(value, gradient, memory, update, learning_rate),
            Self::Adam(config) => config.coupled(value, gradient, memory, update, learning_rate),
            Self::Adafactor(config) => config.apply(value, gradient, memory, update, learning_rate),
            Self::Sgd(config) => config.apply(value, gradient, memory, update, learning_rate),
        }
    }

    /// The learning rate that update number `update` (from 1) really has where the schedule says `scheduled`.
    pub fn learning_rate(&self, scheduled: f64, update: u64) -> f64 {
        match self {
            Self::Adafactor(config) => config.learning_rate(scheduled, update),
            _ => scheduled,
        }
    }
}

impl Optimizer {
    /// An optimizer that has made no update yet.
    pub fn new(config: OptimizerConfig, parameters: Vec<(String, Var)>) -> Result<Self> {
        let parameters = parameters
            .into_iter()
            .map(|(name, var)| {
                Ok(Parameter {
                    memory: config.fresh_memory(&var)?,
                    name,
                    var,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            config,
            parameters,
            updates: 0,
        })
    }

    /// The tensors it trains, in order.
    pub fn vars(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.parameters
            .iter()
            .map(|parameter| (parameter.name.as_str(), &parameter.var))
    }

    /// The learning rate of the next update where the schedule says `scheduled`.
    pub fn learning_rate(&self, scheduled: f64) -> f64 {
        self.config.learning_rate(scheduled, self.updates + 1)
    }

    /// One update with the gradients of [`Self::vars`], each multiplied by `gradient_scale` first.
    pub fn step(
        &mut self,
        gradients: &[Tensor],
        gradient_scale: f64,
        learning_rate: f64,
    ) -> Result<()> {
        ensure!(
            gradients.len() == self.parameters.len(),
            "one gradient for each parameter"
        );
        self.updates += 1;
        for (parameter, gradient) in self.parameters.iter_mut().zip(gradients) {
            if let OptimizerConfig::AdamW(adam) = &self.config
                && adam.decoupled_in_place(
                    parameter.var.as_tensor(),
                    (gradient, gradient_scale),
                    &parameter.memory,
                    self.updates,
                    learning_rate,
                )?
            {
                continue;
            }
            let gradient = gradient.affine(gradient_scale, 0.0)?;
            let value = self.config.apply(
                parameter.var.as_tensor(),
                &gradient,
                &mut parameter.memory,
                self.updates,
                learning_rate,
            )?;
            parameter.var.set(&value.detach())?;
            for memory in &mut parameter.memory {
                *memory = memory.detach();
            }
        }
        Ok(())
    }

    /// Parameters, memory and count of updates as named tensors, for a checkpoint: those of now, which the next step
    /// changes.
    pub fn state(&self) -> Result<IndexMap<String, Tensor>> {
        let mut state = IndexMap::new();
        for parameter in &self.parameters {
            let name = &parameter.name;
            let value = parameter.var.as_tensor().detach();
            state.insert(format!("parameter.{name}"), value);
            for (kind, memory) in self.memory_of(parameter) {
                state.insert(format!("{kind}.{name}"), memory.clone());
            }
        }
        let updates = Tensor::new(&[self.updates as i64], &Device::Cpu)?;
        state.insert(UPDATES.to_owned(), updates);
        Ok(state)
    }

    fn memory_of<'a>(
        &self,
        parameter: &'a Parameter,
    ) -> impl Iterator<Item = (&'static str, &'a Tensor)> {
        let names = self.config.memory_names(parameter.var.rank());
        names.iter().copied().zip(&parameter.memory)
    }

    /// Continues from what [`Self::state`] gave; `steps` are the updates of a checkpoint that does not tell them.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape; nothing is changed then.
    pub fn restore(&mut self, state: &IndexMap<String, Tensor>, steps: u64) -> Result<()> {
        let find = |kind: &str, name: &str, like: &Tensor| -> Result<Tensor> {
            let key = format!("{kind}.{name}");
            let tensor = state.get(&key).with_context(|| {
                format!("the checkpoint has no `{key}`: was it made with another optimizer?")
            })?;
            ensure!(
                tensor.dims() == like.dims(),
                "`{key}` of the checkpoint has shape {:?}, this run needs {:?}: was it made with other settings?",
                tensor.dims(),
                like.dims()
            );
            Ok(tensor.to_device(like.device())?.copy()?)
        };
        let mut restored = vec![];
        for parameter in &self.parameters {
            let value = find("parameter", &parameter.name, &parameter.var)?;
            let memory = self
                .memory_of(parameter)
                .map(|(kind, memory)| find(kind, &parameter.name, memory))
                .collect::<Result<Vec<_>>>()?;
            restored.push((value, memory));
        }
        let updates = match state.get(UPDATES) {
            Some(updates) => updates.flatten_all()?.to_vec1::<i64>()?.first().copied(),
            None => None,
        };
        for (parameter, (value, memory)) in self.parameters.iter_mut().zip(restored) {
            parameter.var.set(&value)?;
            parameter.memory = memory;
        }
        self.updates = updates
            .and_then(|updates| u64::try_from(updates).ok())
            .unwrap_or(steps);
        Ok(())
    }

    /// Brings back the parameters alone, as they are in what [`Self::state`] gave.
    pub fn restore_parameters(&mut self, state: &IndexMap<String, Tensor>) -> Result<()> {
        for parameter in &self.parameters {
            let value = state
                .get(&format!("parameter.{}", parameter.name))
                .with_context(|| format!("the checkpoint has no parameter `{}`", parameter.name))?;
            parameter
                .var
                .set(&value.to_device(parameter.var.device())?)?;
        }
        Ok(())
    }

    /// The gradients of [`Self::vars`] from a backward pass; zeros where a parameter did not take part.
    pub fn gradients(&self, store: &GradStore) -> Result<Vec<Tensor>> {
        self.parameters
            .iter()
            .map(|parameter| match store.get(&parameter.var) {
                Some(gradient) => Ok(gradient.detach()),
                None => Ok(parameter.var.zeros_like()?),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Made by `make_optimizers.py` beside it, with PyTorch and transformers.
    const REFERENCE: &str = include_str!("../../../tests/cases/training/optimizers.json");
    const SHAPES: [(&str, &[usize]); 2] = [("matrix", &[3, 4]), ("vector", &[5])];

    fn adam() -> AdamConfig {
        AdamConfig {
            betas: (0.9, 0.98),
            eps: 1e-8,
            weight_decay: 0.01,
        }
    }

    fn sgd(momentum: f64) -> SgdConfig {
        SgdConfig {
            momentum,
            dampening: 0.0,
            nesterov: false,
            weight_decay: 0.0,
        }
    }

    /// Name in the reference, rule, learning rate.
    fn cases() -> Vec<(&'static str, OptimizerConfig, f64)> {
        let lester = AdafactorConfig::default();
        vec![
            ("adamw", OptimizerConfig::AdamW(adam()), 0.1),
            ("adam", OptimizerConfig::Adam(adam()), 0.1),
            (
                "sgd",
                OptimizerConfig::Sgd(SgdConfig {
                    weight_decay: 0.01,
                    ..sgd(0.0)
                }),
                0.1,
            ),
            (
                "sgd_momentum",
                OptimizerConfig::Sgd(SgdConfig {
                    dampening: 0.2,
                    weight_decay: 0.01,
                    ..sgd(0.9)
                }),
                0.1,
            ),
            (
                "sgd_nesterov",
                OptimizerConfig::Sgd(SgdConfig {
                    nesterov: true,
                    ..sgd(0.9)
                }),
                0.1,
            ),
            (
                "adafactor",
                OptimizerConfig::Adafactor(AdafactorConfig {
                    weight_decay: 1e-5,
                    ..lester
                }),
                0.3,
            ),
            (
                "adafactor_scaled",
                OptimizerConfig::Adafactor(AdafactorConfig {
                    scale_parameter: true,
                    ..lester
                }),
                0.05,
            ),
            (
                "adafactor_first_moment",
                OptimizerConfig::Adafactor(AdafactorConfig {
                    beta1: Some(0.9),
                    clip_threshold: 0.5,
                    decay_rate: -0.6,
                    eps: (1e-20, 1e-3),
                    ..lester
                }),
                0.3,
            ),
            (
                "adafactor_relative",
                OptimizerConfig::Adafactor(AdafactorConfig {
                    relative_step: true,
                    warmup_init: true,
                    scale_parameter: true,
                    weight_decay: 0.01,
                    ..lester
                }),
                1.0,
            ),
        ]
    }

    fn make(config: OptimizerConfig) -> Optimizer {
        let parameters = SHAPES.iter().map(|(name, shape)| {
            let count: usize = shape.iter().product();
            let values: Vec<f32> = (0..count)
                .map(|index| (0.5 * (index as f64 + 1.0).cos()) as f32)
                .collect();
            let var = Var::from_vec(values, *shape, &Device::Cpu).unwrap();
            ((*name).to_owned(), var)
        });
        Optimizer::new(config, parameters.collect()).unwrap()
    }

    fn gradients(step: u64) -> Vec<Tensor> {
        let gradient = |shape: &[usize]| {
            let count: usize = shape.iter().product();
            let values: Vec<f32> = (0..count)
                .map(|index| {
                    let angle = 0.7 * (index as f64 + 1.0) * step as f64;
                    (angle.sin() * 0.3 * step as f64) as f32
                })
                .collect();
            Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
        };
        SHAPES.iter().map(|(_, shape)| gradient(shape)).collect()
    }

    fn advance(optimizer: &mut Optimizer, lr: f64, steps: std::ops::RangeInclusive<u64>) {
        for step in steps {
            let lr = optimizer.learning_rate(lr * (1.0 + 0.25 * step as f64));
            optimizer.step(&gradients(step), 1.0, lr).unwrap();
        }
    }

    fn bits(optimizer: &Optimizer) -> Vec<u32> {
        let values = optimizer
            .vars()
            .map(|(_, var)| var.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        values.flatten().map(f32::to_bits).collect()
    }

    #[test]
    fn six_steps_of_every_rule_equal_pytorch_and_transformers() {
        let reference: Value = serde_json::from_str(REFERENCE).unwrap();
        let names: Vec<&str> = cases().iter().map(|(name, ..)| *name).collect();
        let known: Vec<&String> = reference.as_object().unwrap().keys().collect();
        assert_eq!(names, known);
        for (case, config, lr) in cases() {
            let mut optimizer = make(config);
            for step in 1..=6 {
                advance(&mut optimizer, lr, step..=step);
                for (name, var) in optimizer.vars() {
                    let found = var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                    let expected = &reference[case][name][step as usize - 1];
                    for (index, found) in found.iter().enumerate() {
                        let expected = expected[index].as_f64().unwrap();
                        let difference = (f64::from(*found) - expected).abs();
                        assert!(
                            difference < 2e-6 * expected.abs().max(1.0),
                            "{case}, step {step}, {name}[{index}]: {found} instead of {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_restored_optimizer_goes_on_to_the_same_bits() {
        for (case, config, lr) in cases() {
            let mut straight = make(config);
            advance(&mut straight, lr, 1..=3);
            let state = straight.state().unwrap();
            let mut resumed = make(config);
            resumed.restore(&state, 0).unwrap();
            advance(&mut straight, lr, 4..=6);
            advance(&mut resumed, lr, 4..=6);
            assert_eq!(bits(&straight), bits(&resumed), "{case}");
        }
    }

    #[test]
    fn a_step_in_place_and_one_by_ops_come_to_the_same_numbers() {
        let mut in_place = make(OptimizerConfig::AdamW(adam()));
        let mut by_ops = make(OptimizerConfig::AdamW(adam()));
        for step in 1..=5 {
            in_place.step(&gradients(step), 0.7, 0.1).unwrap();
            by_ops.updates += 1;
            for (parameter, gradient) in by_ops.parameters.iter_mut().zip(&gradients(step)) {
                let gradient = gradient.affine(0.7, 0.0).unwrap();
                let value = parameter.var.as_tensor();
                let memory = &mut parameter.memory;
                let value = adam().decoupled(value, &gradient, memory, step, 0.1);
                parameter.var.set(&value.unwrap()).unwrap();
            }
            for (found, expected) in bits(&in_place).into_iter().zip(bits(&by_ops)) {
                let (found, expected) = (f32::from_bits(found), f32::from_bits(expected));
                assert!(
                    (found - expected).abs() <= 1e-6 * expected.abs(),
                    "step {step}"
                );
            }
        }
    }

    #[test]
    fn the_state_of_another_rule_is_refused_and_changes_nothing() {
        let mut adam = make(OptimizerConfig::AdamW(adam()));
        let before = bits(&adam);
        let other = make(OptimizerConfig::Adafactor(AdafactorConfig::default()));
        let error = adam.restore(&other.state().unwrap(), 1).unwrap_err();
        assert!(error.to_string().contains("first_moment"), "{error}");
        assert_eq!(bits(&adam), before);
    }

    #[test]
    fn a_scaled_gradient_is_that_of_a_scaled_loss() {
        let config = OptimizerConfig::Sgd(sgd(0.0));
        let (mut one, mut other) = (make(config), make(config));
        one.step(&gradients(1), 0.5, 0.2).unwrap();
        other.step(&gradients(1), 1.0, 0.1).unwrap();
        assert_eq!(bits(&one), bits(&other));
    }
}
