"""Makes the large comparison: every kind of tokenizer on XQuAD in five languages and on nasty texts.

    python compare.py XQUAD_FOLDER OUT [--t5 FOLDER] [--gpt2 FOLDER] [--bert VOCAB_TXT]
    PTUNE_TOKENIZE_CORPUS=OUT cargo test --test it tokenize -- --nocapture

--t5: a folder with the real T5's tokenizer.json; --gpt2: with GPT-2's vocab.json and merges.txt. See reference.py.
"""
import argparse
import base64
import json
import os
import shutil
import unicodedata
from pathlib import Path

from reference import NASTY, NemoLegacy, SentencePiece, byte_spans, edit, mixtures, read_xquad, sentencepiece_model_pb2, train, write_case

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
import transformers  # noqa: E402
import transformers.models.bert.tokenization_bert as slow_bert  # noqa: E402
from tokenizers import BertWordPieceTokenizer  # noqa: E402


class AsBefore428:
    """transformers brings BERT's texts to normal form C since 4.28; those that NeMo's T5 was trained with did not."""

    category = staticmethod(slow_bert.unicodedata.category)

    @staticmethod
    def normalize(form, text):
        return text if form == "NFC" else unicodedata.normalize(form, text)


slow_bert.unicodedata = AsBefore428


def slow(tokenizer):
    return lambda text: (tokenizer.encode(text, add_special_tokens=False), None)


def fast(tokenizer):
    def encode(text):
        encoding = tokenizer._tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, byte_spans(text, encoding.offsets)

    return encode


def skip_special(tokenizer):
    return lambda ids: tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False, spaces_between_special_tokens=False)


def special(tokenizer):
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ["bos", "eos", "pad", "unk"]}
    return ids


