//! A text as sentencepiece's models see it: characters replaced by rule, blanks made visible.
//!
//! Behaviour of `Normalizer` in sentencepiece's `src/normalizer.cc`. The rules are a double array as Darts-clone builds
//! it; every step in it is checked, since it comes from a file.

use super::SentencePieceError;
use super::trie::Trie;

/// What a blank becomes: U+2581.
pub(super) const BLANK: &str = "\u{2581}";

/// How texts are normalised (`NormalizerSpec`).
pub(super) struct Normalizer {
    rules: Option<Rules>,
    pub(super) add_dummy_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
    pub(super) escape_whitespaces: bool,
    pub(super) treat_whitespace_as_suffix: bool,
}

/// The normalised text, and for each of its bytes (and its end) the byte of the text it came from.
#[derive(Default)]
pub(super) struct Normalized {
    pub(super) text: String,
    pub(super) origin: Vec<usize>,
}

impl Normalized {
    fn push(&mut self, text: &str, origin: usize) {
        self.text.push_str(text);
        self.origin.resize(self.text.len(), origin);
    }
}

impl Normalizer {
    /// `rules` is the field `precompiled_charsmap`, empty for none.
    pub(super) fn new(rules: &[u8]) -> Result<Self, SentencePieceError> {
        Ok(Self {
            rules: (!rules.is_empty())
                .then(|| Rules::parse(rules))
                .transpose()?,
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
            treat_whitespace_as_suffix: false,
        })
    }

    /// Normalises `text`. `fixed` are the pieces that no rule touches. A text that goes on behind another (`!is_start`)
    /// gets no blank in front and keeps one of its own.
    pub(super) fn normalize(&self, text: &str, fixed: &Trie, is_start: bool) -> Normalized {
        let mut out = Normalized::default();
        let mut consumed = 0;
        // transformers asks for a blank itself here, not for what the rules make one (a byte order mark, say).
        let keeps_blank = !is_start && text.starts_with([' ', '\u{2581}']);
        if self.remove_extra_whitespaces && !keeps_blank {
            while consumed < text.len() {
                let (replaced, length) = self.replace_prefix(&text[consumed..], fixed);
                if replaced != " " {
                    break;
                }
                consumed += length;
            }
        }
        if consumed == text.len() {
            return out;
        }
        out.text.reserve(text.len() + text.len() / 2);
        out.origin.reserve(text.len() + text.len() / 2);
        let blank = if self.escape_whitespaces { BLANK } else { " " };
        let dummy = self.add_dummy_prefix && is_start;
        if dummy && !self.treat_whitespace_as_suffix {
            out.push(blank, consumed);
        }
        let mut after_blank = self.remove_extra_whitespaces && !keeps_blank;
        while consumed < text.len() {
            let (mut replaced, length) = self.replace_prefix(&text[consumed..], fixed);
            if after_blank {
                replaced = replaced.trim_start_matches(' ');
            }
            if !replaced.is_empty() {
                let mut parts = replaced.split(' ');
                out.push(parts.next().unwrap_or_default(), consumed);
                for part in parts {
                    out.push(blank, consumed);
                    out.push(part, consumed);
                }
                after_blank = replaced.ends_with(' ');
            }
            after_blank &= self.remove_extra_whitespaces;
            consumed += length;
        }
        if self.remove_extra_whitespaces {
            while out.text.ends_with(blank) {
                let length = out.text.len() - blank.len();
                consumed = out.origin[length];
                out.text.truncate(length);
                out.origin.truncate(length);
            }
        }
        if dummy && self.treat_whitespace_as_suffix {
            out.push(blank, consumed);
        }
        out.origin.push(consumed);
        out
    }

    /// What the beginning of `text` (not empty) becomes, and how many bytes of it that replaces.
    fn replace_prefix<'a>(&'a self, text: &'a str, fixed: &Trie) -> (&'a str, usize) {
        if let Some(length) = fixed.longest_prefix(text.as_bytes())
            && text.is_char_boundary(length)
        {
            return (&text[..length], length);
        }
        if let Some(found) = self.rules.as_ref().and_then(|rules| rules.longest(text)) {
            return found;
        }
        let length = text.chars().next().map_or(1, char::len_utf8);
        (&text[..length], length)
    }
}

