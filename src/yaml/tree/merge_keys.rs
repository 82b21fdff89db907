//! `<<`: the pairs of other mappings, put before a mapping's own.

use super::construct::Constructor;
use super::parser::Parse;
use super::{Content, Tag};
use crate::yaml::error::YamlErrorKind as Kind;
use crate::yaml::scalar::ScalarTag;

/// More pairs than this come only from merges of merges.
pub(super) const MAX_PAIRS: usize = 100_000;

impl Constructor {
    /// Replaces the `<<` of a mapping by the pairs that it merges in, for good: where another mapping has merged this
    /// one before its turn, the keys that it overrides stand in it twice by then, and are refused, as PyYAML with
    /// OmegaConf's loader does.
    pub(super) fn merge_keys(&mut self, index: usize) -> Parse<()> {
        self.depth += 1;
        if self.depth > super::MAX_DEPTH {
            return self.fail(Kind::Constructor, index, "too many `<<` inside of `<<`");
        }
        let mut merged = vec![];
        let mut at = 0;
        while let Some(&(key, value)) = self.pairs_of(index).get(at) {
            if self.nodes[key].tag == Tag::Scalar(ScalarTag::ValueKey) {
                // `=` is a text where it is a key.
                self.nodes[key].tag = Tag::Scalar(ScalarTag::Str);
            }
            if self.nodes[key].tag != Tag::Scalar(ScalarTag::Merge) {
                at += 1;
                continue;
            }
            self.set_pairs(index, |pairs| {
                pairs.remove(at);
            });
            match &self.nodes[value].content {
                Content::Mapping(_) => {
                    self.merge_keys(value)?;
                    merged.extend_from_slice(self.pairs_of(value));
                }
                Content::Sequence(items) => {
                    let mut parts = vec![];
                    for item in items.clone() {
                        if !matches!(self.nodes[item].content, Content::Mapping(_)) {
                            return self.fail(
                                Kind::Constructor,
                                item,
                                "`<<` needs a mapping or a list of mappings",
                            );
                        }
                        self.merge_keys(item)?;
                        parts.push(self.pairs_of(item).to_vec());
                    }
                    merged.extend(parts.into_iter().rev().flatten());
                }
                Content::Scalar(_) => {
                    return self.fail(
                        Kind::Constructor,
                        value,
                        "`<<` needs a mapping or a list of mappings",
                    );
                }
            }
            if merged.len() > MAX_PAIRS {
                break;
            }
        }
        self.pairs += merged.len();
        if self.pairs > MAX_PAIRS {
            return self.fail(Kind::Constructor, index, "aliases make this text too large");
        }
        self.set_pairs(index, |pairs| {
            pairs.splice(0..0, merged);
        });
        self.depth -= 1;
        Ok(())
    }

    fn set_pairs(&mut self, index: usize, change: impl FnOnce(&mut Vec<(usize, usize)>)) {
        if let Content::Mapping(pairs) = &mut self.nodes[index].content {
            change(pairs);
        }
    }
}
