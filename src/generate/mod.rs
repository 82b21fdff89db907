//! Answers from a model: greedy, batched over packed prompts of different lengths, with a cache of keys and values.

use anyhow::Result;
use candle_core::{DType, Tensor};

use crate::model::{LanguageModel, Rows};

/// When to start and when to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerateOptions {
    /// Most tokens written for a row.
    pub max_new_tokens: usize,
    /// Ends a row; not part of the answer.
    pub eos: Option<u32>,
    /// First ids of a T5's decoder (usually the padding id alone); not part of the answer.
    pub decoder_start: Vec<u32>,
    /// Ids from here on are padding of the vocabulary, which no tokenizer can read, and are never written.
    pub vocabulary: Option<usize>,
}

/// Continues each row with the most likely token, again and again: ids of each row, without `eos`.
///
/// `embeddings` [N, H] are the prompts of `rows`, virtual tokens included. Rows that are finished leave the batch. A
/// GPT's row also ends where the model has no more positions.
///
/// # Errors
/// Where a prompt is empty or longer than the model can read.
pub fn greedy(
    model: &LanguageModel,
    embeddings: &Tensor,
    rows: &Rows,
    options: &GenerateOptions,
) -> Result<Vec<Vec<u32>>> {
    let mut answers = vec![vec![]; rows.count()];
    if rows.count() == 0 || options.max_new_tokens == 0 {
        return Ok(answers);
    }
    let (mut state, mut logits) = model.start_decoding(
        embeddings,
        rows,
        &options.decoder_start,
        options.max_new_tokens,
        model.engine(),
    )?;
    // Place in the batch -> row of the answers.
    let mut active: Vec<usize> = (0..rows.count()).collect();
    let limit = match model {
        LanguageModel::Gpt(_) => model.max_positions(),
        LanguageModel::T5(t5) => t5.max_decoder_positions(),
    };
    loop {
        let lengths = state.lengths();
        let mut going_on = vec![];
        let mut next = vec![];
        for (place, token) in most_likely(&logits, options.vocabulary)?
            .into_iter()
            .enumerate()
        {
            if Some(token) == options.eos {
                continue;
            }
            let answer = &mut answers[active[place]];
            answer.push(token);
            let room = limit.is_none_or(|limit| lengths[place] < limit);
            if answer.len() < options.max_new_tokens && room {
                going_on.push(place);
                next.push(token);
            }
        }
        if next.is_empty() {
            return Ok(answers);
        }
        if going_on.len() < active.len() {
            state.keep(&going_on);
            active = going_on.into_iter().map(|place| active[place]).collect();
        }
        logits = state.step(&next)?;
    }
}

