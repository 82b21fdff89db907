//! How rows become token ids, and the ids that stand around their text.

use anyhow::Result;

use crate::data::jsonl::Purpose;
use crate::diag::{Diagnostic, Location};
use crate::tokenize::Tokenizer;

/// The two shapes of frozen model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Decoder only: prompt and answer are one sequence.
    Gpt,
    /// Encoder and decoder: the prompt is encoded, the answer decoded.
    T5,
}

/// How rows become token ids; names as in `model.data`.
#[derive(Clone, Debug)]
pub struct DatasetOptions {
    /// Which kind of model reads the rows.
    pub architecture: Architecture,
    /// What they are for.
    pub purpose: Purpose,
    /// Longest sequence in tokens, virtual ones included (T5: of the encoder). For GPT generation this is the room for
    /// the prompt alone, without the tokens to be generated.
    pub max_seq_length: usize,
    /// Rows shorter than this are left out in training.
    pub min_seq_length: usize,
    /// Put the beginning-of-text token in front.
    pub add_bos: bool,
    /// Put the end-of-text token behind (GPT: behind the answer, only for [`Purpose::Learn`]; T5: behind the encoder's
    /// text).
    pub add_eos: bool,
    /// T5: the decoder starts with the padding token, as Hugging Face's T5 does, instead of beginning-of-text.
    pub decoder_starts_with_pad: bool,
    /// T5: the target ends with end-of-text, else with `<extra_id_1>`.
    pub add_eos_to_decoder_output: bool,
    /// T5: `<extra_id_0>` behind the encoder's text and before the answer.
    pub add_sentinel_to_input: bool,
    /// T5: a token put before the encoder's text (`<extra_id_s>`, `<extra_id_r>`, `<extra_id_x>` of UL2).
    pub ul2_prompt_token: Option<String>,
    /// Virtual token `j` of a row's task has the id `pseudo_token_ids_start + j`; above every real id.
    pub pseudo_token_ids_start: u32,
}

impl DatasetOptions {
    /// NeMo's defaults for this architecture.
    pub fn new(
        architecture: Architecture,
        purpose: Purpose,
        max_seq_length: usize,
        pseudo_token_ids_start: u32,
    ) -> Self {
        Self {
            architecture,
            purpose,
            max_seq_length,
            min_seq_length: 1,
            add_bos: false,
            add_eos: true,
            decoder_starts_with_pad: false,
            add_eos_to_decoder_output: true,
            add_sentinel_to_input: true,
            ul2_prompt_token: None,
            pseudo_token_ids_start,
        }
    }

    /// The tokens a T5 decoder starts generating from: one.
    ///
    /// # Errors
    /// A [`Diagnostic`] where the tokenizer has no such token.
    pub fn decoder_start(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        Ok(vec![SpecialIds::find(self, tokenizer)?.decoder_start])
    }
}

/// The ids around the text, looked up once.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpecialIds {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) ul2: Option<u32>,
    /// `<extra_id_0>` where T5 is asked to use it.
    pub(super) sentinel: Option<u32>,
    pub(super) decoder_start: u32,
    pub(super) decoder_end: u32,
}

impl SpecialIds {
    pub(super) fn find(options: &DatasetOptions, tokenizer: &Tokenizer) -> Result<Self> {
        let special = tokenizer.special;
        let need = |id: Option<u32>, name: &str, hint: &str| {
            id.ok_or_else(|| {
                Diagnostic::configuration(format!("the tokenizer has no {name} token"))
                    .at(Location::file(tokenizer.path().display()))
                    .hint(hint)
            })
        };
        let bos = |hint| need(special.bos, "beginning-of-text (`bos`)", hint);
        let eos = |hint| need(special.eos, "end-of-text (`eos`)", hint);
        let mut ids = Self {
            bos: if options.add_bos {
                Some(bos("model.data.add_bos=false")?)
            } else {
                None
            },
            eos: if options.add_eos {
                Some(eos("model.data.add_eos=false")?)
            } else {
                None
            },
            ul2: None,
            sentinel: None,
            decoder_start: 0,
            decoder_end: 0,
        };
        if options.architecture == Architecture::Gpt {
            return Ok(ids);
        }
        if options.add_sentinel_to_input {
            ids.sentinel = Some(tokenizer.sentinel(0)?);
        }
        ids.decoder_start = if options.decoder_starts_with_pad {
            // NeMo falls back on the unknown token as well.
            need(
                special.pad.or(special.unk),
                "padding (`pad`)",
                "model.data.decoder_starts_with_pad=false",
            )?
        } else {
            bos("model.data.decoder_starts_with_pad=true")?
        };
        ids.decoder_end = if options.add_eos_to_decoder_output {
            eos("model.data.add_eos_to_decoder_output=false")?
        } else {
            tokenizer.sentinel(1)?
        };
        if let Some(token) = &options.ul2_prompt_token {
            ids.ul2 = Some(tokenizer.token_to_id(token).ok_or_else(|| {
                Diagnostic::configuration(format!(
                    "`model.data.ul2_prompt_token`: the tokenizer has no token `{token}`"
                ))
                .at(Location::file(tokenizer.path().display()))
            })?);
        }
        Ok(ids)
    }
}
