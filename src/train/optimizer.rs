//! AdamW (Loshchilov and Hutter 2019): Adam with weight decay taken off the weights themselves.
//!
//! As in NeMo there is one parameter group: decay applies to embeddings, weights and biases alike.

use anyhow::{Context, Result, ensure};
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use indexmap::IndexMap;

/// Keys of `model.optim`.
#[derive(Clone, Copy, Debug)]
pub struct AdamWConfig {
    /// Decay rates of the two moments.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Fraction of a weight that one step at learning rate 1 takes off.
    pub weight_decay: f64,
}

/// The optimizer and its two moments for every trainable tensor.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    parameters: Vec<Parameter>,
    steps: u64,
}

#[derive(Debug)]
struct Parameter {
    name: String,
    var: Var,
    first_moment: Tensor,
    second_moment: Tensor,
}

impl AdamW {
    /// Moments start at zero.
    pub fn new(config: AdamWConfig, parameters: Vec<(String, Var)>) -> Result<Self> {
        let parameters = parameters
            .into_iter()
            .map(|(name, var)| {
                Ok(Parameter {
                    first_moment: var.zeros_like()?,
                    second_moment: var.zeros_like()?,
                    name,
                    var,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            config,
            parameters,
            steps: 0,
        })
    }

    /// The tensors it trains, in order.
    pub fn vars(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.parameters
            .iter()
            .map(|parameter| (parameter.name.as_str(), &parameter.var))
    }

    /// One step with the gradients of [`Self::vars`], each multiplied by `gradient_scale` first.
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
        self.steps += 1;
        let (beta1, beta2) = self.config.betas;
        let exponent = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let correction1 = 1.0 - beta1.powi(exponent);
        let correction2 = 1.0 - beta2.powi(exponent);
        for (parameter, gradient) in self.parameters.iter_mut().zip(gradients) {
            let gradient = gradient.affine(gradient_scale, 0.0)?;
            let first = (parameter.first_moment.affine(beta1, 0.0)?
                + gradient.affine(1.0 - beta1, 0.0)?)?;
            let second = (parameter.second_moment.affine(beta2, 0.0)?
                + gradient.sqr()?.affine(1.0 - beta2, 0.0)?)?;
            let root = second
                .affine(1.0 / correction2, 0.0)?
                .sqrt()?
                .affine(1.0, self.config.eps)?;
            let update = (first.affine(1.0 / correction1, 0.0)? / root)?;
            let decayed = parameter
                .var
                .affine(1.0 - learning_rate * self.config.weight_decay, 0.0)?;
            parameter
                .var
                .set(&(decayed - update.affine(learning_rate, 0.0)?)?.detach())?;
            parameter.first_moment = first.detach();
            parameter.second_moment = second.detach();
        }
        Ok(())
    }

    /// Parameters, moments and step count as named tensors, for a checkpoint.
    pub fn state(&self) -> Result<IndexMap<String, Tensor>> {
        let mut state = IndexMap::new();
        for parameter in &self.parameters {
            let name = &parameter.name;
            state.insert(
                format!("parameter.{name}"),
                parameter.var.as_tensor().copy()?,
            );
            state.insert(
                format!("first_moment.{name}"),
                parameter.first_moment.clone(),
            );
            state.insert(
                format!("second_moment.{name}"),
                parameter.second_moment.clone(),
            );
        }
        Ok(state)
    }

    /// Continues from what [`Self::state`] gave after `steps` steps.
    pub fn restore(&mut self, state: &IndexMap<String, Tensor>, steps: u64) -> Result<()> {
        let find = |kind: &str, parameter: &Parameter| -> Result<Tensor> {
            let key = format!("{kind}.{}", parameter.name);
            let tensor = state
                .get(&key)
                .with_context(|| format!("the checkpoint has no `{key}`"))?;
            ensure!(
                tensor.dims() == parameter.var.dims(),
                "`{key}` of the checkpoint has shape {:?}, this run needs {:?}: was it made with other settings?",
                tensor.dims(),
                parameter.var.dims()
            );
            Ok(tensor.to_device(parameter.var.device())?)
        };
        let mut restored = vec![];
        for parameter in &self.parameters {
            restored.push((
                find("parameter", parameter)?,
                find("first_moment", parameter)?,
                find("second_moment", parameter)?,
            ));
        }
        for (parameter, (value, first, second)) in self.parameters.iter_mut().zip(restored) {
            parameter.var.set(&value)?;
            parameter.first_moment = first;
            parameter.second_moment = second;
        }
        self.steps = steps;
        Ok(())
    }

    /// Copies of the parameters alone, to come back to.
    pub fn snapshot(&self) -> Result<Vec<Tensor>> {
        self.parameters
            .iter()
            .map(|parameter| Ok(parameter.var.as_tensor().copy()?))
            .collect()
    }

    /// Puts back what [`Self::snapshot`] gave.
    pub fn put_back(&mut self, snapshot: &[Tensor]) -> Result<()> {
        ensure!(
            snapshot.len() == self.parameters.len(),
            "one tensor for each parameter"
        );
        for (parameter, tensor) in self.parameters.iter().zip(snapshot) {
            parameter.var.set(tensor)?;
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
    use candle_core::Device;

    /// Three steps of `torch.optim.AdamW([1.0, -2.0], lr=0.1, betas=(0.9, 0.98), weight_decay=0.01)` on the gradients
    /// [0.5, 1.0], [-0.25, 2.0], [0.0, -1.0], computed in float64 by PyTorch 2.15.
    #[test]
    fn three_steps_equal_pytorch() {
        let var = Var::from_vec(vec![1f64, -2.0], 2, &Device::Cpu).unwrap();
        let config = AdamWConfig {
            betas: (0.9, 0.98),
            eps: 1e-8,
            weight_decay: 0.01,
        };
        let mut optimizer = AdamW::new(config, vec![("x".into(), var.clone())]).unwrap();
        for gradient in [[0.5f64, 1.0], [-0.25, 2.0], [0.0, -1.0]] {
            let gradient = Tensor::new(&gradient, &Device::Cpu).unwrap();
            optimizer.step(&[gradient], 1.0, 0.1).unwrap();
        }
        let expected = [0.849_771_100_477_660_9, -2.231_961_696_366_199_5];
        let found = var.to_vec1::<f64>().unwrap();
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() < 1e-9,
                "{found} instead of {expected}"
            );
        }
    }

    #[test]
    fn a_restored_optimizer_goes_on_as_if_it_had_not_stopped() {
        let config = AdamWConfig {
            betas: (0.9, 0.98),
            eps: 1e-8,
            weight_decay: 0.01,
        };
        let make = || {
            let var = Var::from_vec(vec![1f32, -2.0], 2, &Device::Cpu).unwrap();
            AdamW::new(config, vec![("x".into(), var)]).unwrap()
        };
        let gradient = |step: f32| Tensor::new(&[step, 1.0 - step], &Device::Cpu).unwrap();
        let mut straight = make();
        let mut stopped = make();
        for step in 0..3 {
            straight.step(&[gradient(step as f32)], 1.0, 0.1).unwrap();
            stopped.step(&[gradient(step as f32)], 1.0, 0.1).unwrap();
        }
        let mut resumed = make();
        resumed.restore(&stopped.state().unwrap(), 3).unwrap();
        straight.step(&[gradient(5.0)], 0.5, 0.1).unwrap();
        resumed.step(&[gradient(5.0)], 0.5, 0.1).unwrap();
        let values =
            |optimizer: &AdamW| optimizer.vars().next().unwrap().1.to_vec1::<f32>().unwrap();
        assert_eq!(values(&straight), values(&resumed));
    }
}
