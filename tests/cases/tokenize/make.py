"""Makes the tokenizers of this folder and what the reference library makes of some texts.

    pip install sentencepiece==0.2.3 tokenizers==0.22.2 transformers==4.57.6 protobuf && python make.py

unigram.json is of T5's kind (Metaspace, byte fallback off, sentinels), bpe.json of GPT-2's (byte level). Both are
saved with a truncation and a padding set, which the reference numbers do without. The folders are cases of the other
kinds (see reference.py); compare.py makes large ones of the same sorts.
"""
import json
import unicodedata

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

# -- the other kinds: small models, in the layout of reference.py -----------------------------------------------------
from pathlib import Path  # noqa: E402
import tempfile  # noqa: E402

import transformers  # noqa: E402
from reference import NASTY, NemoLegacy, SentencePiece, byte_spans, edit, train, write_case  # noqa: E402

SENTENCES = [
    "The old town lies on the river, and the river on the town's old walls.",
    "Which of the two teams won the game in 1999, and by how many points?",
    "Die alte Stadt liegt am Fluss; größere Städte liegen weiter im Süden.",
    "¿Cuántos años tiene la ciudad? La ciudad vieja está junto al río.",
    "东京是日本的首都。这座城市很古老，河流穿过城市。",
    "تقع المدينة القديمة على النهر، وكم عدد سكان المدينة؟",
    "An answer is a span of the text: 1,250 km² (about 480 square miles).",
]
CORPUS = SENTENCES * 20 + [word for sentence in SENTENCES for word in sentence.split()] * 5
SHOWN = SENTENCES + [text for text in NASTY if len(text) < 60]

# A character map of a few rules is small; the real ones have 250 kB and are compared by compare.py.
RULES = {"ﬁ": "fi", "²": "2", "①": "1", "　": " ", "\u00a0": " ", "\t": " ", "\n": " ", "A": "a", "Ä": "ä", "e\u0301": "é", "\u200b": "", "\u0001": "", "ﷺ": "a b"}
with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
    for key, value in RULES.items():
        rules.write(" ".join(f"{ord(c):X}" for c in key) + "\t" + " ".join(f"{ord(c):X}" for c in value) + "\n")
    rules.flush()
    options = {"hard_vocab_limit": False, "normalization_rule_tsv": rules.name}
    model = train(CORPUS, model_type="unigram", vocab_size=400, user_defined_symbols=["<user>", "the "], control_symbols=["<ctl>"],
                  pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=0.98, **options)
byte_bpe = train(CORPUS, model_type="bpe", vocab_size=560, byte_fallback=True, normalization_rule_name="identity", character_coverage=0.98,
                 remove_extra_whitespaces=False)


def nemo(name, kind, model, **section):
    section = {"library": "sentencepiece", "model": "nemo:0123_tokenizer.model", **section}
    reference = NemoLegacy(model, section, t5=kind != "gpt", ul2=kind == "ul2")
    tokens = {token: reference.token_id(token) for token in ["<extra_id_0>", "<extra_id_9>", "<sep>"] if kind != "gpt"}
    case = {"nemo": section, "model": kind, "vocab_size": reference.size, "special": reference.special(), "tokens": tokens}
    write_case(name, {"0123_tokenizer.model": model}, case, SHOWN, reference.encode, reference.decode)


def sentinel_pieces(proto):
    for k in reversed(range(10)):
        proto.pieces.add(piece=f"\u2581<extra_id_{k}>", score=0.0, type=4)


nemo("nemo_gpt_bpe", "gpt", byte_bpe, sentencepiece_legacy=False)
nemo("nemo_t5", "t5", model, num_sentinel_tokens=10)
nemo("nemo_ul2_from_hf", "ul2", model, num_sentinel_tokens=10, add_sentinel_tokens_first=True, add_sentinel_tokens_in_reverse_order=True)
nemo("nemo_mt5", "t5", edit(model, sentinel_pieces), num_sentinel_tokens=10)


def hugging_face(name, files, tokenizer, is_fast=False):
    ids = {role: getattr(tokenizer, f"{role}_token_id") for role in ["bos", "eos", "pad", "unk"]}

    def encode(text):
        if not is_fast:
            return tokenizer.encode(text, add_special_tokens=False), None
        encoding = tokenizer._tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, byte_spans(text, encoding.offsets)

    write_case(name, files, {"folder": True, "vocab_size": len(tokenizer), "special": ids}, SHOWN, encode)


with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    (folder / "spiece.model").write_bytes(model)
    (folder / "tokenizer.model").write_bytes(byte_bpe)
    hugging_face("folder_t5", {"spiece.model": model, "config.json": '{"model_type": "t5"}\n'},
                 transformers.T5Tokenizer(str(folder / "spiece.model"), legacy=True))
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": False}
    hugging_face("folder_llama", {"tokenizer.model": byte_bpe, "tokenizer_config.json": json.dumps(config) + "\n"},
                 transformers.LlamaTokenizer(str(folder / "tokenizer.model"), legacy=False))

    from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer

    bytes_bpe = ByteLevelBPETokenizer()
    bytes_bpe.train_from_iterator(CORPUS, vocab_size=450, special_tokens=[], show_progress=False)
    bytes_bpe.save_model(str(folder))
    vocab = json.loads((folder / "vocab.json").read_text())
    vocab["<|endoftext|>"] = len(vocab)
    (folder / "vocab.json").write_text(json.dumps(vocab) + "\n")
    files = {file: (folder / file).read_bytes() for file in ["vocab.json", "merges.txt"]}
    paths = [str(folder / file) for file in files]
    hugging_face("folder_gpt2", files, transformers.GPT2TokenizerFast(*paths), is_fast=True)
    hugging_face("folder_qwen2", {**files, "config.json": '{"model_type": "qwen2"}\n'}, transformers.Qwen2TokenizerFast(*paths), is_fast=True)

    for kind, lower in [("BertWordPieceCase", False), ("BertWordPieceLowerCase", True)]:
        wordpiece = BertWordPieceTokenizer(lowercase=lower)
        wordpiece.train_from_iterator(CORPUS, vocab_size=300, show_progress=False)
        wordpiece.save_model(str(folder))
        bert = transformers.BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=lower)
        bert.add_special_tokens({"additional_special_tokens": [f"<extra_id_{k}>" for k in range(10)]})
        section = {"library": "megatron", "type": kind, "vocab_file": "nemo:0123_vocab.txt", "num_sentinel_tokens": 10}
        case = {"nemo": section, "model": "t5", "vocab_size": len(bert), "tokens": {"<extra_id_0>": len(bert) - 10},
                "special": {"bos": bert.cls_token_id, "eos": bert.sep_token_id, "pad": bert.pad_token_id, "unk": bert.unk_token_id}}

        # NeMo takes the Python tokenizer; the fast one keeps characters that Unicode does not assign.
        assigned = [text for text in SHOWN if all(unicodedata.category(c) != "Cn" for c in text)]

        def encode(text):
            encoding = bert._tokenizer.encode(text, add_special_tokens=False)
            return encoding.ids, byte_spans(text, encoding.offsets)

        write_case(f"nemo_bert{'_lower' if lower else ''}", {"0123_vocab.txt": (folder / "vocab.txt").read_bytes()}, case, assigned, encode)
