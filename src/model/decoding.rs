//! Writing token by token: a model's state between one token and the next.

use std::sync::Arc;

use anyhow::{Result, ensure};
use candle_core::Tensor;

use super::head::Head;
use super::kv_cache::KvCache;
use super::memory_cache::MemoryCache;
use super::norm::Norm;
use super::ops::Engine;
use super::rows::Rows;
use super::t5::T5;
use super::{LanguageModel, LmInputs};

/// Positions that the encoder takes at once on the CPU, unless one row has more.
const ENCODED_AT_ONCE: usize = 4096;

/// Rows that are being written. Rows are told apart by their order; [`Decoding::keep`] drops those that are done.
pub struct Decoding<'a> {
    model: &'a LanguageModel,
    engine: Engine,
    cache: KvCache,
    /// T5: the encoder's output.
    memory: Option<MemoryCache>,
}

impl LanguageModel {
    /// Reads the prompts and starts to write: the state, and the logits [B, vocabulary] of each row's first new token.
    ///
    /// A GPT's prompt is `embeddings` [N, H] of `rows`. A T5 encodes them and starts its decoder with the ids
    /// `decoder_start` in every row. A row may then be given up to `max_new_tokens` more.
    ///
    /// # Errors
    /// Where a row is empty or too long for the model, or sizes do not fit.
    pub fn start_decoding(
        &self,
        embeddings: &Tensor,
        rows: &Rows,
        decoder_start: &[u32],
        max_new_tokens: usize,
        engine: Engine,
    ) -> Result<(Decoding<'_>, Tensor)> {
        ensure!(
            rows.lengths().iter().all(|&length| length > 0),
            "a prompt without a token cannot be continued"
        );
        let embeddings = embeddings.detach();
        rows.check("the prompt", embeddings.dims2()?.0)?;
        match self {
            Self::Gpt(gpt) => {
                gpt.check_length(rows.longest())?;
                let limits: Vec<usize> = rows
                    .lengths()
                    .iter()
                    .map(|length| (length + max_new_tokens).min(gpt.config.max_positions))
                    .collect();
                let layout = gpt.layers[0].attention.layout;
                let mut state = Decoding {
                    model: self,
                    engine,
                    cache: KvCache::new(gpt.layers.len(), &layout, &limits, engine),
                    memory: None,
                };
                let logits = state.advance(&embeddings, rows)?;
                Ok((state, logits))
            }
            Self::T5(t5) => {
                ensure!(!decoder_start.is_empty(), "a T5 decoder needs a first id");
                let memory = encode_in_parts(t5, &embeddings, rows, engine)?; // [N, H]
                let layers = t5.decoder.layers.iter().map(|layer| &layer.cross_attention);
                let memory = MemoryCache::new(layers, memory, rows, max_new_tokens, engine)?;
                let starts = Rows::new(vec![decoder_start.len(); rows.count()]);
                let mut limit = decoder_start.len() + max_new_tokens;
                if let Some(learned) = t5.max_decoder_positions() {
                    limit = limit.min(learned);
                }
                let limits = vec![limit; rows.count()];
                let layout = t5.decoder.layers[0].attention.layout;
                let mut state = Decoding {
                    model: self,
                    engine,
                    cache: KvCache::new(t5.decoder.layers.len(), &layout, &limits, engine),
                    memory: Some(memory),
                };
                let ids = decoder_start.repeat(rows.count());
                let logits = state.advance_ids(&ids, &starts)?;
                Ok((state, logits))
            }
        }
    }

    /// Logits of the last position of each row, everything computed anew: what [`Decoding`] must equal.
    ///
    /// # Errors
    /// As [`LanguageModel::loss`].
    pub fn last_logits(&self, inputs: &LmInputs<'_>, engine: Engine) -> Result<Tensor> {
        let rows = match self {
            Self::Gpt(_) => inputs.rows,
            Self::T5(_) => inputs.decoder_rows.unwrap_or(inputs.rows),
        };
        let logits = self.logits(inputs, engine)?;
        Ok(logits.index_select(&last_positions(rows, &logits)?, 0)?)
    }
}

