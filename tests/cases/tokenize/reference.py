"""The reference tokenizers, and the cases that tests/it/tokenize.rs reads: shared by make.py and compare.py.

    pip install sentencepiece==0.2.3 tokenizers==0.22.2 transformers==4.57.6 protobuf

A case is a folder with the tokenizer's files, `case.json` (how to load it, and the ids of its special tokens) and
`expected.jsonl` (one text a line: ids, byte ranges, decoded text; null where the reference has no say).
"""
import io
import json
import random
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2, sentencepiece_pb2

NASTY = [
    "", " ", "   ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u200b", "\ufeff", "\u0000", "\u0001\u0002", "\u007f",
    "\u0085", "\u2028", "\u2029", "\ufffd", "\u00ad", "\ue000", "\U000f0000", "\ufdd0", "\u0378",
    "a b  c   d", " lead", "trail ", "  both  ", "tab\tand\nline\r\nend", "no\u00a0break", "wide\u3000blank", "zero\u200bwidth",
    "joiner\u200djoined\u200c", "\u202eright to left\u202c", "\ufeffmark first", "nul\u0000inside",
    "e\u0301 a\u0308 n\u0303 o\u0302\u0323", "\u0301 alone", "A\u030a \u212b \u00c5", "\u1100\u1161\u11a8 \uac01", "\u0928\u093f \u0e01\u0e33",
    "\ufb01ne \ufb03 \u2460 \u2469 \u00bd \u33a1 \u2122 \uff21\uff22\uff23 \uff11\uff12 \uff76\uff9e \u2026 \u00b2 \u2074 \u0133 \u01c4",
    "\u00df \u1e9e \u0130 \u0131 \u017f \u03c2\u03c3\u03a3", "\ufdfa \ufdfb", "\u0344 \u0f73 \u0958 \ufb2c", "\U0001d400\U0001d7d8 \U0001f110",
    "\U0001f642", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f1e9\U0001f1ea\U0001f1eb", "\U0001f44d\U0001f3fd", "\u2764\ufe0f", "1\ufe0f\u20e3",
    "\u4e2d\u6587 text \u4e2d", "\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3059\u3002", "\U00020000\U0002a6d6", "\u0645\u0631\u062d\u0628\u0627\u060c \u0627\u0644\u0639\u0627\u0644\u0645\u061f", "\u0627\u0644\u0652\u0642\u064f\u0631\u0652\u0622\u0646", "\u05e9\u05c1\u05c2",
    "I'm you're we'll it's they'd I've 'tis O'Neil's", "1234567890 3.14 1,000,000 1e-5 0x1F", "a.b,c;d:e!f?g-h_i(j)[k]{l}<m>/n\\o|p~q`r^s+t=u*v&w%x$y#z@",
    "!!!???...---___", "''\"\"\u201c\u201d\u2018\u2019\u00ab\u00bb", "camelCaseAndACRONYMs", "http://user@example.com:80/p?q=1&r=%20#f",
    "x" * 120, "ab" * 80, "\u00e9" * 110, "\U0001f642" * 12, "\u2581", "\u2581\u2581a", "a\u2581b", "<", "<>", "<0x41>", "<unk>", "<s>x</s>", "<pad>",
    "</s>", "a</s>b", " </s> ", "<mask>", "<cls><sep>", "<extra_id_0>", "Fill <extra_id_0> and <extra_id_1> here", "in<extra_id_0>side",
    " <extra_id_0> ", "<extra_id_0><extra_id_1>", "<extra_id_1>0>", "<extra_id_100>", "<extra_id_", "<extra_id_00>", "  <extra_id_5>\t\n<extra_id_99>  x",
    "<|endoftext|>", "a<|endoftext|>b", " <|endoftext|> ", "<|endoftext|", "[CLS] [SEP] [MASK] [UNK] [PAD]", "a[CLS]b", "[cls]", "##ing", "un##ing",
    "\u0120the", "\u010a", "Hello, World!", "HELLO wORLD", "na\u00efve caf\u00e9 Gr\u00f6\u00dfe", "<ctl>", "a<user>b", "<user><user>", "<user", " <user> x",
]


def read_xquad(folder):
    """Contexts, questions and answers of every language."""
    texts = []
    for path in sorted(Path(folder).glob("xquad.*.json")):
        for article in json.loads(path.read_text())["data"]:
            for paragraph in article["paragraphs"]:
                texts.append(paragraph["context"])
                for qa in paragraph["qas"]:
                    texts.append(qa["question"])
                    texts += [answer["text"] for answer in qa["answers"]]
    return texts


def mixtures(count, seed):
    """Random strings of nasty pieces, and of single odd characters."""
    rng = random.Random(seed)
    odd = [chr(c) for c in range(0x20)] + list(" \u00a0\u3000\u200b\u200d\ufe0f\u0301\u0308\u0323\u2581<>_[]#'\u00adaAbzZ09.,")
    for first, last in [(0x80, 0x250), (0x300, 0x370), (0x600, 0x700), (0x900, 0x980), (0xe00, 0xe80), (0x1100, 0x1200), (0x2000, 0x2070),
                        (0x20d0, 0x2180), (0x2460, 0x24ff), (0x3000, 0x3100), (0x3300, 0x3400), (0x4e00, 0x4f00), (0xac00, 0xad00), (0xf900, 0xfb50),
                        (0xfb50, 0xfe00), (0xfe20, 0x10000), (0x1d400, 0x1d500), (0x1f100, 0x1f200), (0x1f300, 0x1f650)]:
        odd += [chr(rng.randrange(first, last)) for _ in range(40)]
    texts = []
    for _ in range(count):
        if rng.random() < 0.5:
            texts.append("".join(rng.choice(NASTY) for _ in range(rng.randrange(1, 5))))
        else:
            texts.append("".join(rng.choice(odd) for _ in range(rng.randrange(1, 24))))
    return texts


