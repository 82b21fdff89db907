//! sentencepiece models (`spiece.model`, `tokenizer.model`): the file, texts into ids, ids into text.
//!
//! Reads `ModelProto` (sentencepiece's `src/sentencepiece_model.proto`) and does what sentencepiece itself does with
//! it, token for token: the crate `tokenizers` comes close and differs in how it applies the character map.

mod normalizer;
mod segment;
mod trie;

use std::collections::HashMap;
use std::ops::Range;

use sha2::{Digest, Sha256};

use super::protobuf::{Fields, Value};
use normalizer::{BLANK, Normalizer};
use segment::{Bpe, Unigram, characters};
use trie::Trie;

/// No model has more pieces than this (the largest known has a quarter of a million).
const MAX_PIECES: usize = 1 << 24;

/// Why a file is not a sentencepiece model that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SentencePieceError {
    /// The file is no model, or contradicts itself.
    #[error("not a sentencepiece model: {0}")]
    Malformed(String),
    /// It is a model of a kind that no NeMo or Hugging Face model uses.
    #[error("a sentencepiece model of type `{0}`, where `unigram`, `bpe` and `char` are read")]
    Unsupported(&'static str),
}

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Found in texts.
    Normal,
    /// Stands for what no piece spells.
    Unknown,
    /// Never found in texts: begin, end, padding.
    Control,
    /// Found in texts before anything else, and kept in one piece.
    UserDefined,
    /// In the list, and not to be used.
    Unused,
    /// A byte of an unknown character.
    Byte,
}

struct Piece {
    text: Box<str>,
    score: f32,
    kind: Kind,
}

enum Algorithm {
    Unigram(Unigram),
    Bpe(Bpe),
    /// Every character is a piece.
    Character(HashMap<Box<str>, u32>),
}

/// Names of the pieces with a meaning, and how unknown ones are shown.
struct Names {
    unknown: String,
    begin: String,
    end: String,
    pad: String,
    unknown_surface: String,
}

/// What a model's file tells without being made usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Number of pieces.
    pub pieces: usize,
    /// `unigram`, `bpe`, `word` or `char`.
    pub model_type: &'static str,
    /// Whether unknown characters are spelt in bytes.
    pub byte_fallback: bool,
}

/// Looks through a model's file.
///
/// # Errors
/// [`SentencePieceError::Malformed`] where it is none.
pub fn summary(model: &[u8]) -> Result<Summary, SentencePieceError> {
    let proto = Proto::parse(model)?;
    Ok(Summary {
        pieces: proto.pieces.len(),
        model_type: match proto.model_type {
            1 => "unigram",
            2 => "bpe",
            3 => "word",
            4 => "char",
            other => return Err(malformed(format!("it is of the unknown type {other}"))),
        },
        byte_fallback: proto.byte_fallback,
    })
}

/// A sentencepiece model.
pub struct SentencePiece {
    pieces: Vec<Piece>,
    algorithm: Algorithm,
    /// Pieces that are not found in texts, by name.
    reserved: HashMap<Box<str>, u32>,
    /// The user-defined pieces.
    fixed: Trie,
    normalizer: Normalizer,
    denormalizer: Option<Normalizer>,
    unknown: u32,
    /// Ids of the 256 byte pieces, where unknown characters are spelt with them.
    bytes: Option<Box<[u32; 256]>>,
    names: Names,
    /// SHA-256 of the file.
    hash: [u8; 32],
}

