"""Random YAML texts (kind `yaml_load`) and typed values to print (kind `to_yaml`)."""

SCALARS = """
1 0 -1 +1 01 017 08 0o17 0x1F 0X1F 0b101 0b2 1_000 1__0 1_ _1 123456789012345678901234567890 +0 -0 00 0_ +0x1f -0b1 0x_ 0b_
1.0 .5 -.5 +.5 5. -5. 1e3 1E3 1e+3 1.5e3 1.5e+3 1.5e-3 .5e3 .5e+3 1e1_0 1_0e3 1_0.5 1._5 1e400 -1e400 1e-400 1.e5 12e03 -2E+05 e3 1e 1e+
.inf -.inf +.inf .Inf .INF .iNF inf nan .nan .NaN .NAN -.nan infinity 0.1 1e16 1e15 123456789.123456789 5e-324 1.7976931348623157e308
1:30 1:60 12:34:56 1:30.5 -1:30 +1:2 0:0 01:30 1:2:3:4 190:20:30.15 1:30:99 1:5_0
true True TRUE tRue false False FALSE yes Yes YES no No NO on On ON off Off OFF y n Y N
null Null NULL nUll ~ ~~ None none = == << <<< ??? ???? ? - -- : a: :a a:b a#b #a a a_b a-b a.b a/b a@b @a `a` %a !a &a *a |a >a
2020-01-01 2020-01-01T00:00:00Z 12e 0x 1-2 1,2 a,b [a] {a} $a ${a} ${a.b} ${oc.env:HO_SET} ${a:b,c} x${a}y \\${a} $${a} ${ ${a é ключ 中文 😀
a'b a"b \\n \\ "" '' a\\b --- ... ---a ...a -a ?a :a - ?x "x" 'x' 'it''s' "a\\nb" "\\x41" "\\u00e9" "\\U0001F600" "\\z" "a\\tb" '\\n' "\\
""".split()

KEYS = ["a", "b", "c", "key", "a b", "a.b", "x-y", "'q'", '"dq"', "1", "1.5", "true", "yes", "0x10", "é", "a:b", "_x", "?x", "-x", "*", "<<",
        "null", "~", "''", "=", "2020-01-01", "01", "${a}", "key_" + "k" * 20, "a#b", "[1]", "{a: 1}", "? x", ".inf", "1:30", "!!str 1", "!!int '3'"]

TAGS = ["!!str", "!!int", "!!float", "!!bool", "!!null", "!!binary", "!!omap", "!!seq", "!!map", "!!set", "!!timestamp", "!!pairs", "!x", "!", "!<tag:yaml.org,2002:str>",
        "!<x>", "!!python/none", "!!merge", "!!value", "!e!x"]


def digits(r):
    """A number-like scalar, most of them at an edge of some pattern."""
    parts = [r.choice(["", "", "-", "+"]), r.choice(["", "0", "1", "12", "1_0", "007", "9", "0x", "0b1", "0o7"]),
             r.choice(["", ".", "_", ":", ".5", ".0_1", ":30", ":59", ":60", ":3:4"]), r.choice(["", "", "5", "0", "_", "1_2"]),
             r.choice(["", "", "", "e", "E", "e+", "e-", "E+"]), r.choice(["", "", "5", "10", "_1", "0.5"])]
    return "".join(parts) or "0"


TAME_SCALARS = [word for word in SCALARS if word[0] not in "\"'{}[]*&!|>%@`#,?:-=~<" and ": " not in word and "{" not in word and not word.endswith(":")]
TAME_KEYS = ["a", "b", "c", "d", "key", "a b", "a.b", "x-y", "'q'", '"dq"', "1", "1.5", "true", "yes", "é", "01", "a#b", "_x", "2020-01-01", "1:30"]


def scalar(r):
    if getattr(r, "tame", False) and r.random() < 0.95:
        return r.choice(TAME_SCALARS) if r.random() < 0.85 else "'" + r.choice(SCALARS).replace("'", "''") + "'"
    choice = r.random()
    if choice < 0.45:
        return r.choice(SCALARS)
    if choice < 0.65:
        return digits(r)
    if choice < 0.75:
        return " ".join(r.choice(SCALARS) for _ in range(r.randint(2, 4)))
    if choice < 0.85:
        quote = r.choice("'\"")
        body = "".join(r.choice(["a", "b ", " ", "\\n", "\\\\", "#", ": ", "é", "{", "\\\"", "''", "\n  ", "\n\n  ", "\\\n  ", "\t", "\\t", "\\x4", "\\N", "😀", "  "]) for _ in range(r.randint(0, 6)))
        return quote + body + quote
    return "".join(r.choice("abc019_-+.:,#&*!|>'\"%@`{}[]?=~ \t\\$/()") for _ in range(r.randint(1, 6)))


