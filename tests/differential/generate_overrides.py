"""Random override strings (kind `override_parse`), most of them as the grammar has it, some with a slip in them."""

IDS = ["a", "b", "abc", "x_y", "a-b", "_x", "key", "null", "true", "inf", "nan", "TRUE", "Null", "NaN", "none", "yes", "e5", "a1", "A", "choice", "range", "str", "int", "include", "sort"]
INTS = ["0", "1", "-1", "+1", "10", "1_000", "00", "01", "1__0", "1_", "99999999999999999999999", "-0", "7"]
FLOATS = ["1.0", "1.", ".5", "-.5", "+.5", "1e3", "1E-3", "1.5e+10", "1e400", "inf", "-inf", "+inf", "nan", "-nan", "1_0.5_0", "1._5", "1e1_0", "0.1", "1.0e-7", "1e", "INF", "1e5.5", ".5.5", "01.5", "1e03", "0.30000000000000004"]
OTHER = ["/", "-", "\\", "+", ".", "$", "%", "*", "@", "?", "|", "a/b", "a.b", "/x/y.z", "a@b", "*.txt", "50%", "a|b", "$x", "a=b", "http://h:80/p", "1:30", "10k", "1.2.3", "2020-01-01", "a b", "a  b", "3 4", ":", "::"]
ESCAPES = ["\\\\", "\\(", "\\)", "\\[", "\\]", "\\{", "\\}", "\\:", "\\=", "\\,", "\\ ", "\\\t", "a\\,b", "\\a", "\\'", "\\\\\\,", "a\\ b"]
INTERPOLATIONS = ["${a}", "${a.b}", "${.x}", "${oc.env:HO_SET}", "${a:b,c}", "${f: x , y }", "x${a}y", "${a}${b}", "${x.${y}}", "${", "${}", "$", "${a\nb}", "${a", "${..a}", "${hydra:job.name}"]
WRONG = ["#", ";", "&", "<", ">", "^", "!", "`", "~", "é", "'", '"', "\n", "(", ")", "[", "]", "{", "}", "=", ",", "\\\n", "中"]


def quoted(r):
    quote = r.choice("'\"")
    body = "".join(r.choice(["a", "b c", "\\", "\\\\", "\\" + quote, '"', "'", ",", "=", ":", "${x}", "é", "\n", "\\n", " ", "{", "]", "$", "\\${x}", "1"]) for _ in range(r.randint(0, 5)))
    return quote + body + quote


def primitive(r):
    choice = r.random()
    tables = [(0.18, IDS), (0.33, INTS), (0.48, FLOATS), (0.60, OTHER), (0.66, ESCAPES), (0.72, INTERPOLATIONS)]
    for bound, table in tables:
        if choice < bound:
            return r.choice(table)
    if choice < 0.84:
        return quoted(r)
    if choice < 0.87:
        return "".join(r.choice("0123456789_.eE+-infa") for _ in range(r.randint(1, 6)))
    pieces = IDS + INTS + FLOATS + OTHER + ESCAPES + INTERPOLATIONS + [" ", "  ", "\t"]
    return "".join(r.choice(pieces) for _ in range(r.randint(2, 4)))


def space(r):
    return r.choice(["", "", "", "", "", " ", "  ", "\t"])


def element(r, depth=0):
    choice = r.random()
    if depth > 3 or choice < 0.62:
        return primitive(r)
    if choice < 0.76:
        return "[" + space(r) + ",".join(space(r) + element(r, depth + 1) + space(r) for _ in range(r.randint(0, 3))) + "]"
    if choice < 0.88:
        pairs = [f"{space(r)}{dict_key(r)}{space(r)}:{space(r)}{element(r, depth + 1)}{space(r)}" for _ in range(r.randint(0, 3))]
        return "{" + ",".join(pairs) + "}"
    return function(r, depth + 1)


def dict_key(r):
    return primitive(r) if r.random() < 0.3 else r.choice(IDS + INTS[:5] + FLOATS[:8] + ["a b", "a/b", "a.b", "$x", "true", "null", "a\\:b"])


def number(r):
    return r.choice(["0", "1", "2", "3", "10", "-3", "0.5", "1.5", "0.1", "1e1", "-0.25", "5", "true", "1_0"]) if r.random() < 0.93 else primitive(r)


def scalar_argument(r):
    return r.choice(["1", "2.5", "a", "true", "null", "'1'", '"b"', "b", "-1", "'true'", "1e3", "${x}", "' 7 '", "inf", "nan", "FALSE", "0", "0.0", "'1_0'", "'0x1'", "abc", "[1,2]", "{a:1}", "''", "c d"]) if r.random() < 0.9 else primitive(r)