impl SentencePiece {
    /// Reads a model.
    ///
    /// # Errors
    /// [`SentencePieceError`] for what is no model, contradicts itself or is of a kind that is not read.
    pub fn parse(model: &[u8]) -> Result<Self, SentencePieceError> {
        let proto = Proto::parse(model)?;
        let pieces = proto.pieces;
        let mut reserved = HashMap::new();
        let mut found = HashMap::with_capacity(pieces.len());
        let mut unknown = None;
        let mut bytes = Box::new([u32::MAX; 256]);
        for (id, piece) in pieces.iter().enumerate() {
            let id = id as u32;
            let is_found = matches!(piece.kind, Kind::Normal | Kind::UserDefined | Kind::Unused);
            let map = if is_found { &mut found } else { &mut reserved };
            if map.insert(piece.text.clone(), id).is_some() {
                return Err(malformed(format!("two pieces are `{}`", piece.text)));
            }
            match piece.kind {
                Kind::Unknown if unknown.replace(id).is_some() => {
                    return Err(malformed("two pieces are the unknown one"));
                }
                Kind::Byte => match byte_of(&piece.text) {
                    Some(byte) if proto.byte_fallback => bytes[usize::from(byte)] = id,
                    Some(_) => return Err(malformed("it has byte pieces and does not use them")),
                    None => {
                        return Err(malformed(format!("`{}` is no byte piece", piece.text)));
                    }
                },
                _ => {}
            }
        }
        let unknown = unknown.ok_or_else(|| malformed("it has no unknown piece"))?;
        if proto.byte_fallback && bytes.contains(&u32::MAX) {
            return Err(malformed("it lacks some of the 256 byte pieces"));
        }
        let entries = |wanted: fn(Kind) -> bool| {
            let wanted = pieces
                .iter()
                .enumerate()
                .filter(move |(_, p)| wanted(p.kind));
            Trie::new(
                wanted
                    .map(|(id, p)| (p.text.as_bytes(), id as u32))
                    .collect(),
            )
        };
        let fixed = entries(|kind| kind == Kind::UserDefined);
        let algorithm = match proto.model_type {
            1 => {
                let trie =
                    entries(|k| matches!(k, Kind::Normal | Kind::UserDefined | Kind::Unused));
                Algorithm::Unigram(Unigram::new(trie, &pieces))
            }
            2 => Algorithm::Bpe(Bpe { ids: found }),
            3 => return Err(SentencePieceError::Unsupported("word")),
            4 => Algorithm::Character(found),
            other => return Err(malformed(format!("it is of the unknown type {other}"))),
        };
        Ok(Self {
            algorithm,
            reserved,
            fixed,
            normalizer: proto.normalizer,
            denormalizer: proto.denormalizer,
            unknown,
            bytes: proto.byte_fallback.then_some(bytes),
            names: proto.names,
            pieces,
            hash: Sha256::digest(model).into(),
        })
    }

    /// SHA-256 of the model it was read from.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Appends the ids of `text` and the bytes of `text` each came from.
    ///
    /// A text that goes on behind another (`!is_start`) gets no blank in front, as most models have it, and keeps its own.
    /// Bytes of an unknown character each cover the whole character (sentencepiece itself gives it to the last alone).
    pub fn encode(&self, text: &str, is_start: bool, mut push: impl FnMut(u32, Range<usize>)) {
        let normalized = self.normalizer.normalize(text, &self.fixed, is_start);
        let mut start = 0;
        // Where a run of unknown characters began: it becomes one token.
        let mut unknown_since: Option<usize> = None;
        for (length, id) in self.segment(&normalized.text) {
            let id = id.unwrap_or(self.unknown);
            let end = start + length;
            let range = normalized.origin[start]..normalized.origin[end];
            let is_unknown = id == self.unknown;
            if let Some(since) = unknown_since
                && !is_unknown
            {
                push(self.unknown, since..range.start);
                unknown_since = None;
            }
            match &self.bytes {
                Some(bytes) if is_unknown => {
                    for byte in normalized.text[start..end].bytes() {
                        push(bytes[usize::from(byte)], range.clone());
                    }
                }
                None if is_unknown => {
                    unknown_since = unknown_since.or(Some(range.start));
                }
                _ if self.pieces[id as usize].kind == Kind::Control => {
                    push(id, range.start..range.start);
                }
                _ => push(id, range),
            }
            start = end;
        }
        if let Some(since) = unknown_since {
            push(self.unknown, since..normalized.origin[start]);
        }
    }

    /// Lengths in bytes and ids of the pieces of a normalised text.
    fn segment(&self, text: &str) -> Vec<(usize, Option<u32>)> {
        let with_id = |lengths: &mut dyn Iterator<Item = usize>| {
            let mut start = 0;
            lengths
                .map(|length| {
                    let piece = &text[start..start + length];
                    start += length;
                    let id = self.piece_to_id(piece);
                    // A piece that must not be used and could not be taken apart.
                    (
                        length,
                        id.filter(|id| self.pieces[*id as usize].kind != Kind::Unused),
                    )
                })
                .collect()
        };
        match &self.algorithm {
            Algorithm::Unigram(unigram) => unigram.segment(text, &self.pieces),
            Algorithm::Bpe(bpe) => {
                let lengths = bpe.segment(text, &self.pieces, &self.fixed);
                with_id(&mut lengths.into_iter())
            }
            Algorithm::Character(_) => {
                with_id(&mut characters(text, &self.fixed).map(|(_, length, _)| length))
            }
        }
    }