def key(r):
    return r.choice(TAME_KEYS if getattr(r, "tame", False) and r.random() < 0.95 else KEYS)


def flow(r, depth=0):
    choice = r.random()
    if depth > 2 or choice < 0.5:
        return scalar(r)
    space = lambda: r.choice(["", "", " ", "  ", "\n "])
    count = r.randint(0, 4)
    if choice < 0.75:
        items = [space() + flow(r, depth + 1) + space() for _ in range(count)]
        if r.random() < 0.15:
            items.append("")
        if r.random() < 0.15:
            items.append(f" {key(r)}: {scalar(r)}")
        return "[" + ",".join(items) + "]"
    items = []
    for _ in range(count):
        colon = r.choice([": ", ": ", ": ", ":", " : ", ""])
        items.append(space() + r.choice(["", "", "", "? "]) + key(r) + colon + (flow(r, depth + 1) if colon else "") + space())
    return "{" + ",".join(items) + "}"


def block_scalar(r, indent):
    header = r.choice("|>") + r.choice(["", "", "-", "+", "2", "1", "-2", "2+", "0", "9", " # c", "#"])
    lines = [r.choice(["", "text", "  more", "a: b", "- x", "# no", "\ttab", " one", "end ", "é", "---"]) for _ in range(r.randint(0, 5))]
    pad = " " * (indent + r.choice([2, 2, 2, 1, 4]))
    return header + "".join("\n" + (pad + line if line or r.random() < 0.3 else "") for line in lines)


def node(r, indent, depth, anchors):
    """What stands after `key:` or `-`, with its own line ends."""
    choice = r.random()
    prefix = ""
    if r.random() < 0.06:
        prefix += " " + r.choice(TAGS)
    if r.random() < 0.08:
        name = r.choice(["x", "y", "z", "a1", "a-b"])
        anchors.append(name)
        prefix += f" &{name}"
    comment = r.choice(["", "", "", "", "", " # note", " #", "  # a: b"])
    if choice < 0.40 or depth > 3:
        return f"{prefix} {scalar(r)}{comment}"
    if choice < 0.46 and anchors:
        return f"{prefix if r.random() < 0.1 else ''} *{r.choice(anchors)}{comment}"
    if choice < 0.50:
        return prefix + comment
    if choice < 0.62:
        return f"{prefix} {flow(r)}{comment}"
    if choice < 0.68:
        return f"{prefix} {block_scalar(r, indent)}"
    if choice < 0.72:
        return f"{prefix} {scalar(r)}\n{' ' * (indent + r.randint(0, 3))}{scalar(r)}"
    inner = indent + r.choice([2, 2, 2, 2, 4, 1, 3, 0])
    return prefix + comment + "\n" + block(r, inner, depth + 1, anchors)


def block(r, indent, depth, anchors):
    pad = " " * indent
    lines = []
    kind = r.random()
    count = r.randint(1, 4)
    for _ in range(count):
        if r.random() < 0.05:
            lines.append(r.choice(["", "# comment", pad + "# comment", "   ", pad + "\t"]))
        here = pad if r.random() > 0.02 else " " * max(0, indent + r.choice([-1, 1, 2]))
        if kind < 0.65:
            if anchors and r.random() < 0.10:
                source = r.choice([f"*{r.choice(anchors)}", f"[*{r.choice(anchors)}, *{r.choice(anchors)}]", "{a: 1, b: 2}", "1", "[]", "[{a: 1}, {a: 2, z: 3}]", "null"])
                lines.append(f"{here}<<: {source}")
            elif r.random() < 0.03:
                lines.append(f"{here}? {key(r)}\n{here}: {scalar(r)}")
            else:
                name = key(r) if r.random() < 0.3 else r.choice("abcdefghijklmnop")
                anchor = f"&{r.choice('xyz')} " if r.random() < 0.02 else ""
                lines.append(f"{here}{anchor}{name}{r.choice([':', ':', ':', ':', ' :'])}{node(r, indent, depth, anchors)}")
        elif kind < 0.95:
            if r.random() < 0.2:
                lines.append(f"{here}- {r.choice('abc')}:{node(r, indent + 2, depth + 1, anchors)}\n{here}  d:{node(r, indent + 2, depth + 1, anchors)}")
            elif r.random() < 0.1:
                lines.append(f"{here}- -{node(r, indent + 2, depth + 1, anchors)}\n{here}  -{node(r, indent + 2, depth + 1, anchors)}")
            else:
                lines.append(f"{here}-{node(r, indent, depth, anchors)}")
        else:
            lines.append(f"{here}{flow(r)}")
    return "\n".join(lines)