def t5_model(folder):
    """T5's spiece.model, from the pieces, scores and character map of its tokenizer.json."""
    data = json.loads((Path(folder) / "tokenizer.json").read_text())
    proto = sentencepiece_model_pb2.ModelProto()
    for index, (piece, score) in enumerate(data["model"]["vocab"][:32000]):
        kind = 2 if piece == "<unk>" else 3 if index < 2 else 1
        proto.pieces.add(piece=piece, score=score, type=kind)
    maps = [n for n in data["normalizer"]["normalizers"] if n["type"] == "Precompiled"]
    proto.normalizer_spec.precompiled_charsmap = base64.b64decode(maps[0]["precompiled_charsmap"])
    proto.normalizer_spec.name = "nmt_nfkc"
    proto.trainer_spec.model_type = 1
    proto.trainer_spec.pad_id, proto.trainer_spec.eos_id, proto.trainer_spec.unk_id, proto.trainer_spec.bos_id = 0, 1, 2, -1
    return proto.SerializeToString()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("xquad")
    parser.add_argument("out", type=Path)
    parser.add_argument("--t5")
    parser.add_argument("--gpt2", type=Path)
    parser.add_argument("--bert", type=Path)
    parser.add_argument("--only", default="", help="cases whose name begins so")
    options = parser.parse_args()
    out = options.out
    if not options.only:
        shutil.rmtree(out, ignore_errors=True)

    def write(folder, *rest):
        if Path(folder).name.startswith(options.only):
            write_case(folder, *rest)

    corpus = read_xquad(options.xquad)
    texts = corpus + NASTY + mixtures(4000, 1)
    print(len(corpus), "texts of XQuAD,", len(texts) - len(corpus), "nasty ones")
    contexts = [text for text in corpus if len(text) > 200]

    def plain(name, model):
        """The model alone, as a GPT's."""
        sp = SentencePiece(model)
        section = {"library": "sentencepiece", "model": "nemo:0123_tokenizer.model", "sentencepiece_legacy": False}
        ids = {key: getattr(sp.model, f"{key}_id")() for key in ["bos", "eos", "pad", "unk"]}
        case = {"nemo": section, "model": "gpt", "vocab_size": sp.model.get_piece_size(),
                "special": {key: None if value < 0 else value for key, value in ids.items()}}
        write(out / name, {"0123_tokenizer.model": model}, case, texts, sp.encode, sp.model.decode)

    def nemo_t5(name, model, section, ul2=False):
        section = {"library": "sentencepiece", "model": "nemo:0123_tokenizer.model", **section}
        reference = NemoLegacy(model, section, t5=True, ul2=ul2)
        case = {"nemo": section, "model": "ul2" if ul2 else "t5", "vocab_size": reference.size, "special": reference.special(),
                "tokens": {"<extra_id_0>": reference.token_id("<extra_id_0>"), "<extra_id_99>": reference.token_id("<extra_id_99>")}}
        write(out / name, {"0123_tokenizer.model": model}, case, texts, reference.encode, reference.decode)

    def folder(name, files, tokenizer, use_fast=False, ids=None, decode=None, shown=texts):
        case = {"folder": True, "vocab_size": len(tokenizer), "special": ids or special(tokenizer)}
        encode = fast(tokenizer) if use_fast else slow(tokenizer)
        write(out / name, files, case, shown, encode, decode or skip_special(tokenizer))

    def by_model(model, tokenizer):
        """The model's own decoding: transformers' Python tokenizers strip blanks at the ends."""
        sp = SentencePiece(model).model
        return lambda ids: sp.decode([i for i in ids if i not in tokenizer.all_special_ids])

    trained = {}
    for kind in ["unigram", "bpe"]:
        for rule in ["nmt_nfkc", "nfkc", "nmt_nfkc_cf", "identity"]:
            trained[kind, rule] = train(contexts, model_type=kind, vocab_size=16000, normalization_rule_name=rule, character_coverage=0.999)
            plain(f"{kind}_{rule}", trained[kind, rule])
        bytes_model = train(contexts, model_type=kind, vocab_size=16000, byte_fallback=True, character_coverage=0.98, split_digits=True,
                            normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True)
        trained[kind, "bytes"] = bytes_model
        plain(f"{kind}_bytes", bytes_model)
        symbols = train(contexts, model_type=kind, vocab_size=8000, user_defined_symbols=["<user>", "\U0001f642", "the ", "1,0", "\ufb01"],
                        control_symbols=["<ctl>"], pad_id=3, byte_fallback=True)
        plain(f"{kind}_symbols", symbols)
        plain(f"{kind}_suffix", train(contexts, model_type=kind, vocab_size=8000, treat_whitespace_as_suffix=True))
        plain(f"{kind}_no_dummy", train(contexts, model_type=kind, vocab_size=8000, add_dummy_prefix=False, split_by_unicode_script=False,
                                        split_by_number=False, max_sentencepiece_length=8))

        def forget(proto):
            for index in range(300, len(proto.pieces), 7):
                if proto.pieces[index].type == 1:
                    proto.pieces[index].type = 5

        if kind == "bpe":  # sentencepiece itself does not end on a unigram model with unused pieces
            plain(f"{kind}_unused", edit(trained[kind, "nmt_nfkc"], forget))
    plain("char", train(contexts, model_type="char", vocab_size=2000))

    sentinels = {"num_sentinel_tokens": 100}
    from_hf = {**sentinels, "add_sentinel_tokens_first": True, "add_sentinel_tokens_in_reverse_order": True}
    for kind in ["unigram", "bpe"]:
        nemo_t5(f"nemo_t5_{kind}", trained[kind, "nmt_nfkc"], sentinels)
        nemo_t5(f"nemo_t5_{kind}_from_hf", trained[kind, "nfkc"], from_hf)
        nemo_t5(f"nemo_ul2_{kind}", trained[kind, "bytes"], sentinels, ul2=True)
    roles = {"special_tokens": {"pad_token": "<PAD>", "cls_token": "<CLS>", "eos_token": "<EOS>"}, "additional_special_tokens": ["<user>", "</s>"]}
    nemo_t5("nemo_t5_roles", trained["unigram", "nmt_nfkc"], {**sentinels, **roles})
    for kind, name in [(4, "user"), (1, "normal")]:
        def sentinel_pieces(proto):
            for k in reversed(range(100)):
                proto.pieces.add(piece=f"\u2581<extra_id_{k}>", score=0.0, type=kind)

        model = edit(train(contexts, model_type="unigram", vocab_size=16000, pad_id=0, eos_id=1, unk_id=2, bos_id=-1), sentinel_pieces)
        nemo_t5(f"nemo_mt5_{name}", model, sentinels)
        nemo_t5(f"nemo_mt5_{name}_from_hf", model, from_hf)

    if options.t5:
        model = t5_model(options.t5)
        plain("t5", model)
        nemo_t5("nemo_t5_real", model, sentinels)
        nemo_t5("nemo_t5_real_from_hf", model, from_hf)
        Path("/tmp/spiece.model").write_bytes(model)
        for legacy in [True, False]:
            tokenizer = transformers.T5Tokenizer("/tmp/spiece.model", legacy=legacy)
            config = {"tokenizer_class": "T5Tokenizer", "legacy": legacy, "extra_ids": 100}
            files = {"spiece.model": model, "tokenizer_config.json": json.dumps(config)}
            # With legacy=False the reference puts `<unk>` before every text, which rounds scores differently: on texts
            # of one syllable a hundred times over, ties go another way.
            shown = texts if legacy else [text for text in texts if "abababab" not in text]
            folder(f"folder_t5_{'legacy' if legacy else 'new'}", files, tokenizer, decode=by_model(model, tokenizer), shown=shown)
    for kind in ["bpe", "unigram"]:
        path = Path("/tmp/tokenizer.model")
        path.write_bytes(trained[kind, "bytes"])
        for legacy in [True, False]:
            tokenizer = transformers.LlamaTokenizer(str(path), legacy=legacy)
            config = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy}
            files = {"tokenizer.model": trained[kind, "bytes"], "tokenizer_config.json": json.dumps(config)}
            folder(f"folder_llama_{kind}_{'legacy' if legacy else 'new'}", files, tokenizer,
                   decode=by_model(trained[kind, "bytes"], tokenizer))

    if options.gpt2:
        files = {name: (options.gpt2 / name).read_bytes() for name in ["vocab.json", "merges.txt"]}
        paths = [str(options.gpt2 / name) for name in files]
        gpt2 = transformers.GPT2TokenizerFast(*paths)
        folder("folder_gpt2", files, gpt2, use_fast=True)
        folder("folder_gpt2_slow", files, transformers.GPT2Tokenizer(*paths))
        folder("folder_qwen2", {**files, "config.json": '{"model_type": "qwen2"}'}, transformers.Qwen2TokenizerFast(*paths), use_fast=True)
        section = {"library": "megatron", "type": "GPT2BPETokenizer", "vocab_file": "nemo:0123_vocab.json", "merge_file": "nemo:0123_merges.txt"}
        end = gpt2.eos_token_id
        case = {"nemo": section, "model": "gpt", "vocab_size": len(gpt2), "special": {"bos": end, "eos": end, "unk": end, "pad": None}}
        write(out / "nemo_gpt2", {f"0123_{name}": content for name, content in files.items()}, case, texts, fast(gpt2), skip_special(gpt2))

    wordpiece = BertWordPieceTokenizer(lowercase=False)
    wordpiece.train_from_iterator(contexts, vocab_size=12000, limit_alphabet=2000, show_progress=False)
    wordpiece.save_model("/tmp", "cased")
    vocabularies = {"cased": Path("/tmp/cased-vocab.txt")}
    if options.bert:
        vocabularies["uncased"] = options.bert
    for name, path in vocabularies.items():
        lower = name == "uncased"
        tokens = [f"<extra_id_{k}>" for k in range(100)]
        section = {"library": "megatron", "type": "BertWordPieceLowerCase" if lower else "BertWordPieceCase",
                   "vocab_file": "nemo:0123_vocab.txt", **sentinels}
        base = {"do_lower_case": lower}
        quick = transformers.BertTokenizerFast(str(path), **base)
        quick.add_special_tokens({"additional_special_tokens": tokens})
        careful = transformers.BertTokenizer(str(path), **base)
        careful.add_special_tokens({"additional_special_tokens": tokens})
        ids = {"bos": quick.cls_token_id, "eos": quick.sep_token_id, "pad": quick.pad_token_id, "unk": quick.unk_token_id}
        case = {"nemo": section, "model": "t5", "vocab_size": len(quick), "special": ids, "tokens": {"<extra_id_0>": len(quick) - 100}}
        # NeMo takes the Python tokenizer; the fast one keeps characters that Unicode does not assign.
        assigned = [text for text in texts if all(unicodedata.category(c) != "Cn" for c in text)]
        for kind, encode, texts_of in [("fast", fast(quick), assigned), ("slow", slow(careful), texts)]:
            write(out / f"nemo_bert_{name}_{kind}", {"0123_vocab.txt": path.read_bytes()}, case, texts_of, encode, skip_special(careful))
        files = {"vocab.txt": path.read_bytes(), "tokenizer_config.json": json.dumps(base)}
        ids = {**ids, "bos": quick.cls_token_id, "eos": quick.sep_token_id}
        folder(f"folder_bert_{name}", files, transformers.BertTokenizerFast(str(path), **base), use_fast=True, ids=ids)


main()
