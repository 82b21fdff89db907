//! Tokenizers that are kept as word lists: GPT-2's `vocab.json` + `merges.txt` and BERT's `vocab.txt`.
//!
//! They become the same pipelines that transformers makes of these files (`convert_slow_tokenizer.py`).

use anyhow::{Result, anyhow};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::replace::{Replace, ReplacePattern};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::normalizers::{self, BertNormalizer, NormalizerWrapper};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, decoders};

/// How a byte-level BPE cuts a text into words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// As GPT-2 does, and Megatron with it.
    Gpt2 {
        /// Whether a text is read as if a blank stood in front.
        add_prefix_space: bool,
    },
    /// As Qwen2 does: normal form C, digits one by one, punctuation with the line ends behind it.
    Qwen2,
}

/// Qwen2's cut, as its `tokenizer.json` has it.
const QWEN2_PATTERN: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// A byte-level BPE of `vocab.json` and `merges.txt`.
///
/// # Errors
/// A sentence about the file that is wrong, without its name.
pub(super) fn byte_level_bpe(
    vocab: &[u8],
    merges: &[u8],
    words: Words,
) -> Result<tokenizers::Tokenizer> {
    let vocab: Vocab = serde_json::from_slice::<std::collections::HashMap<String, u32>>(vocab)
        .map_err(|error| anyhow!("the vocabulary is no JSON object of tokens to ids: {error}"))?
        .into_iter()
        .collect();
    let merges = std::str::from_utf8(merges).map_err(|_| anyhow!("the merges are not UTF-8"))?;
    let merges = merges
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"))
        .map(|(index, line)| match line.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => Ok((left.into(), right.into())),
            _ => Err(anyhow!(
                "line {} of the merges is not two tokens",
                index + 1
            )),
        })
        .collect::<Result<Merges>>()?;
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .build()
        .map_err(|error| anyhow!("vocabulary and merges do not fit together: {error}"))?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    match words {
        Words::Gpt2 { add_prefix_space } => {
            tokenizer.with_pre_tokenizer(Some(ByteLevel::new(add_prefix_space, true, true)));
        }
        Words::Qwen2 => {
            let split = Split::new(
                SplitPattern::Regex(QWEN2_PATTERN.into()),
                SplitDelimiterBehavior::Isolated,
                false,
            );
            let split = split.map_err(|error| anyhow!("Qwen2's pattern: {error}"))?;
            tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![
                PreTokenizerWrapper::Split(split),
                PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, false)),
            ])));
            tokenizer
                .with_normalizer(Some(NFC))
                .map_err(|error| anyhow!("{error}"))?;
        }
    }
    tokenizer.with_decoder(Some(ByteLevel::new(true, true, true)));
    Ok(tokenizer)
}

/// How BERT reads a text before it looks for word pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BertText {
    pub(super) lowercase: bool,
    /// `None`: as `lowercase` says.
    pub(super) strip_accents: Option<bool>,
    pub(super) handle_chinese_chars: bool,
    /// Whether characters that Unicode does not assign are dropped, as transformers' Python tokenizer does.
    pub(super) drop_unassigned: bool,
    /// Whether decoding closes the gaps before punctuation.
    pub(super) clean_up: bool,
}

/// A word-piece tokenizer of `vocab.txt`, one token a line.
///
/// # Errors
/// A sentence about what is wrong with the file, without its name.
pub(super) fn word_piece(vocab: &[u8], text: BertText) -> Result<tokenizers::Tokenizer> {
    let lines = std::str::from_utf8(vocab).map_err(|_| anyhow!("the vocabulary is not UTF-8"))?;
    let vocab: Vocab = lines
        .lines()
        .enumerate()
        .map(|(id, token)| (token.to_owned(), id as u32))
        .collect();
    let special: Vec<&str> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .into_iter()
        .filter(|token| vocab.contains_key(*token))
        .collect();
    if !special.contains(&"[UNK]") {
        return Err(anyhow!(
            "the vocabulary has no line `[UNK]`, so it is not BERT's"
        ));
    }
    let model = WordPiece::builder()
        .vocab(vocab)
        .build()
        .map_err(|error| anyhow!("{error}"))?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let normalizer = BertNormalizer::new(
        true,
        text.handle_chinese_chars,
        text.strip_accents,
        text.lowercase,
    );
    let normalizer: NormalizerWrapper = if text.drop_unassigned {
        let drop = Replace::new(ReplacePattern::Regex(r"\p{Cn}".into()), "");
        let drop = drop.map_err(|error| anyhow!("{error}"))?;
        normalizers::Sequence::new(vec![drop.into(), normalizer.into()]).into()
    } else {
        normalizer.into()
    };
    tokenizer
        .with_normalizer(Some(normalizer))
        .map_err(|error| anyhow!("{error}"))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_decoder(Some(decoders::wordpiece::WordPiece::new(
        "##".to_owned(),
        text.clean_up,
    )));
    add_special(&mut tokenizer, special)?;
    Ok(tokenizer)
}

/// Adds tokens that are found in texts as they are; those that the vocabulary lacks get ids behind it.
pub(super) fn add_special<'a>(
    tokenizer: &mut tokenizers::Tokenizer,
    tokens: impl IntoIterator<Item = &'a str>,
) -> Result<()> {
    let tokens = tokens.into_iter().filter(|token| !token.is_empty());
    tokenizer
        .add_special_tokens(tokens.map(|token| AddedToken::from(token, true)))
        .map_err(|error| anyhow!("{error}"))?;
    Ok(())
}