def text(r):
    r.tame = r.random() < 0.7
    out = block(r, 0, 0, [])
    if r.random() < 0.05:
        out = r.choice(["---\n", "--- ", "%YAML 1.1\n---\n", "%YAML 1.2\n---\n", "%TAG !e! tag:yaml.org,2002:\n---\n", "\ufeff", "# c\n", "\n\n", "---\n---\n", "%FOO\n---\n"]) + out
    if r.random() < 0.05:
        out += r.choice(["\n...\n", "\n---\n", "\n--- a\n", "\n...\na: 1\n", "\n# end", "\n ", "\n\t", "\x00", "\x07", "\u2028", "\x85"])
    if r.random() < 0.8:
        out += "\n"
    if r.random() < 0.03:
        out = out.replace("\n", "\r\n")
    if r.random() < 0.05:
        at = r.randint(0, len(out))
        out = out[:at] + r.choice(list("\t :-#,[]{}&*!|>'\"%@`\n")) + out[at + r.randint(0, 2):]
    return out


def yaml_row(r):
    choice = r.random()
    r.tame = False
    if choice < 0.2:
        return {"kind": "yaml_load", "yaml": r.choice(["a: {}", "- {}", "{}: 1", "a: [{}]", "a: {{k: {}}}", "{}: {}"]).replace("{}", scalar(r), 1)
                .replace("{{", "{").replace("}}", "}").replace("{}", "x")}
    return {"kind": "yaml_load", "yaml": text(r)}


# ---- values to print

PIECES = ["a", "word", "a long word", " ", "  ", "\n", "\n\n", "\t", "'", '"', ":", ": ", " #", "#", ",", "é", "中", "😀", "\x00", "\x1b", "\x7f", "\x85",
          "\xa0", "\u2028", "\u2029", "\ufeff", "\ufffe", "\ud7ff", "\ue000", "\\", "\\n", "-", "- ", "?", "? ", "!", "&x", "*x", "%", "@", "`", "{", "}", "[", "]", "|", ">",
          "0", "1", "${a}", "${oc.env:X,1}", "http://x/y?z=1&k=v", "=", "~", "---", "...", "\r", "\r\n", "x" * 30, "lorem ipsum dolor sit amet consectetur", "/path/to/some/file-name_1.txt",
          "\U0010ffff", "\U0001f600"]


def string(r):
    choice = r.random()
    if choice < 0.3:
        return r.choice(SCALARS)
    if choice < 0.4:
        return digits(r)
    if choice < 0.6:
        count, words = r.randint(10, 60), PIECES[:3] + ["x", "to", "and", "-", "it's", '"q"', "a:", "#1", "é", "  "]
        return " ".join(r.choice(words) for _ in range(count))
    if choice < 0.7:
        return r.choice([" ", "\t", "\n", ""]).join(r.choice(PIECES) for _ in range(r.randint(10, 40)))
    return "".join(r.choice(PIECES) for _ in range(r.randint(0, 8)))


def number(r):
    choice = r.random()
    if choice < 0.4:
        return {"k": "int", "v": str(r.choice([0, 1, -1, 10**20, r.randint(-10**6, 10**6)]))}
    value = r.choice([0.0, -0.0, 1.0, 0.1, 1e16, 1e15, 9999999999999998.0, 1e-4, 1e-5, 1.5e-7, 5e-324, 1e308, float("inf"), float("-inf"), float("nan"),
                      r.uniform(-1, 1), r.uniform(-1, 1) * 10 ** r.randint(-30, 30), float(r.randint(0, 10**17))])
    return {"k": "float", "v": repr(value)}


def value(r, depth=0):
    choice = r.random()
    if depth > 4 or choice < 0.45:
        return {"k": "str", "v": string(r)}
    if choice < 0.6:
        return r.choice([{"k": "null"}, {"k": "bool", "v": True}, {"k": "bool", "v": False}, number(r), number(r), {"k": "bytes", "v": [r.randint(0, 255) for _ in range(r.choice([0, 1, 5, 60]))]}])
    if choice < 0.75:
        return {"k": "list", "v": [value(r, depth + 1) for _ in range(r.randint(0, 4))]}
    return mapping(r, depth)


def mapping(r, depth=0):
    pairs, seen = [], []
    for _ in range(r.randint(0, 4)):
        choice = r.random()
        key = {"k": "str", "v": string(r) if choice < 0.5 else r.choice("abcdefg") + str(r.randint(0, 9))}
        if choice > 0.93:
            key = r.choice([{"k": "int", "v": "1"}, {"k": "bool", "v": True}, {"k": "float", "v": "1.5"}, {"k": "float", "v": "inf"}, {"k": "int", "v": "-20"}, {"k": "bytes", "v": [1, 200]}])
        plain = key["v"]
        if any(str(plain) == str(other) for other in seen) or (plain in ("1", True) and any(o in ("1", True) for o in seen)):
            continue
        seen.append(plain)
        pairs.append([key, value(r, depth + 1)])
    return {"k": "dict", "v": pairs}


def to_yaml_row(r):
    return {"kind": "to_yaml", "value": mapping(r)}
