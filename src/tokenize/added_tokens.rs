//! A sentencepiece model and the tokens that were added beside it: sentinels, begin and end of text, and the like.
//!
//! A text is cut at every added token and each stretch between is encoded on its own. NeMo's legacy sentencepiece
//! wrapper and transformers' T5 and Llama tokenizers agree in that.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, MatchKind};
use anyhow::Result;
use sha2::{Digest, Sha256};

use super::Encoded;
use super::sentencepiece::SentencePiece;

/// A sentencepiece model with tokens beside it.
pub(super) struct WithAddedTokens {
    model: SentencePiece,
    ids: HashMap<String, u32>,
    names: HashMap<u32, String>,
    /// Added tokens in the order in which they were added: of two that begin at the same place the earlier one counts.
    matched: Vec<Added>,
    matcher: Option<AhoCorasick>,
    /// Whether every stretch is encoded as if it were a text, or only the first.
    pub(super) prefix_each_stretch: bool,
    /// Whether the unknown piece is left out of decoded text.
    pub(super) hide_unknown: bool,
    size: u32,
}

/// A token that is found in texts.
struct Added {
    name: String,
    id: u32,
    strip: Strip,
}

/// Whether the blanks beside an added token belong to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Strip {
    pub(super) left: bool,
    pub(super) right: bool,
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
        self.map_stripping(token, id, Strip::default());
    }

    /// As [`Self::map`], for a token that takes the blanks beside it.
    pub(super) fn map_stripping(&mut self, token: &str, id: u32, strip: Strip) {
        if token.is_empty() {
            return;
        }
        let name = token.to_owned();
        match self.matched.iter_mut().find(|known| known.name == token) {
            Some(known) => *known = Added { name, id, strip },
            None => self.matched.push(Added { name, id, strip }),
        }
        self.ids.insert(token.to_owned(), id);
        if id >= self.model.len() as u32 {
            self.names.entry(id).or_insert_with(|| token.to_owned());
        }
        self.size = self.size.max(id.saturating_add(1));
    }

    /// Makes the added tokens count.
    pub(super) fn finish(&mut self) -> Result<()> {
        let names = self.matched.iter().map(|added| &added.name);
        self.matcher = (!self.matched.is_empty())
            .then(|| {
                AhoCorasick::builder()
                    .match_kind(MatchKind::LeftmostFirst)
                    .build(names)
            })
            .transpose()?;
        Ok(())
    }

    /// Adds to `hash` everything that decides which ids a text becomes.
    pub(super) fn hash(&self, hash: &mut Sha256) {
        hash.update(self.model.hash());
        hash.update([u8::from(self.prefix_each_stretch)]);
        for added in &self.matched {
            hash.update((added.name.len() as u64).to_le_bytes());
            hash.update(&added.name);
            hash.update(added.id.to_le_bytes());
            hash.update([u8::from(added.strip.left), u8::from(added.strip.right)]);
        }
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
                let added = &self.matched[found.pattern().as_usize()];
                let before = &text[start..found.start()];
                let kept = if added.strip.left {
                    before.trim_end()
                } else {
                    before
                };
                stretch(&mut out, start, start + kept.len());
                out.ids.push(added.id);
                out.offsets.push(found.range());
                start = found.end();
                if added.strip.right {
                    start += text[start..].len() - text[start..].trim_start().len();
                }
            }
        }
        stretch(&mut out, start, text.len());
        out
    }

    /// The text of `ids`, without added and control tokens.
    pub(super) fn decode(&self, ids: &[u32]) -> String {
        let is_text = |id: &&u32| {
            let is_hidden = **id == self.model.unknown_id() && self.hide_unknown;
            !is_hidden && !self.matched.iter().any(|added| added.id == **id)
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