/// Index of the largest number of each row; the first of equals.
fn most_likely(logits: &Tensor, vocabulary: Option<usize>) -> Result<Vec<u32>> {
    let rows: Vec<Vec<f32>> = logits.to_dtype(DType::F32)?.to_vec2()?;
    Ok(rows
        .iter()
        .map(|row| {
            let mut best = 0;
            let known = vocabulary.unwrap_or(row.len()).min(row.len());
            for (token, &logit) in row[..known].iter().enumerate() {
                if logit > row[best] {
                    best = token;
                }
            }
            best as u32
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    use crate::model::config::GptConfig;
    use crate::model::{Engine, LmInputs, ModelConfig, toy};
    use crate::sys::rng::SeededRng;

    fn models() -> [LanguageModel; 5] {
        let neox = GptConfig {
            parallel_residual: true,
            ..toy::gpt_config()
        };
        [
            toy::random(ModelConfig::Gpt(toy::gpt_config()), 3).unwrap(),
            toy::random(ModelConfig::T5(toy::t5_config()), 4).unwrap(),
            toy::random(ModelConfig::Gpt(toy::llama_config()), 5).unwrap(),
            toy::random(ModelConfig::Gpt(neox), 6).unwrap(),
            toy::random(ModelConfig::T5(toy::megatron_t5_config()), 7).unwrap(),
        ]
    }

    fn prompts() -> Vec<Vec<u32>> {
        let mut rng = SeededRng::new(5, 0);
        [9, 1, 23, 4]
            .map(|length| (0..length).map(|_| rng.below(96) as u32).collect())
            .to_vec()
    }

    fn generate(
        model: &LanguageModel,
        prompts: &[Vec<u32>],
        options: &GenerateOptions,
    ) -> Vec<Vec<u32>> {
        let rows = Rows::new(prompts.iter().map(Vec::len).collect::<Vec<_>>());
        let embeddings = model.embed_tokens(&prompts.concat()).unwrap();
        greedy(model, &embeddings, &rows, options).unwrap()
    }

    /// The same, one row at a time, everything computed anew for each token by the reference engine.
    fn without_a_cache(
        model: &LanguageModel,
        prompt: &[u32],
        options: &GenerateOptions,
    ) -> Vec<u32> {
        let mut answer = vec![];
        while answer.len() < options.max_new_tokens {
            let (input, decoder_ids) = match model {
                LanguageModel::Gpt(_) => ([prompt, &answer].concat(), vec![]),
                LanguageModel::T5(_) => (
                    prompt.to_vec(),
                    [options.decoder_start.as_slice(), &answer].concat(),
                ),
            };
            if model
                .max_positions()
                .is_some_and(|limit| input.len() > limit)
            {
                break;
            }
            let decoder_rows = Rows::new([decoder_ids.len()]);
            let inputs = LmInputs {
                embeddings: &model.embed_tokens(&input).unwrap(),
                rows: &Rows::new([input.len()]),
                decoder_ids: &decoder_ids,
                decoder_rows: Some(&decoder_rows).filter(|rows| rows.total() > 0),
                loss_positions: &[],
                labels: &[],
                weights: &[],
            };
            let token = most_likely(
                &model.last_logits(&inputs, Engine::Reference).unwrap(),
                None,
            )
            .unwrap()[0];
            if Some(token) == options.eos {
                break;
            }
            answer.push(token);
        }
        answer
    }

    #[test]
    fn rows_of_different_lengths_with_a_cache_equal_single_rows_without() {
        for model in models() {
            let mut options = GenerateOptions {
                max_new_tokens: 12,
                eos: None,
                decoder_start: vec![0],
                vocabulary: None,
            };
            let free = generate(&model, &prompts(), &options);
            assert!(free.iter().all(|answer| answer.len() == 12));
            // A token that ends some rows early and others not.
            options.eos = Some(free[0][5]);
            let answers = generate(&model, &prompts(), &options);
            assert!(answers[0].len() <= 5);
            let lengths: std::collections::BTreeSet<usize> = answers.iter().map(Vec::len).collect();
            assert!(
                lengths.len() > 1,
                "rows should end at different steps: {answers:?}"
            );
            for (prompt, answer) in prompts().iter().zip(&answers) {
                assert_eq!(answer, &without_a_cache(&model, prompt, &options));
            }
        }
    }

    #[test]
    fn ids_beyond_the_tokenizers_vocabulary_are_never_written() {
        let logits = Tensor::new(
            &[[0.0f32, 2.0, 1.0, 9.0], [3.0, 0.0, 0.0, 4.0]],
            &Device::Cpu,
        );
        let logits = logits.unwrap();
        assert_eq!(most_likely(&logits, None).unwrap(), [3, 3]);
        assert_eq!(most_likely(&logits, Some(3)).unwrap(), [1, 0]);
        assert_eq!(most_likely(&logits, Some(99)).unwrap(), [3, 3]);
    }

    #[test]
    fn the_cache_of_the_reference_engine_gives_the_same_logits() {
        for model in models() {
            let prompts = prompts();
            let rows = Rows::new(prompts.iter().map(Vec::len).collect::<Vec<_>>());
            let embeddings = model.embed_tokens(&prompts.concat()).unwrap();
            let run = |engine| {
                let (mut state, mut logits) = model
                    .start_decoding(&embeddings, &rows, &[0, 7], 3, engine)
                    .unwrap();
                let mut all = vec![logits];
                state.keep(&[0, 2, 3]);
                for ids in [[1, 2, 3], [4, 5, 6]] {
                    logits = state.step(&ids).unwrap();
                    all.push(logits);
                }
                Tensor::cat(&all, 0).unwrap()
            };
            let difference = (run(Engine::Fused) - run(Engine::Reference))
                .unwrap()
                .abs()
                .unwrap();
            let largest = difference.max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(largest < 1e-4, "logits differ by {largest}");
        }
    }

    #[test]
    fn a_gpt_stops_where_its_positions_end_and_refuses_a_longer_prompt() {
        let [gpt, ..] = models();
        let options = GenerateOptions {
            max_new_tokens: 30,
            eos: None,
            decoder_start: vec![],
            vocabulary: None,
        };
        let answers = generate(&gpt, &[vec![1; 60], vec![2; 3]], &options);
        // 60 positions are taken; 4 more can be read and the last of them predicts one token that cannot.
        assert_eq!((answers[0].len(), answers[1].len()), (5, 30));
        let embeddings = gpt.embed_tokens(&[1; 65]).unwrap();
        let error = greedy(&gpt, &embeddings, &Rows::new([65]), &options).unwrap_err();
        assert!(error.to_string().contains("longer than the 64"), "{error}");
    }
}
