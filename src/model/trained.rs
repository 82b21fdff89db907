//! A linear layer that is trained and what lies between two of them, as prompt encoders have them, over the CPU kernels;
//! candle's ops on other devices.

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor};

use super::feed_forward::activate;
use super::kernels::activation::{self as kernel, Activation};
use super::kernels::attention::add;
use super::kernels::matmul::{Into, MatMut, MatRef, Threads, matmul};
use super::kernels::pairs::Form;
use super::ops::{contiguous_f32, is_plain, with_f32};

/// `x · Wᵀ + b`: [N, in], [out, in] and [out] -> [N, out]; differentiable in all three.
///
/// # Errors
/// Where the sizes do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    if [&x, weight, bias].into_iter().all(is_plain) {
        return x.apply_op3(weight, bias, LinearOp);
    }
    x.matmul(&weight.t()?)?.broadcast_add(bias)
}

struct LinearOp;

impl CustomOp3 for LinearOp {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (contiguous_f32(s1, l1)?, contiguous_f32(s2, l2)?);
        let bias = contiguous_f32(s3, l3)?;
        let ((count, inputs), (outputs, terms)) = (l1.shape().dims2()?, l2.shape().dims2()?);
        if terms != inputs || bias.len() != outputs {
            candle_core::bail!(
                "a layer of {terms} inputs and {outputs} outputs was given rows of {inputs} and a bias of {}",
                bias.len()
            );
        }
        let mut y = vec![0.0; count * outputs];
        let mut result = MatMut::packed(&mut y, count, outputs);
        let into = result.begin_with(Some(bias), Into::Overwrite);
        let (x, weight) = (
            MatRef::packed(x, count, inputs),
            MatRef::packed(weight, outputs, inputs),
        );
        matmul(result, into, 1.0, x, weight.transposed(), Threads::All);
        Ok((CpuStorage::F32(y), (count, outputs).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let ((count, inputs), outputs) = (x.dims2()?, weight.dims2()?.0);
        let (mut dx, mut dweight) = (vec![0.0; count * inputs], vec![0.0; outputs * inputs]);
        let mut dbias = vec![0.0; outputs];
        with_f32(&grad, |dy| {
            let dy_rows = MatRef::packed(dy, count, outputs);
            with_f32(weight, |weight| {
                let weight = MatRef::packed(weight, outputs, inputs);
                let dx = MatMut::packed(&mut dx, count, inputs);
                matmul(dx, Into::Overwrite, 1.0, dy_rows, weight, Threads::All);
            })?;
            for dy in dy.chunks_exact(outputs.max(1)) {
                add(&mut dbias, dy);
            }
            with_f32(x, |x| {
                let x = MatRef::packed(x, count, inputs);
                let dweight = MatMut::packed(&mut dweight, outputs, inputs);
                let dy = dy_rows.transposed();
                matmul(dweight, Into::Overwrite, 1.0, dy, x, Threads::All);
            })
        })??;
        let tensor =
            |numbers, like: &Tensor| Tensor::from_vec(numbers, like.shape(), like.device());
        Ok((
            Some(tensor(dx, x)?),
            Some(tensor(dweight, weight)?),
            Some(Tensor::from_vec(dbias, outputs, x.device())?),
        ))
    }
}

/// `activation(x)`, a number at a time: [N, F] -> [N, F].
///
/// # Errors
/// What candle meets.
pub fn activated(x: &Tensor, activation: Activation) -> Result<Tensor> {
    if is_plain(x) {
        return x.apply_op1(ActivationOp(activation));
    }
    activate(activation, x)
}

struct ActivationOp(Activation);

impl CustomOp1 for ActivationOp {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous_f32(storage, layout)?;
        let mut y = vec![0.0; x.len()];
        let width = *layout.dims().last().unwrap_or(&1);
        kernel::forward(Form::Numbers, (self.0, false), width, x, &mut y);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let mut dx = with_f32(x, <[f32]>::to_vec)?;
        let width = *x.dims().last().unwrap_or(&1);
        with_f32(&grad, |dy| {
            kernel::vjp_in_place(Form::Numbers, (self.0, false), width, dy, &mut dx);
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::sys::rng::SeededRng;

    #[test]
    fn an_activation_and_its_gradient_are_those_of_plain_ops() {
        let numbers = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut rng = SeededRng::new(2, 0);
        let mut draw =
            || Tensor::from_vec(rng.normals(21 * 70, 2.0), (21, 70), &Device::Cpu).unwrap();
        let (x, g) = (Var::from_tensor(&draw()).unwrap(), draw());
        for activation in [
            Activation::Relu,
            Activation::GeluTanh,
            Activation::GeluErf,
            Activation::Silu,
        ] {
            let (fused, plain) = (
                activated(&x, activation).unwrap(),
                activate(activation, &x).unwrap(),
            );
            let gradient = |y: &Tensor| {
                let store = (y * &g).unwrap().backward().unwrap();
                numbers(store.get(&x).unwrap())
            };
            let pairs = numbers(&fused).into_iter().zip(numbers(&plain));
            for (a, b) in pairs.chain(gradient(&fused).into_iter().zip(gradient(&plain))) {
                assert!(
                    (a - b).abs() <= 1e-5 * (1.0 + b.abs()),
                    "{activation:?}: {a} and {b}"
                );
            }
        }
    }

    #[test]
    fn values_and_gradients_of_a_layer_are_those_of_plain_ops() {
        let mut rng = SeededRng::new(1, 0);
        for (count, inputs, outputs) in [(1, 1, 1), (7, 5, 70), (60, 40, 33)] {
            let mut draw = |shape: &[usize]| {
                let numbers = rng.normals(shape.iter().product(), 1.0);
                Var::from_tensor(&Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()).unwrap()
            };
            let (x, weight) = (draw(&[count, inputs]), draw(&[outputs, inputs]));
            let (bias, g) = (draw(&[outputs]), draw(&[count, outputs]));
            let plain = x.matmul(&weight.t().unwrap()).unwrap();
            let plain = plain.broadcast_add(&bias).unwrap();
            let fused = linear(&x, &weight, &bias).unwrap();
            let numbers = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let alike = |a: &Tensor, b: &Tensor| {
                let pairs = numbers(a).into_iter().zip(numbers(b));
                for (a, b) in pairs {
                    assert!((a - b).abs() <= 2e-5 * (1.0 + b.abs()), "{a} and {b}");
                }
            };
            alike(&fused, &plain);
            let gradients = |y: &Tensor| (y * g.as_tensor()).unwrap().backward().unwrap();
            let (found, expected) = (gradients(&fused), gradients(&plain));
            for parameter in [&x, &weight, &bias] {
                alike(
                    found.get(parameter).unwrap(),
                    expected.get(parameter).unwrap(),
                );
            }
        }
    }
}
