//! The part of an LSTM that goes from one virtual token to the next (Hochreiter and Schmidhuber 1997, with the gates of
//! `torch.nn.LSTM`): everything that is one product for all tokens is done outside.
//!
//! On the CPU in f32 both directions run side by side in one op with a backward of its own; elsewhere the same is said
//! in plain tensor operations, which are slower and differentiable by candle.

use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::model::ops::{contiguous_f32, with_f32};

/// Weights from which a product is worth more than one thread.
const SHARED_WEIGHTS: usize = 1 << 20;
/// Numbers summed side by side, so that a sum fits vector registers.
const LANES: usize = 16;
/// Rows of the weights that are added up in one pass.
const ROWS: usize = 8;

/// The hidden states [D, V, h] of D independent recurrences over V tokens.
///
/// `gates` [D, V, 4h] holds what the inputs and the biases give to the input, forget, cell and output gate, `weights`
/// [D, 4h, h] multiplies the hidden state before. Recurrence 0 goes forward through the tokens, recurrence 1 backward.
/// States start at zero. Differentiable in both.
pub(super) fn hidden_states(gates: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let (gates, weights) = (gates.contiguous()?, weights.contiguous()?);
    if matches!(gates.device(), Device::Cpu) && gates.dtype() == DType::F32 {
        gates.apply_op2(&weights, HiddenStates)
    } else {
        plain_hidden_states(&gates, &weights)
    }
}

/// [`hidden_states`] in candle's own operations, of any float type.
fn plain_hidden_states(gates: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let (directions, tokens, _) = gates.dims3()?;
    let width = weights.dim(2)?;
    let mut all = vec![];
    for direction in 0..directions {
        let gates = gates.get(direction)?; // [V, 4h]
        let weights = weights.get(direction)?.t()?; // [h, 4h]
        let mut hidden = Tensor::zeros((1, width), gates.dtype(), gates.device())?; // [1, h]
        let mut cell = hidden.clone(); // [1, h]
        let mut states = vec![];
        for step in 0..tokens {
            let token = place(direction, step, tokens);
            let sums = (gates.narrow(0, token, 1)? + hidden.matmul(&weights)?)?; // [1, 4h]
            let gate = |index: usize| sums.narrow(1, index * width, width);
            let kept = (plain_sigmoid(&gate(1)?)? * &cell)?;
            cell = (kept + (plain_sigmoid(&gate(0)?)? * gate(2)?.tanh()?)?)?;
            hidden = (plain_sigmoid(&gate(3)?)? * cell.tanh()?)?;
            states.push(hidden.clone());
        }
        if direction == 1 {
            states.reverse();
        }
        all.push(Tensor::cat(&states, 0)?); // [V, h]
    }
    Tensor::stack(&all, 0) // [D, V, h]
}

/// The logistic function by way of tanh, whose gradient stays finite far from zero.
fn plain_sigmoid(x: &Tensor) -> Result<Tensor> {
    x.affine(0.5, 0.0)?.tanh()?.affine(0.5, 0.5)
}

/// Which of `tokens` tokens a recurrence is at in its step `step`.
fn place(direction: usize, step: usize, tokens: usize) -> usize {
    if direction == 1 {
        tokens - 1 - step
    } else {
        step
    }
}

struct HiddenStates;

impl CustomOp2 for HiddenStates {
    fn name(&self) -> &'static str {
        "lstm-hidden-states"
    }

    fn cpu_fwd(
        &self,
        gates: &CpuStorage,
        gates_layout: &Layout,
        weights: &CpuStorage,
        weights_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (directions, tokens, _) = gates_layout.shape().dims3()?;
        let width = weights_layout.shape().dims3()?.2;
        let gates = contiguous_f32(gates, gates_layout)?;
        let weights = contiguous_f32(weights, weights_layout)?;
        let mut hidden = vec![0.0; directions * tokens * width];
        hidden
            .par_chunks_mut((tokens * width).max(1))
            .enumerate()
            .for_each(|(direction, hidden)| {
                let gates = &gates[direction * tokens * 4 * width..][..tokens * 4 * width];
                let weights = &weights[direction * 4 * width * width..][..4 * width * width];
                forward(direction, width, gates, weights, hidden);
            });
        Ok((
            CpuStorage::F32(hidden),
            Shape::from((directions, tokens, width)),
        ))
    }

    fn bwd(
        &self,
        gates: &Tensor,
        weights: &Tensor,
        hidden: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (directions, tokens, _) = gates.dims3()?;
        let width = weights.dim(2)?;
        // With the states known, the gates of all tokens come from one product.
        let before = states_before(&hidden.detach())?; // [D, V, h]
        let (gates, weights) = (gates.detach(), weights.detach());
        let sums = (gates + before.matmul(&weights.transpose(1, 2)?)?)?; // [D, V, 4h]
        let mut sums = sums.flatten_all()?.to_vec1::<f32>()?;
        let gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
        with_f32(&weights, |weights| {
            sums.par_chunks_mut((tokens * 4 * width).max(1))
                .enumerate()
                .for_each(|(direction, sums)| {
                    let weights = &weights[direction * 4 * width * width..][..4 * width * width];
                    let gradient = &gradient[direction * tokens * width..][..tokens * width];
                    backward(direction, width, weights, gradient, sums);
                });
        })?;
        let shape = (directions, tokens, 4 * width);
        let gates_gradient = Tensor::from_vec(sums, shape, &Device::Cpu)?; // [D, V, 4h]
        let weights_gradient = gates_gradient.transpose(1, 2)?.matmul(&before)?; // [D, 4h, h]
        Ok((Some(gates_gradient), Some(weights_gradient)))
    }
}

