//! A sentencepiece model and the tokens that were added beside it: sentinels, begin and end of text, and the like.
//!
//! A text is cut at every added token and each stretch between is encoded on its own. NeMo's legacy sentencepiece
//! wrapper and transformers' T5 and Llama tokenizers agree in that.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, MatchKind};
use anyhow::Result;

use super::Encoded;
use super::sentencepiece::SentencePiece;

/// A sentencepiece model with tokens beside it.
pub(super) struct WithAddedTokens {
    model: SentencePiece,
    ids: HashMap<String, u32>,
    names: HashMap<u32, String>,
    /// Added tokens in the order in which they were added: of two that begin at the same place the earlier one counts.
    matched: Vec<(String, u32)>,
    matcher: Option<AhoCorasick>,
    /// Whether every stretch is encoded as if it were a text, or only the first.
    pub(super) prefix_each_stretch: bool,
    /// Whether the unknown piece is left out of decoded text.
    pub(super) hide_unknown: bool,
    size: u32,
}

impl WithAddedTokens {
    pub(super) fn new(model: SentencePiece) -> Self {
        Self {
            size: model.len() as u32,
            model,
            ids: HashMap::new(),
            names: HashMap::new(),
            matched: vec![],
            matcher: None,
            prefix_each_stretch: true,
            hide_unknown: false,
        }
    }

    pub(super) fn model(&self) -> &SentencePiece {
        &self.model
    }

    /// Adds `token` behind everything else, unless the model or an earlier addition has it: NeMo's rule. Call
    /// [`Self::finish`] before encoding.
    pub(super) fn append(&mut self, token: &str) {
        let is_new = self
            .model
            .piece_to_id(token)
            .is_none_or(|id| id == self.model.unknown_id())
            && !self.ids.contains_key(token);
        if is_new {
            self.map(token, self.size);
        }
    }

    /// Finds `token` in texts and gives it this id.
    pub(super) fn map(&mut self, token: &str, id: u32) {
        if token.is_empty() {
            return;
        }
        if let Some(known) = self.matched.iter_mut().find(|(name, _)| name == token) {
            known.1 = id;
        } else {
            self.matched.push((token.to_owned(), id));
        }
        self.ids.insert(token.to_owned(), id);
        if id >= self.model.len() as u32 {
            self.names.entry(id).or_insert_with(|| token.to_owned());
        }
        self.size = self.size.max(id.saturating_add(1));
    }

    /// Makes the added tokens count.
    pub(super) fn finish(&mut self) -> Result<()> {
        let names = self.matched.iter().map(|(name, _)| name);
        self.matcher = (!self.matched.is_empty())
            .then(|| {
                AhoCorasick::builder()
                    .match_kind(MatchKind::LeftmostFirst)
                    .build(names)
            })
            .transpose()?;
        Ok(())
    }

    pub(super) fn encode(&self, text: &str) -> Encoded {
        let mut out = Encoded::default();
        let mut start = 0;
        let stretch = |out: &mut Encoded, start: usize, end: usize| {
            let is_start = self.prefix_each_stretch || start == 0;
            self.model.encode(&text[start..end], is_start, |id, range| {
                out.ids.push(id);
                out.offsets.push(range.start + start..range.end + start);
            });
        };
        if let Some(matcher) = &self.matcher {
            for found in matcher.find_iter(text) {
                stretch(&mut out, start, found.start());
                out.ids.push(self.matched[found.pattern().as_usize()].1);
                out.offsets.push(found.range());
                start = found.end();
            }
        }
        stretch(&mut out, start, text.len());
        out
    }

    /// The text of `ids`, without added and control tokens.
    pub(super) fn decode(&self, ids: &[u32]) -> String {
        let is_text = |id: &&u32| {
            let is_hidden = **id == self.model.unknown_id() && self.hide_unknown;
            !is_hidden && !self.matched.iter().any(|(_, added)| added == *id)
        };
        let ids: Vec<u32> = ids.iter().filter(is_text).copied().collect();
        self.model.decode(&ids)
    }

    pub(super) fn token_to_id(&self, token: &str) -> Option<u32> {
        let added = self.ids.get(token).copied();
        added.or_else(|| self.model.piece_to_id(token))
    }

    pub(super) fn id_to_token(&self, id: u32) -> Option<String> {
        let piece = self.model.id_to_piece(id).map(str::to_owned);
        piece.or_else(|| self.names.get(&id).cloned())
    }

    /// One more than the highest id.
    pub(super) fn size(&self) -> usize {
        self.size as usize
    }
}
