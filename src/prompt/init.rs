//! First values of a directly trained prompt (prompt tuning, Lester et al. 2021).

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};

use crate::model::LanguageModel;
use crate::sys::rng::SeededRng;

/// How many of the vocabulary's first pieces `vocabulary` draws from: tokenizers list common pieces first, and Lester
/// et al. sample among the 5,000 most common.
const COMMON_PIECES: usize = 5000;

/// Normal numbers with the variance of Glorot and Bengio (2010), 2 / (V + H): NeMo's `random`. [V, H]
pub fn random(
    virtual_tokens: usize,
    hidden_size: usize,
    rng: &mut SeededRng,
    device: &Device,
) -> Result<Tensor> {
    let std = (2.0 / (virtual_tokens + hidden_size) as f64).sqrt();
    let numbers = rng.normals(virtual_tokens * hidden_size, std);
    rows_of(numbers, (virtual_tokens, hidden_size), device)
}

/// Normal numbers of mean 0 and variance 1, as a fresh `torch.nn.Embedding` has: PEFT's RANDOM. [V, H]
pub fn normal(
    virtual_tokens: usize,
    hidden_size: usize,
    rng: &mut SeededRng,
    device: &Device,
) -> Result<Tensor> {
    let numbers = rng.normals(virtual_tokens * hidden_size, 1.0);
    rows_of(numbers, (virtual_tokens, hidden_size), device)
}

/// Uniform numbers in ±0.5: Lester et al.'s random start. [V, H]
pub fn uniform(
    virtual_tokens: usize,
    hidden_size: usize,
    rng: &mut SeededRng,
    device: &Device,
) -> Result<Tensor> {
    let numbers = rng.uniforms(virtual_tokens * hidden_size, 0.5);
    rows_of(numbers, (virtual_tokens, hidden_size), device)
}

/// Numbers, row after row, as [V, H].
fn rows_of(numbers: Vec<f32>, shape: (usize, usize), device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_vec(numbers, shape, device)?)
}

/// The word embeddings of `ids`, repeated or cut to V rows: NeMo's `text`. [V, H]
///
/// # Errors
/// When the text has no tokens.
pub fn text(ids: &[u32], virtual_tokens: usize, model: &LanguageModel) -> Result<Tensor> {
    ensure!(
        !ids.is_empty(),
        "the text that initialises a prompt has no tokens"
    );
    let rows: Vec<u32> = ids.iter().copied().cycle().take(virtual_tokens).collect();
    Ok(model.embed_tokens(&rows)?.to_dtype(DType::F32)?.detach())
}

/// Root mean square of the common pieces' word embeddings: the scale that a prompt's rows live on.
pub fn embedding_scale(model: &LanguageModel) -> Result<f64> {
    let ids: Vec<u32> = (0..model.vocab_size().min(COMMON_PIECES) as u32).collect();
    let rows = model.embed_tokens(&ids)?.to_dtype(DType::F32)?; // [pieces, H]
    Ok(f64::from(
        rows.sqr()?.mean_all()?.to_scalar::<f32>()?.sqrt(),
    ))
}

/// Pieces that first values are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pieces {
    /// The vocabulary's common part.
    Common,
    /// The whole vocabulary.
    All,
}

/// The word embeddings of pieces drawn by chance, without those in `special`. [V, H]
///
/// # Errors
/// When there is no such piece.
pub fn vocabulary(
    virtual_tokens: usize,
    pieces: Pieces,
    special: &[u32],
    rng: &mut SeededRng,
    model: &LanguageModel,
) -> Result<Tensor> {
    let bound = match pieces {
        Pieces::Common => model.vocab_size().min(COMMON_PIECES),
        Pieces::All => model.vocab_size(),
    };
    let candidates: Vec<u32> = (0..bound as u32)
        .filter(|id| !special.contains(id))
        .collect();
    ensure!(
        !candidates.is_empty(),
        "the vocabulary has no piece to initialise a prompt from"
    );
    let rows: Vec<u32> = (0..virtual_tokens)
        .map(|_| candidates[rng.below(candidates.len())])
        .collect();
    Ok(model.embed_tokens(&rows)?.to_dtype(DType::F32)?.detach())
}

/// A row for each of `labels` (token ids of one label each), the mean of its pieces' word embeddings, and common pieces
/// drawn by chance in the rows that are left: Lester et al.'s class labels. [V, H]
///
/// # Errors
/// When no label has a token.
pub fn labels(
    labels: &[Vec<u32>],
    virtual_tokens: usize,
    special: &[u32],
    rng: &mut SeededRng,
    model: &LanguageModel,
) -> Result<Tensor> {
    let mut rows = vec![];
    for ids in labels.iter().filter(|ids| !ids.is_empty()) {
        if rows.len() == virtual_tokens {
            break;
        }
        let pieces = model.embed_tokens(ids)?.to_dtype(DType::F32)?; // [pieces, H]
        rows.push(pieces.mean_keepdim(0)?.detach()); // [1, H]
    }
    ensure!(
        !rows.is_empty(),
        "the labels that initialise a prompt have no tokens"
    );
    let left = virtual_tokens - rows.len();
    if left > 0 {
        rows.push(vocabulary(left, Pieces::Common, special, rng, model)?);
    }
    Ok(Tensor::cat(&rows, 0)?)
}
