"""Makes the tokenizers of this folder and what the reference library makes of some texts.

    pip install tokenizers==0.22.2 && python make.py

unigram.json is of T5's kind (Metaspace, byte fallback off, sentinels), bpe.json of GPT-2's (byte level). Both are
saved with a truncation and a padding set, which the reference numbers do without.
"""
import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = [
    "Which river flows through the old town?",
    "  two  spaces, a\ttab\nand a line end ",
    "The answer is: 1,250 km² (about 777 miles).",
    "Größe, naïve café; ﬁne ①",
    "東京は日本の首都です。",
    "emoji 🙂 and zero\u200bwidth",
    "Fill <extra_id_0> and stop</s> here",
    "",
    " ",
    "x",
]
TRAIN = TEXTS * 3 + ["the river and the town", "an answer about the old river", "how many miles is it", "a town of stone"] * 3


def save(tokenizer, name):
    expected = []
    for text in TEXTS:
        encoding = tokenizer.encode(text, add_special_tokens=False)
        expected.append({"text": text, "ids": encoding.ids, "decoded": tokenizer.decode(encoding.ids)})
    json.dump(expected, open(f"{name}.expected.json", "w"), ensure_ascii=True, indent=0)
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    tokenizer.save(f"{name}.json", pretty=False)


unigram = Tokenizer(models.Unigram())
unigram.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
unigram.pre_tokenizer = pre_tokenizers.Metaspace()
unigram.decoder = decoders.Metaspace()
unigram.train_from_iterator(TRAIN, trainers.UnigramTrainer(
    vocab_size=180, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False))
unigram.add_special_tokens([AddedToken(f"<extra_id_{k}>", normalized=False) for k in (1, 0)])
save(unigram, "unigram")

bpe = Tokenizer(models.BPE())
bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
bpe.decoder = decoders.ByteLevel()
bpe.train_from_iterator(TRAIN, trainers.BpeTrainer(
    vocab_size=400, special_tokens=["<|endoftext|>"], show_progress=False,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
save(bpe, "bpe")