/// The hidden state that every token found: zeros for the first of each direction. [D, V, h]
fn states_before(hidden: &Tensor) -> Result<Tensor> {
    let (directions, tokens, width) = hidden.dims3()?;
    let start = Tensor::zeros((1, width), hidden.dtype(), hidden.device())?;
    let shifted = (0..directions)
        .map(|direction| {
            let states = hidden.get(direction)?; // [V, h]
            if direction == 1 {
                Tensor::cat(&[&states.narrow(0, 1, tokens - 1)?, &start], 0)
            } else {
                Tensor::cat(&[&start, &states.narrow(0, 0, tokens - 1)?], 0)
            }
        })
        .collect::<Result<Vec<_>>>()?;
    Tensor::stack(&shifted, 0)
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// One direction: `gates` [V, 4h] and `weights` [4h, h] to `hidden` [V, h].
fn forward(direction: usize, width: usize, gates: &[f32], weights: &[f32], hidden: &mut [f32]) {
    let tokens = hidden.len() / width.max(1);
    let mut state = vec![0.0; width];
    let mut cell = vec![0.0; width];
    for step in 0..tokens {
        let token = place(direction, step, tokens);
        let mut sums = gates[token * 4 * width..][..4 * width].to_vec();
        add_product(weights, &state, &mut sums);
        for unit in 0..width {
            let [input, forget, candidate, output] =
                [0, 1, 2, 3].map(|gate| sums[gate * width + unit]);
            cell[unit] = sigmoid(forget) * cell[unit] + sigmoid(input) * candidate.tanh();
            state[unit] = sigmoid(output) * cell[unit].tanh();
        }
        hidden[token * width..][..width].copy_from_slice(&state);
    }
}

/// One direction backward: `sums` [V, 4h] holds the gates before their activations and becomes the gradient of that;
/// `gradient` [V, h] is that of the hidden states.
fn backward(direction: usize, width: usize, weights: &[f32], gradient: &[f32], sums: &mut [f32]) {
    let tokens = gradient.len() / width.max(1);
    let mut cells = vec![0.0; (tokens + 1) * width]; // by step; step 0 found zeros
    for step in 0..tokens {
        let sums = &sums[place(direction, step, tokens) * 4 * width..][..4 * width];
        for unit in 0..width {
            let kept = sigmoid(sums[width + unit]) * cells[step * width + unit];
            cells[(step + 1) * width + unit] =
                kept + sigmoid(sums[unit]) * sums[2 * width + unit].tanh();
        }
    }
    let mut from_later = vec![0.0; width]; // gradient that the next token's gates give this state
    let mut cell_gradient = vec![0.0; width];
    for step in (0..tokens).rev() {
        let token = place(direction, step, tokens);
        let sums = &mut sums[token * 4 * width..][..4 * width];
        for unit in 0..width {
            let input = sigmoid(sums[unit]);
            let forget = sigmoid(sums[width + unit]);
            let candidate = sums[2 * width + unit].tanh();
            let output = sigmoid(sums[3 * width + unit]);
            let squashed = cells[(step + 1) * width + unit].tanh();
            let state_gradient = gradient[token * width + unit] + from_later[unit];
            let through_cell =
                cell_gradient[unit] + state_gradient * output * (1.0 - squashed * squashed);
            sums[unit] = through_cell * candidate * input * (1.0 - input);
            sums[width + unit] =
                through_cell * cells[step * width + unit] * forget * (1.0 - forget);
            sums[2 * width + unit] = through_cell * input * (1.0 - candidate * candidate);
            sums[3 * width + unit] = state_gradient * squashed * output * (1.0 - output);
            cell_gradient[unit] = through_cell * forget;
        }
        from_later.fill(0.0);
        add_transposed_product(weights, sums, &mut from_later);
    }
}

/// `sums` [rows] += `weights` [rows, columns] · `x` [columns].
fn add_product(weights: &[f32], x: &[f32], sums: &mut [f32]) {
    let columns = x.len();
    let one = |(sum, row): (&mut f32, &[f32])| *sum += dot(row, x);
    if weights.len() < SHARED_WEIGHTS {
        sums.iter_mut()
            .zip(weights.chunks_exact(columns))
            .for_each(one);
    } else {
        sums.par_iter_mut()
            .zip(weights.par_chunks_exact(columns))
            .with_min_len(64)
            .for_each(one);
    }
}

/// `sums` [columns] += `x` [rows] · `weights` [rows, columns].
fn add_transposed_product(weights: &[f32], x: &[f32], sums: &mut [f32]) {
    let columns = sums.len();
    let part = |start: usize, sums: &mut [f32]| {
        // Several rows at once: `sums` is read and written once for all of them.
        let blocks = weights.chunks_exact(ROWS * columns);
        let (rest, factors) = (blocks.remainder(), x.chunks_exact(ROWS));
        let factors_of_rest = factors.remainder();
        for (rows, factors) in blocks.zip(factors) {
            let rows: [&[f32]; ROWS] =
                std::array::from_fn(|row| &rows[row * columns + start..][..sums.len()]);
            for (column, sum) in sums.iter_mut().enumerate() {
                let mut total = *sum;
                for (row, factor) in rows.iter().zip(factors) {
                    total += factor * row[column];
                }
                *sum = total;
            }
        }
        for (row, factor) in rest.chunks_exact(columns).zip(factors_of_rest) {
            for (sum, weight) in sums.iter_mut().zip(&row[start..]) {
                *sum += factor * weight;
            }
        }
    };
    if weights.len() < SHARED_WEIGHTS {
        part(0, sums);
    } else {
        let share = 256;
        sums.par_chunks_mut(share)
            .enumerate()
            .for_each(|(index, sums)| part(index * share, sums));
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_parts, b_parts) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_parts
        .remainder()
        .iter()
        .zip(b_parts.remainder())
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in a_parts.zip(b_parts) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::rng::SeededRng;
    use candle_core::Var;

    fn assert_close(found: &Tensor, expected: &Tensor, what: &str) {
        let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (found, expected) in numbers(found).iter().zip(numbers(expected)) {
            assert!(
                (found - expected).abs() < 2e-6 * (1.0 + expected.abs()),
                "{what}: {found} instead of {expected}"
            );
        }
    }

    /// States and both gradients of the op, against candle's own operations; 17 units do not fill the lanes evenly.
    #[test]
    fn the_op_and_plain_operations_agree_in_states_and_gradients() {
        let device = Device::Cpu;
        let mut rng = SeededRng::new(5, 0);
        for (tokens, width) in [(1, 3), (6, 17)] {
            let numbers = |rng: &mut SeededRng, shape: (usize, usize, usize)| {
                let count = shape.0 * shape.1 * shape.2;
                Var::from_tensor(
                    &Tensor::from_vec(rng.normals(count, 0.7), shape, &device).unwrap(),
                )
                .unwrap()
            };
            let gates = numbers(&mut rng, (2, tokens, 4 * width));
            let weights = numbers(&mut rng, (2, 4 * width, width));
            let factors = numbers(&mut rng, (2, tokens, width)).as_detached_tensor();
            let run = |states: Tensor| {
                let loss = (&states * &factors).unwrap().sum_all().unwrap();
                let store = loss.backward().unwrap();
                [&gates, &weights].map(|var| store.get(var).unwrap().clone())
            };
            let op = hidden_states(&gates, &weights).unwrap();
            let plain = plain_hidden_states(&gates, &weights).unwrap();
            assert_close(&op, &plain, "states");
            let (op, plain) = (run(op), run(plain));
            assert_close(&op[0], &plain[0], "gradient of the gates");
            assert_close(&op[1], &plain[1], "gradient of the weights");
        }
    }

    #[test]
    fn products_shared_by_threads_equal_those_of_one() {
        let (rows, columns) = (4 * 520, 520); // above the threshold, in uneven shares
        let mut rng = SeededRng::new(6, 0);
        let weights = rng.normals(rows * columns, 1.0);
        let x = rng.normals(columns, 1.0);
        let y = rng.normals(rows, 1.0);
        assert!(weights.len() >= SHARED_WEIGHTS);
        let (mut found, mut found_transposed) = (vec![0.0; rows], vec![0.0; columns]);
        add_product(&weights, &x, &mut found);
        add_transposed_product(&weights, &y, &mut found_transposed);
        for row in [0, 1, 519, 2079] {
            let expected = dot(&weights[row * columns..][..columns], &x);
            assert!((found[row] - expected).abs() < 1e-6);
        }
        for column in [0, 255, 256, 519] {
            let expected: f64 = (0..rows)
                .map(|row| f64::from(weights[row * columns + column]) * f64::from(y[row]))
                .sum();
            assert!((f64::from(found_transposed[column]) - expected).abs() < 1e-3);
        }
    }
}