/// The rules: a double array from what is replaced to where in `replacements` its replacement begins.
struct Rules {
    units: Vec<u32>,
    /// Texts that end in a zero byte each.
    replacements: String,
}

impl Rules {
    fn parse(bytes: &[u8]) -> Result<Self, SentencePieceError> {
        let broken = |reason| SentencePieceError::Malformed(format!("its character map {reason}"));
        let (size, rest) = bytes
            .split_first_chunk::<4>()
            .ok_or_else(|| broken("is cut off"))?;
        let (units, replacements) = rest
            .split_at_checked(u32::from_le_bytes(*size) as usize)
            .ok_or_else(|| broken("is cut off"))?;
        let (units, _) = units.as_chunks::<4>();
        Ok(Self {
            units: units.iter().map(|unit| u32::from_le_bytes(*unit)).collect(),
            replacements: String::from_utf8(replacements.to_vec())
                .map_err(|_| broken("is not UTF-8"))?,
        })
    }

    /// The rule for the longest prefix of `text` that has one: replacement, and length of the prefix.
    fn longest<'a>(&'a self, text: &str) -> Option<(&'a str, usize)> {
        // The unit's fields, as in Darts-clone's `DoubleArrayUnit`.
        let offset = |unit: u32| (unit >> 10) << ((unit & (1 << 9)) >> 6);
        let label = |unit: u32| unit & ((1 << 31) | 0xff);
        let has_leaf = |unit: u32| (unit >> 8) & 1 == 1;
        let at = |position: u32| self.units.get(position as usize).copied();
        let mut position = offset(at(0)?);
        let mut found = None;
        for (index, &byte) in text.as_bytes().iter().enumerate() {
            position ^= u32::from(byte);
            let Some(unit) = at(position).filter(|unit| label(*unit) == u32::from(byte)) else {
                break;
            };
            position ^= offset(unit);
            if has_leaf(unit)
                && let Some(leaf) = at(position)
            {
                found = Some((leaf & ((1 << 31) - 1), index + 1));
            }
        }
        let (start, length) = found.filter(|(_, length)| text.is_char_boundary(*length))?;
        let replacement = self.replacements.get(start as usize..)?;
        let end = replacement.find('\0').unwrap_or(replacement.len());
        Some((&replacement[..end], length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Trie {
        Trie::new(vec![])
    }

    #[test]
    fn blanks_are_joined_trimmed_and_made_visible() {
        let mut normalizer = Normalizer::new(&[]).unwrap();
        let out = normalizer.normalize("  a  b ", &nothing(), true);
        assert_eq!(out.text, "▁a▁b");
        // Where each character came from, and where the text ends without its last blank.
        assert_eq!(out.origin, [2, 2, 2, 2, 3, 3, 3, 5, 6]);
        assert_eq!(normalizer.normalize("a", &nothing(), false).text, "a");
        assert_eq!(normalizer.normalize("  a ", &nothing(), false).text, "▁a");
        assert_eq!(normalizer.normalize("", &nothing(), false).text, "");
        assert_eq!(normalizer.normalize("   ", &nothing(), true).text, "");
        normalizer.remove_extra_whitespaces = false;
        assert_eq!(normalizer.normalize(" a ", &nothing(), true).text, "▁▁a▁");
        normalizer.treat_whitespace_as_suffix = true;
        normalizer.escape_whitespaces = false;
        assert_eq!(normalizer.normalize("a b", &nothing(), true).text, "a b ");
    }

    #[test]
    fn a_broken_character_map_is_refused_and_a_lying_one_changes_nothing() {
        for bytes in [&[1u8, 0][..], &[9, 0, 0, 0, 1], &[0, 0, 0, 0, 0xff]] {
            assert!(Normalizer::new(bytes).is_err(), "{bytes:?}");
        }
        // Every unit points far outside and claims a leaf.
        let mut lying = vec![8u8, 0, 0, 0];
        lying.extend([0xff; 8]);
        lying.extend(b"x\0");
        let normalizer = Normalizer::new(&lying).unwrap();
        assert_eq!(normalizer.normalize("añ", &nothing(), false).text, "añ");
    }
}
