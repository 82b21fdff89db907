"""Random documents with interpolations (kind `interp`: select, resolve, print) and expressions of the grammar."""

import generate_overrides

BASE = """str: hi
int: 123
float: 1.2
bool: true
dict: {a: 0, b: {c: 1}}
list: [-1, 0, 1, {x: 5}]
nul: null
miss: ???
x@y: 123
$x$y$z$: 456
"0": 0
FalsE: {TruE: true}
None: {"null": 1}
"1": {"2": 12}
ref_str: str
options: {a: A, b: B}
choice: a
rel_opt: .options
tst: test
"""

TARGETS = ["str", "int", "float", "bool", "dict", "dict.a", "dict.b", "dict.b.c", "list", "list.0", "list.3", "list.3.x", "nul", "miss", "x@y", "0", "1.2", "None.null", "FalsE.TruE",
           "options.a", "choice", "nope", "dict.nope", "list.9", "str.x", "nul.x", "miss.x", "list.a", "dict[a]", "dict[b].c", "list[0]", "[dict].a", "list[3][x]", "[dict][b][c]", "list.-1",
           "list.+1", "list.00", "", "a", "b", "c", "m", "m.x", "m.l", "m.l.0", "m.l.1", "n.o", "n.p.q", "t", "u", "v", "dict.", "dict..a", "dict[", "ключ", "a-b", "list.1_0"]
RELATIVE = [".a", ".b", ".c", ".x", "..a", "..b", "..str", ".l", ".l.0", "...int", "....", ".", "..", ".dict.a", "..m.x", ".[x]", ".nope", "..l[1]", ".miss"]
RESOLVERS = ["oc.env", "oc.select", "oc.decode", "oc.create", "oc.deprecated", "oc.dict.keys", "oc.dict.values", "test", "ns1.ns2.test", "first", "multiply", "divide_ceil", "divide_floor", "nope", "te-st"]
ENVIRONMENT = ["HO_SET", "HO_NUM", "HO_EMPTY", "HO_LIST", "HO_INTERP", "HO_UNSET"]


def space(r):
    return r.choice(["", "", "", "", "", " ", "  "])


def node_interpolation(r, depth):
    choice = r.random()
    if choice < 0.65 or depth > 2:
        target = r.choice(TARGETS if r.random() < 0.8 else RELATIVE)
    elif choice < 0.85:
        inner = "${" + r.choice(["choice", "ref_str", "str", "int", "nope", "miss", "nul", "tst", ".a", "${ref_str}", "oc.env:HO_SET"]) + "}"
        target = r.choice(["options.", "dict.", "", "list.", "options[", ".", ".."]) + inner
        if "[" in target:
            target += "]"
        if r.random() < 0.2:
            target += r.choice([".a", "x", ".${choice}", "[0]"])
    else:
        target = "".join(r.choice(["a", ".", "[", "]", "$", "@", "-", "é", "0", " ", "#", "/", "m", "x", "*", "=", "?", "!"]) for _ in range(r.randint(1, 5)))
    return "${" + space(r) + target + space(r) + "}"


def argument(r, depth):
    choice = r.random()
    if choice < 0.25:
        return r.choice(["a", "1", "2", "-3", "1.5", "true", "null", "x y", "a/b", "a:b", "1e3", "inf", "10k", "", "None", "${", "a b c", ".5", "\\,", "\\ ", "a\\\\b", "@", "é", "#"])
    if choice < 0.50:
        return interpolation(r, depth + 1)
    if choice < 0.62:
        quote = r.choice("'\"")
        return quote + "".join(r.choice(["a", " ", ",", "${str}", "${int}", "\\", "\\\\", "\\" + quote, "\\${str}", "}", "{", ":", "é", "1", "'" if quote == '"' else '"', "${a}", "\\\\${int}"]) for _ in range(r.randint(0, 4))) + quote
    if choice < 0.72:
        return "[" + ",".join(space(r) + argument(r, depth + 1) for _ in range(r.randint(0, 3))) + "]"
    if choice < 0.82:
        return "{" + ",".join(f"{space(r)}{r.choice(['a', 'b', '1', 'true', 'null', 'x y', 'a-b', '1.5', 'a/b'])}{space(r)}:{space(r)}{argument(r, depth + 1)}" for _ in range(r.randint(0, 3))) + "}"
    if choice < 0.92:
        return "".join(argument(r, 3) if r.random() < 0.6 else r.choice([" ", "-", "_", "/", interpolation(r, 3)]) for _ in range(r.randint(2, 3))) if depth < 3 else "a"
    return generate_overrides.primitive(r)