impl Decoding<'_> {
    /// Takes one token for each active row and gives the logits [B, vocabulary] of the next.
    ///
    /// # Errors
    /// Where a row has reached its limit or an id is unknown.
    pub fn step(&mut self, ids: &[u32]) -> Result<Tensor> {
        self.advance_ids(ids, &Rows::new(vec![1; ids.len()]))
    }

    /// Positions of each active row so far, the prompt's included for a GPT.
    pub fn lengths(&self) -> Vec<usize> {
        self.cache.rows.lengths()
    }

    /// Goes on with these of the active rows alone, given by their place among them.
    pub fn keep(&mut self, active: &[usize]) {
        self.cache.keep(active);
        if let Some(memory) = &mut self.memory {
            memory.choose(active);
        }
    }

    /// Goes on with `sources` of the active rows, in this order. A row that is named several times goes on several
    /// times, each on its own from here: the beams of a search.
    pub fn fork(&mut self, sources: &[usize]) {
        self.cache.fork(sources);
        if let Some(memory) = &mut self.memory {
            memory.choose(sources);
        }
    }

    /// Puts new ids of each active row through the stack.
    fn advance_ids(&mut self, ids: &[u32], new: &Rows) -> Result<Tensor> {
        let x = match self.model {
            LanguageModel::Gpt(_) => self.model.embed_tokens(ids)?,
            LanguageModel::T5(t5) => t5.embed_decoder(ids, &self.positions(new))?,
        }; // [M, H]
        self.advance(&x, new)
    }

    /// Places of new tokens within their rows.
    fn positions(&self, new: &Rows) -> Vec<u32> {
        let before = self.cache.rows.lengths();
        before
            .iter()
            .zip(new.lengths())
            .flat_map(|(&before, &count)| before as u32..(before + count) as u32)
            .collect()
    }

    /// Puts new positions [M, H] of each active row through the stack; those of a T5 are in place already.
    fn advance(&mut self, embeddings: &Tensor, new: &Rows) -> Result<Tensor> {
        let active = self.cache.rows.lengths().len();
        ensure!(
            active == new.count(),
            "{active} rows are being written and tokens of {} were given",
            new.count()
        );
        let places = self.positions(new);
        let step = self.cache.begin(new)?;
        match self.model {
            LanguageModel::Gpt(gpt) => {
                let (mut x, positions) = gpt.place(embeddings, &places)?; // [M, H]
                for (number, layer) in gpt.layers.iter().enumerate() {
                    let attended =
                        self.cache
                            .attend(number, &layer.attention, &x, &step, &positions)?;
                    x = layer.finish(&x, attended, self.engine)?;
                }
                self.finish(&x, new, &gpt.norm, &gpt.head)
            }
            LanguageModel::T5(t5) => self.advance_t5(t5, embeddings, &step),
        }
    }

    fn advance_t5(
        &mut self,
        t5: &T5,
        embeddings: &Tensor,
        step: &super::kv_cache::Step,
    ) -> Result<Tensor> {
        let memory = self
            .memory
            .as_ref()
            .expect("a T5's state is made with its memory");
        let longest = self.cache.rows.lengths().into_iter().max().unwrap_or(0);
        let positions = t5
            .decoder
            .positions
            .of_layers(t5.decoder.layers.len(), longest);
        let mut x = embeddings.clone(); // [M, H]
        for (number, layer) in t5.decoder.layers.iter().enumerate() {
            x = self
                .cache
                .attend(number, &layer.attention, &x, step, &positions[number])?;
            x = memory.attend(number, &layer.cross_attention, &x, &step.new, self.engine)?;
            x = layer.feed_forward.forward(&x, self.engine)?;
        }
        self.finish(&x, &step.new, &t5.decoder.norm, &t5.head)
    }

    /// Logits of each row's last new position: [M, H] -> [B, vocabulary].
    fn finish(&self, x: &Tensor, new: &Rows, norm: &Norm, head: &Head) -> Result<Tensor> {
        let last = x.index_select(&last_positions(new, x)?, 0)?; // [B, H]
        Ok(head.logits(&norm.apply(&last, self.engine)?)?)
    }
}

/// The encoder's output for embeddings [N, H] of `rows`, on the CPU some rows at a time: what lies between its products is
/// several times as wide as what comes out, and a few thousand positions keep all threads busy.
fn encode_in_parts(t5: &T5, embeddings: &Tensor, rows: &Rows, engine: Engine) -> Result<Tensor> {
    let mut parts = vec![];
    let mut first = 0;
    while first < rows.count() {
        let start = rows.range(first).start;
        let mut end = first + 1;
        while end < rows.count()
            && (!embeddings.device().is_cpu() || rows.range(end).end - start <= ENCODED_AT_ONCE)
        {
            end += 1;
        }
        let part = Rows::new(&rows.lengths()[first..end]);
        let embeddings = embeddings.narrow(0, start, part.total())?;
        parts.push(
            t5.encode(&embeddings.contiguous()?, &Arc::new(part), None, engine)?
                .detach(),
        );
        first = end;
    }
    if let [whole] = &parts[..] {
        return Ok(whole.clone());
    }
    Ok(Tensor::cat(&parts, 0)?) // [N, H]
}

fn last_positions(rows: &Rows, like: &Tensor) -> Result<Tensor> {
    let last: Vec<u32> = rows
        .ranges()
        .iter()
        .map(|range| range.end as u32 - 1)
        .collect();
    Ok(Tensor::from_slice(&last, last.len(), like.device())?)
}