class SentencePiece:
    """sentencepiece, with the byte range of every token; a byte token gets its whole character's."""

    def __init__(self, model):
        self.model = sentencepiece.SentencePieceProcessor(model_proto=model)

    def encode(self, text):
        proto = sentencepiece_pb2.SentencePieceText()
        proto.ParseFromString(self.model.encode(text, out_type="serialized_proto"))
        ids = [piece.id for piece in proto.pieces]
        assert ids == self.model.encode(text)
        spans = [[piece.begin, piece.end] for piece in proto.pieces]
        at = 0
        while at < len(ids):
            if self.model.is_byte(ids[at]):
                first = int(self.model.id_to_piece(ids[at])[3:5], 16)
                count = 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
                end = spans[at + count - 1][1]
                for index in range(at, at + count):
                    spans[index][1] = end
                at += count
            else:
                at += 1
        return ids, spans


class NemoLegacy:
    """NeMo's legacy wrapper and what its T5 adds, written from its description."""

    def __init__(self, model, section, t5=False, ul2=False):
        self.sp = SentencePiece(model)
        self.size = self.sp.model.get_piece_size()
        self.added = {}
        self.roles = {}
        special = section.get("special_tokens") or {}
        for role, token in special.items():
            self.roles[role] = token
            self.append(token)
        for token in section.get("additional_special_tokens") or []:
            self.append(token)
        if t5:
            first = section.get("add_sentinel_tokens_first", False)
            if first:
                self.sentinels(section)
            self.base(first)
            if not first:
                self.sentinels(section)
            if ul2:
                for mode in "rsx":
                    self.sentinel(f"<extra_id_{mode}>")

    def append(self, token):
        if self.sp.model.piece_to_id(token) == self.sp.model.unk_id() and token not in self.added:
            self.added[token] = self.size
            self.size += 1

    def sentinel(self, token):
        ids = self.encode(token)[0]
        if len(ids) == 1:
            self.added[token] = ids[0]
        else:
            self.append(token)

    def sentinels(self, section):
        count = section.get("num_sentinel_tokens", 0)
        order = range(count)
        for k in reversed(order) if section.get("add_sentinel_tokens_in_reverse_order") else order:
            self.sentinel(f"<extra_id_{k}>")

    def base(self, from_hugging_face):
        if "cls_token" not in self.roles:
            self.append("<cls>")
        self.append("<sep>")
        self.append("<mask>")
        for role, of_model, lowest, new, again in [
            ("pad_token", self.sp.model.pad_id(), 0 if from_hugging_face else 1, "<pad>", "<pad>"),
            ("bos_token", self.sp.model.bos_id(), 1, "<bos>", "<s>"),
            ("eos_token", self.sp.model.eos_id(), 1, "<eos>", "</s>"),
        ]:
            if role in self.roles:
                self.roles[role] = again
                self.append(again)
            elif of_model >= lowest:
                self.roles[role] = self.sp.model.id_to_piece(of_model)
            else:
                self.roles[role] = new
                self.append(new)

    def token_id(self, token):
        return self.added.get(token, self.sp.model.piece_to_id(token))

    def encode(self, text):
        ids, spans, start = [], [], 0
        while True:
            places = [(text.find(token, start), order, token) for order, token in enumerate(self.added)]
            places = [place for place in places if place[0] >= 0]
            end = min(places)[0] if places else len(text)
            before = len(text[:start].encode())
            more, ranges = self.sp.encode(text[start:end])
            ids += more
            spans += [[first + before, last + before] for first, last in ranges]
            if not places:
                return ids, spans
            token = min(places)[2]
            ids.append(self.added[token])
            begin = len(text[:end].encode())
            spans.append([begin, begin + len(token.encode())])
            start = end + len(token)

    def decode(self, ids):
        added = set(self.added.values())
        return self.sp.model.decode([i for i in ids if i not in added])

    def special(self):
        ids = {"unk": self.sp.model.unk_id()}
        for name, of_model in [("bos", self.sp.model.bos_id()), ("eos", self.sp.model.eos_id()), ("pad", self.sp.model.pad_id())]:
            role = self.roles.get(f"{name}_token")
            ids[name] = self.token_id(role) if role else (of_model if of_model >= 0 else None)
        return ids


def byte_spans(text, spans):
    """Character ranges as byte ranges."""
    widths = [0]
    for character in text:
        widths.append(widths[-1] + len(character.encode()))
    return [[widths[start], widths[end]] for start, end in spans]


def train(texts, **options):
    """A sentencepiece model's bytes."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=out, minloglevel=2, num_threads=2, **options)
    return out.getvalue()


def edit(model, change):
    """A model with `change` made to its ModelProto."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    change(proto)
    return proto.SerializeToString()


def write_case(folder, files, case, texts, encode, decode=None):
    """encode(text) -> ids, byte ranges or None; decode(ids) -> text."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "case.json").write_text(json.dumps(case, indent=1) + "\n")
    with open(folder / "expected.jsonl", "w") as out:
        for text in texts:
            ids, spans = encode(text)
            row = {"text": text, "ids": ids, "offsets": spans, "decoded": decode(ids) if decode else None}
            out.write(json.dumps(row, separators=(",", ":")) + "\n")
    print(f"{folder}: {len(texts)} texts")