def resolver_interpolation(r, depth):
    name = r.choice(RESOLVERS) if r.random() < 0.95 else r.choice(["${tst}", "ns1.${str}", "0", "a b", "é", "oc.", ".test", "oc.env.x"])
    if name == "oc.env":
        words = [r.choice(ENVIRONMENT)] + ([argument(r, depth)] if r.random() < 0.6 else [])
    elif name == "oc.select":
        words = [r.choice(TARGETS + RELATIVE) if r.random() < 0.9 else argument(r, depth)] + ([argument(r, depth)] if r.random() < 0.5 else [])
    elif name in ("oc.dict.keys", "oc.dict.values"):
        words = [r.choice(["dict", "options", "dict.b", "m", ".", ".m", "..dict", "list", "str", "nope", "miss", "nul", "n", "${dict}", "${options}", "{a:1}", "dict.nope", "''"])]
    elif name == "oc.deprecated":
        words = [r.choice(TARGETS)] + ([argument(r, depth)] if r.random() < 0.3 else [])
    elif name == "oc.decode":
        inner = argument(r, depth)
        words = [r.choice(["${oc.env:HO_LIST}", "${oc.env:HO_NUM}", "${oc.env:HO_INTERP}", "${oc.env:HO_EMPTY}", "'" + inner.replace("'", "\\'") + "'", inner, "null", "'[1,{a:${int}}]'", "'${str}'", "'a b'"])]
    elif name == "oc.create":
        words = [r.choice(["{a:1,b:${.a}}", "[1,${int}]", "'a: 1'", "${dict}", "'[1, 2]'", "null", "1", "{x:{y:${..a}}}", "'a: ${int}'", "${oc.env:HO_LIST}", "abc", "{a:${b}}", argument(r, depth)])]
    elif name in ("multiply", "divide_ceil", "divide_floor"):
        words = [r.choice(["1", "2", "7", "2.5", "-3", "0", "${int}", "${float}", "ab", "true", "[1]", "null", "1e20", "${list}", argument(r, depth)]) for _ in range(2 if r.random() < 0.92 else 3)]
    else:
        words = [argument(r, depth) for _ in range(r.choice([0, 1, 1, 1, 2, 2, 3]))]
    if r.random() < 0.06:
        words.append("")
    return "${" + space(r) + name + space(r) + ":" + space(r) + (space(r) + "," + space(r)).join(words) + space(r) + "}"


def interpolation(r, depth=0):
    return node_interpolation(r, depth) if r.random() < 0.5 or depth > 3 else resolver_interpolation(r, depth)


def text(r):
    choice = r.random()
    if choice < 0.55:
        return interpolation(r)
    pieces = ["a", " ", "\\", "\\\\", "$", "$$", "{", "}", "x: ", "'", '"', "é", "-", "\\$", "\\${", "\\\\${str}", "\\${str}", "\\\\\\${str}", "\t", "???", "/", ","]
    return "".join(interpolation(r) if r.random() < 0.45 else r.choice(pieces) for _ in range(r.randint(1, 5)))


def yaml_quoted(text):
    if "'" in text or "\n" in text or "\t" in text:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'
    return "'" + text + "'"


def leaf(r):
    return yaml_quoted(text(r)) if r.random() < 0.55 else r.choice(["1", "a", "null", "???", "true", "1.5", "[1, 2]", "{}", "[]", "'${str}'", "str", "{x: 1, a: '${.x}'}", "['${..a}', 2]"])


def document(r):
    lines = []
    for name in r.sample(["a", "b", "c", "t", "u"], r.randint(1, 4)):
        lines.append(f"{name}: {leaf(r)}")
    if r.random() < 0.6:
        lines.append("m:")
        for name in r.sample(["a", "b", "x", "y"], r.randint(1, 3)):
            lines.append(f"  {name}: {leaf(r)}")
        if r.random() < 0.5:
            lines.append(f"  l:\n  - {leaf(r)}\n  - {leaf(r)}\n  - x: {leaf(r)}\n    a: {leaf(r)}")
    if r.random() < 0.4:
        lines.append(f"n:\n  o: {leaf(r)}\n  p:\n    q: {leaf(r)}\n    a: {leaf(r)}")
    if r.random() < 0.7:
        r.shuffle(lines)
    return (BASE if r.random() < 0.7 else "str: hi\nint: 123\ndict: {a: 0}\n") + "\n".join(lines) + "\n"


def interp_row(r):
    row = {"kind": "interp", "resolve": True}
    choice = r.random()
    if choice < 0.30:
        row.update(op="select", yaml=BASE + f"v: {yaml_quoted(text(r))}\n", select="v")
    elif choice < 0.40:
        row.update(op="select", yaml=document(r), select=r.choice([t for t in TARGETS if t not in ("dict.", "dict..a", "dict[")]))
    elif choice < 0.62:
        row.update(op="resolve", yaml=document(r) if r.random() < 0.8 else BASE.replace("miss: ???\n", "") + f"v: {yaml_quoted(text(r))}\n")
    elif choice < 0.78:
        row.update(op="to_yaml_resolve", yaml=document(r).replace("miss: ???\n", ""))
    elif choice < 0.92:
        row.update(op="grammar", rule="singleElement", yaml=BASE, input=argument(r, 0))
    else:
        row.update(op="grammar", rule="configValue", yaml=BASE, input=text(r))
    return row