    /// The text of `ids`. Control pieces say nothing; ids beyond the model are left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut text = String::new();
        let mut bytes = vec![];
        // Whether a blank in front would still be the one that encoding put there.
        let mut at_start = true;
        let mut took_blank = false;
        for &id in ids {
            let Some(piece) = self.pieces.get(id as usize) else {
                continue;
            };
            if let (Kind::Byte, Some(byte)) = (piece.kind, byte_of(&piece.text)) {
                bytes.push(byte);
                continue;
            }
            push_bytes(&mut text, &mut bytes);
            at_start &= !took_blank && text.is_empty();
            took_blank = false;
            match piece.kind {
                Kind::Control => {}
                Kind::Unknown => text.push_str(&self.names.unknown_surface),
                _ => {
                    let mut piece = &*piece.text;
                    let spec = &self.normalizer;
                    if at_start
                        && (spec.add_dummy_prefix || spec.remove_extra_whitespaces)
                        && let Some(rest) = piece.strip_prefix(BLANK)
                    {
                        piece = rest;
                        took_blank = !spec.remove_extra_whitespaces;
                    }
                    text.push_str(&piece.replace(BLANK, " "));
                }
            }
        }
        push_bytes(&mut text, &mut bytes);
        match &self.denormalizer {
            Some(denormalizer) => denormalizer.normalize(&text, &Trie::new(vec![]), true).text,
            None => text,
        }
    }

    /// The id of exactly this piece.
    pub fn piece_to_id(&self, piece: &str) -> Option<u32> {
        let reserved = self.reserved.get(piece).copied();
        reserved.or_else(|| match &self.algorithm {
            Algorithm::Unigram(unigram) => unigram.id(piece),
            Algorithm::Bpe(bpe) => bpe.ids.get(piece).copied(),
            Algorithm::Character(ids) => ids.get(piece).copied(),
        })
    }

    /// The piece of this id.
    pub fn id_to_piece(&self, id: u32) -> Option<&str> {
        self.pieces.get(id as usize).map(|piece| &*piece.text)
    }

    /// Number of pieces.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether it has no pieces, which [`Self::parse`] refuses.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// What stands for unknown text.
    pub fn unknown_id(&self) -> u32 {
        self.unknown
    }

    /// Beginning of text.
    pub fn begin_id(&self) -> Option<u32> {
        self.control(&self.names.begin)
    }

    /// End of text.
    pub fn end_id(&self) -> Option<u32> {
        self.control(&self.names.end)
    }

    /// Filler.
    pub fn pad_id(&self) -> Option<u32> {
        self.control(&self.names.pad)
    }

    /// Name of the unknown piece.
    pub fn unknown_piece(&self) -> &str {
        &self.names.unknown
    }

    /// Whether this piece says nothing in a text.
    pub fn is_control(&self, id: u32) -> bool {
        self.pieces
            .get(id as usize)
            .is_some_and(|piece| piece.kind == Kind::Control)
    }

    /// `unigram`, `bpe` or `char`.
    pub fn model_type(&self) -> &'static str {
        match self.algorithm {
            Algorithm::Unigram(_) => "unigram",
            Algorithm::Bpe(_) => "bpe",
            Algorithm::Character(_) => "char",
        }
    }

    fn control(&self, name: &str) -> Option<u32> {
        self.piece_to_id(name).filter(|id| self.is_control(*id))
    }
}

/// The parts of a `ModelProto` that are used here.
struct Proto {
    pieces: Vec<Piece>,
    model_type: u64,
    byte_fallback: bool,
    normalizer: Normalizer,
    denormalizer: Option<Normalizer>,
    names: Names,
}