def sweep(r, depth):
    choice = r.random()
    if choice < 0.4:
        return "choice(" + ",".join(scalar_argument(r) if r.random() < 0.8 else element(r, depth + 1) for _ in range(r.randint(0 if r.random() < 0.1 else 1, 4))) + ")"
    if choice < 0.75:
        count = r.choice([1, 2, 2, 3, 3, 3, 0, 4] if r.random() < 0.2 else [1, 2, 3])
        arguments = [number(r) for _ in range(count)]
        if r.random() < 0.25:
            names = ["start", "stop", "step", "foo"][:max(count, 1)]
            arguments = [f"{name}{space(r)}={space(r)}{value}" for name, value in zip(names, arguments)]
            if r.random() < 0.3:
                r.shuffle(arguments)
        elif r.random() < 0.15 and count:
            arguments[-1] = r.choice(["stop=", "step=", "start="]) + arguments[-1]
        return "range(" + ",".join(arguments) + ")"
    if choice < 0.85:
        return f"interval({number(r)},{number(r)})" if r.random() < 0.7 else f"interval(start={number(r)}, end={number(r)})"
    return "glob(" + r.choice(["*", "a*", "'*'", "[a*,b*]", "include=*", "include=[*],exclude=b", "*,exclude=a", "1", "exclude=a", "a?,[b,c]", "['*']", "[1]"]) + ")"


def function(r, depth=0):
    name = r.choice(["choice", "range", "interval", "glob", "tag", "sort", "shuffle", "int", "float", "str", "bool", "int", "float", "str", "bool", "sort", "tag", "foo", "Int", "extend_list", "json_str"])
    if name in ("choice", "range", "interval", "glob"):
        return sweep(r, depth)
    inner = lambda: sweep(r, depth) if r.random() < 0.5 or depth > 3 else element(r, depth + 1)
    if name == "tag":
        tags = [r.choice(["t1", "t2", "'q'", "1", "tags", "a b"]) for _ in range(r.randint(0, 3))]
        last = inner() if r.random() < 0.85 else "sweep=" + inner()
        return "tag(" + ",".join(tags + [last]) + ")"
    if name in ("sort", "shuffle"):
        choice = r.random()
        items = [inner()] if choice < 0.4 else ["[" + ",".join(scalar_argument(r) for _ in range(r.randint(0, 4))) + "]"] if choice < 0.6 else [scalar_argument(r) for _ in range(r.randint(0, 4))]
        if r.random() < 0.2:
            items = [r.choice(["sweep=", "list=", "foo="]) + items[0]] if items else ["list=[]"]
        if r.random() < 0.3:
            items.append("reverse=" + r.choice(["true", "false", "1", "null", "a"]))
        return f"{name}(" + ",".join(items) + ")"
    items = [scalar_argument(r) if r.random() < 0.6 else inner() for _ in range(r.choice([1, 1, 1, 1, 2, 3, 0]))]
    if r.random() < 0.1 and items:
        items[0] = r.choice(["value=", "foo="]) + items[0]
    return f"{name}{r.choice(['', '', '', ' '])}({space(r)}" + ",".join(items) + f"{space(r)})"


def key(r):
    base = r.choice(["a", "a.b", "a.b.c", "x_y", "a-b", "group", "a/b", "a/b/c", "list.0", "a.0.b", "$x", "a$b.c", "_", "", "db", "a.1_0", "hydra.run.dir"])
    if r.random() < 0.08:
        base = "".join(r.choice("ab01._-$/@: ~+[]é'") for _ in range(r.randint(1, 5)))
    if r.random() < 0.15:
        base += "@" + r.choice(["pkg", "a.b", "", "_global_", "x-y", "_here_", "$p", "a/b", "p:q", "_group_.x"])
    return base


def value(r):
    if r.random() < 0.15:
        return f"{space(r)},{space(r)}".join(element(r) for _ in range(r.randint(2, 4)))
    return element(r)


def slip(r, text):
    """One wrong character somewhere, or one lost."""
    at = r.randint(0, len(text))
    if r.random() < 0.5:
        return text[:at] + r.choice(WRONG + ["\\", " ", ":", "_", "."]) + text[at:]
    return text[:at] + text[at + 1:]


def override_text(r):
    prefix = r.choice(["", "", "", "", "+", "++", "~"])
    text = prefix + key(r)
    if not (prefix == "~" and r.random() < 0.4):
        text += r.choice(["=", "=", "=", "=", "= ", "=\t"]) + (value(r) if r.random() < 0.95 else "") + r.choice(["", "", "", "", " "])
    return slip(r, text) if r.random() < 0.08 else text


def override_row(r):
    rule = r.choice(["override"] * 10 + ["element", "value", "function", "function", "primitive", "listContainer", "dictContainer", "key", "simpleChoiceSweep"])
    if rule == "override":
        text = override_text(r)
    else:
        text = {
            "element": element,
            "value": value,
            "function": function,
            "primitive": primitive,
            "listContainer": lambda r: "[" + ",".join(element(r, 1) for _ in range(r.randint(0, 4))) + "]",
            "dictContainer": lambda r: "{" + ",".join(f"{dict_key(r)}:{element(r, 1)}" for _ in range(r.randint(0, 4))) + "}",
            "key": key,
            "simpleChoiceSweep": lambda r: ",".join(element(r, 1) for _ in range(r.randint(2, 4))),
        }[rule](r)
    row = {"kind": "override_parse", "rule": rule, "input": text, "args": [text]}
    if "shuffle" in text:
        row["nondeterministic"] = True
    return row
