//! The converted model beside its source: both read the same random rows, and their logits are compared.

use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Tensor};

use crate::diag::Diagnostic;
use crate::model::checkpoint::Checkpoint;
use crate::model::{LanguageModel, LmInputs, LoadOptions, Rows};
use crate::sys::rng::SeededRng;
use crate::tensors::nemo_files::NemoFiles;

/// Lengths of the rows that are compared.
const LENGTHS: [usize; 3] = [24, 7, 1];
/// Largest difference, relative to the largest logit, that rounding explains.
const TOLERANCE: f64 = 1e-3;

/// Loads both, compares, and says how far they are apart.
///
/// The CPU computes in f32 whatever weights are held in, so that a source held in the type that was asked for (`dtype`)
/// differs by nothing but its layout.
///
/// # Errors
/// A [`Diagnostic`] of the job where it is more than rounding.
pub(super) fn compare(source: &Checkpoint, written: &Path, dtype: Option<DType>) -> Result<()> {
    let options = LoadOptions {
        dtype: Some(DType::F32),
        ..LoadOptions::default()
    };
    let rounded = LoadOptions {
        dtype: dtype.or(options.dtype),
        ..LoadOptions::default()
    };
    let written_model = if NemoFiles::is_nemo(written) {
        Checkpoint::nemo(&NemoFiles::open(written)?)?
    } else {
        Checkpoint::hugging_face(written)?
    };
    let before = source.model(&rounded)?;
    // Ids that both have; padding beyond them is free to differ.
    let vocabulary = before.vocab_size().min(written_model.config.vocab_size());
    let expected = logits(&before, vocabulary)?;
    drop(before);
    let after = written_model.model(&options)?;
    let found = logits(&after, vocabulary)?;
    let shared = found.dim(1)?.min(expected.dim(1)?);
    let largest = |tensor: &Tensor| -> Result<f64> {
        Ok(f64::from(tensor.abs()?.max_all()?.to_scalar::<f32>()?))
    };
    let expected = expected.narrow(1, 0, shared)?;
    let difference = largest(&(found.narrow(1, 0, shared)? - &expected)?)?;
    let scale = largest(&expected)?;
    tracing::info!(
        "verified: largest difference of logits {difference:.1e}, largest logit {scale:.1e}"
    );
    if difference <= TOLERANCE * scale {
        return Ok(());
    }
    Err(
        Diagnostic::job("the converted model computes something else than its source")
            .note(format!(
                "largest difference of logits: {difference:.1e}; largest logit: {scale:.1e}"
            ))
            .note(format!("converted: {}", written.display()))
            .into(),
    )
}

/// Logits of random rows: [N, vocabulary].
fn logits(model: &LanguageModel, vocabulary: usize) -> Result<Tensor> {
    let mut rng = SeededRng::new(1234, 0);
    let limit = model.max_positions().unwrap_or(usize::MAX);
    let lengths = LENGTHS.map(|length| length.min(limit));
    let mut ids =
        |count: usize| -> Vec<u32> { (0..count).map(|_| rng.below(vocabulary) as u32).collect() };
    let rows = Rows::new(lengths.to_vec());
    let input = ids(rows.total());
    let decoder_rows = Rows::new([5; 3]);
    let decoder_ids = match model {
        LanguageModel::Gpt(_) => vec![],
        LanguageModel::T5(_) => ids(decoder_rows.total()),
    };
    let inputs = LmInputs {
        embeddings: &model.embed_tokens(&input)?,
        trained_positions: None,
        rows: &rows,
        decoder_ids: &decoder_ids,
        decoder_rows: Some(&decoder_rows),
        loss_positions: &[],
        labels: &[],
        weights: &[],
    };
    model.logits(&inputs, model.engine())
}