impl Proto {
    fn parse(model: &[u8]) -> Result<Self, SentencePieceError> {
        let mut this = Self {
            pieces: vec![],
            model_type: 1,
            byte_fallback: false,
            normalizer: Normalizer::new(&[])?,
            denormalizer: None,
            names: Names {
                unknown: "<unk>".into(),
                begin: "<s>".into(),
                end: "</s>".into(),
                pad: "<pad>".into(),
                unknown_surface: " \u{2047} ".into(),
            },
        };
        let mut treat_whitespace_as_suffix = false;
        for field in Fields::of(model) {
            match field.map_err(malformed)? {
                (1, Value::Bytes(piece)) => {
                    if this.pieces.len() == MAX_PIECES {
                        return Err(malformed("it has more pieces than any model"));
                    }
                    let id = this.pieces.len();
                    this.pieces.push(read_piece(piece, id)?);
                }
                (2, Value::Bytes(trainer)) => {
                    for field in Fields::of(trainer) {
                        let (number, value) = field.map_err(malformed)?;
                        let set = |name: &mut String| {
                            if let Some(text) = value.text().filter(|text| !text.is_empty()) {
                                text.clone_into(name);
                            }
                        };
                        match number {
                            3 => this.model_type = value.number().unwrap_or(this.model_type),
                            24 => treat_whitespace_as_suffix = value.flag().unwrap_or_default(),
                            35 => this.byte_fallback = value.flag().unwrap_or_default(),
                            44 => {
                                // May be empty on purpose.
                                if let Some(text) = value.text() {
                                    text.clone_into(&mut this.names.unknown_surface);
                                }
                            }
                            45 => set(&mut this.names.unknown),
                            46 => set(&mut this.names.begin),
                            47 => set(&mut this.names.end),
                            48 => set(&mut this.names.pad),
                            _ => {}
                        }
                    }
                }
                (3, Value::Bytes(spec)) => this.normalizer = read_normalizer(spec)?.0,
                (5, Value::Bytes(spec)) => {
                    let (normalizer, has_rules) = read_normalizer(spec)?;
                    this.denormalizer = has_rules.then_some(normalizer);
                }
                _ => {}
            }
        }
        if this.pieces.is_empty() {
            return Err(malformed("it has no pieces"));
        }
        this.normalizer.treat_whitespace_as_suffix = treat_whitespace_as_suffix;
        Ok(this)
    }
}

fn read_piece(message: &[u8], id: usize) -> Result<Piece, SentencePieceError> {
    let mut piece = Piece {
        text: "".into(),
        score: 0.0,
        kind: Kind::Normal,
    };
    for field in Fields::of(message) {
        match field.map_err(malformed)? {
            (1, value) => {
                let text = value.text();
                let text = text.ok_or_else(|| malformed(format!("piece {id} is not UTF-8")))?;
                piece.text = text.into();
            }
            (2, value) => {
                let score = value.float().filter(|score| score.is_finite());
                piece.score =
                    score.ok_or_else(|| malformed(format!("piece {id} has no finite score")))?;
            }
            (3, value) => {
                piece.kind = match value.number() {
                    Some(1) => Kind::Normal,
                    Some(2) => Kind::Unknown,
                    Some(3) => Kind::Control,
                    Some(4) => Kind::UserDefined,
                    Some(5) => Kind::Unused,
                    Some(6) => Kind::Byte,
                    _ => return Err(malformed(format!("piece {id} is of no known type"))),
                }
            }
            _ => {}
        }
    }
    if piece.text.is_empty() {
        return Err(malformed(format!("piece {id} is empty")));
    }
    Ok(piece)
}

/// The normaliser, and whether it has rules.
fn read_normalizer(message: &[u8]) -> Result<(Normalizer, bool), SentencePieceError> {
    let mut rules: &[u8] = &[];
    let (mut dummy, mut extra, mut escape) = (true, true, true);
    for field in Fields::of(message) {
        match field.map_err(malformed)? {
            (2, value) => rules = value.bytes().unwrap_or_default(),
            (3, value) => dummy = value.flag().unwrap_or(dummy),
            (4, value) => extra = value.flag().unwrap_or(extra),
            (5, value) => escape = value.flag().unwrap_or(escape),
            _ => {}
        }
    }
    let mut normalizer = Normalizer::new(rules)?;
    normalizer.add_dummy_prefix = dummy;
    normalizer.remove_extra_whitespaces = extra;
    normalizer.escape_whitespaces = escape;
    Ok((normalizer, !rules.is_empty()))
}

fn malformed(reason: impl Into<String>) -> SentencePieceError {
    SentencePieceError::Malformed(reason.into())
}

/// The byte that `<0x0A>` stands for.
fn byte_of(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_spelt_so = digits.len() == 2
        && digits
            .bytes()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F'));
    is_spelt_so.then(|| u8::from_str_radix(digits, 16).ok())?
}

/// Moves bytes to the text; each byte that is part of no character becomes U+FFFD.
fn push_bytes(text: &mut String, bytes: &mut Vec<u8>) {
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                break;
            }
            Err(error) => {
                let (valid, broken) = rest.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                text.push(char::REPLACEMENT_CHARACTER);
                rest = &broken[1..];
            }
        }
    }
    bytes.clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::rng::SeededRng;

    fn fixture(case: &str) -> Vec<u8> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/tokenize");
        fs_err::read(folder.join(case).join("0123_tokenizer.model")).unwrap()
    }

    /// A model is used in every way; what it says does not matter, only that it says it.
    fn use_everything(model: &SentencePiece) {
        for text in ["", " a  <user>b\u{301} ﬁ the ", "日本 \u{0}\u{200b}🙂</s>"] {
            let mut ids = vec![];
            model.encode(text, true, |id, range| {
                assert!(text.get(range).is_some());
                ids.push(id);
            });
            ids.extend([u32::MAX, 0, 1, 2, 3]);
            model.decode(&ids);
        }
    }

    #[test]
    fn a_model_that_is_cut_off_anywhere_or_changed_somewhere_never_panics() {
        for case in ["nemo_t5", "nemo_gpt_bpe"] {
            let whole = fixture(case);
            assert!(SentencePiece::parse(&whole).is_ok());
            for end in (0..whole.len()).step_by(37) {
                if let Ok(model) = SentencePiece::parse(&whole[..end]) {
                    use_everything(&model);
                }
            }
            let mut rng = SeededRng::new(1, 0);
            for _ in 0..400 {
                let mut changed = whole.clone();
                for _ in 0..3 {
                    let place = rng.below(changed.len());
                    changed[place] = rng.below(256) as u8;
                }
                if let Ok(model) = SentencePiece::parse(&changed) {
                    use_everything(&model);
                }
            }
        }
    }

    #[test]
    fn models_that_contradict_themselves_are_refused_for_their_reason() {
        let piece = |text: &str, kind: u8| {
            let mut piece = vec![0x0a, text.len() as u8];
            piece.extend(text.as_bytes());
            piece.extend([0x18, kind]);
            [vec![0x0a, piece.len() as u8], piece].concat()
        };
        let unknown = piece("<unk>", 2);
        let word_model = vec![0x12, 2, 0x18, 3];
        for (model, reason) in [
            (vec![], "no pieces"),
            (piece("a", 1), "no unknown piece"),
            (
                [unknown.clone(), piece("<u>", 2)].concat(),
                "two pieces are the unknown one",
            ),
            (
                [unknown.clone(), piece("a", 1), piece("a", 1)].concat(),
                "two pieces are `a`",
            ),
            (
                [unknown.clone(), piece("<0x41>", 6)].concat(),
                "does not use them",
            ),
            (
                [unknown.clone(), vec![0x12, 3, 0x98, 0x02, 1]].concat(),
                "256 byte pieces",
            ),
            ([unknown.clone(), piece("", 1)].concat(), "piece 1 is empty"),
            ([unknown.clone(), piece("a", 9)].concat(), "no known type"),
            ([unknown.clone(), word_model].concat(), "`word`"),
            (
                [unknown, vec![0x0a, 0x7f]].concat(),
                "the middle of a field",
            ),
        ] {
            let error = SentencePiece::parse(&model).err().unwrap().to_string();
            assert!(error.contains(reason), "{error} instead of {reason}");
        }
    }

    #[test]
    fn bytes_that_spell_no_character_decode_to_the_replacement_character() {
        let model = SentencePiece::parse(&fixture("nemo_gpt_bpe")).unwrap();
        let byte = |byte: u8| model.piece_to_id(&format!("<0x{byte:02X}>")).unwrap();
        let ids = [byte(0xe6), byte(0x97), byte(0xa5), byte(0xe6), byte(b'x')];
        assert_eq!(model.decode(&ids), "日\u{fffd}x");
    }
}
