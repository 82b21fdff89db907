"""Writes first inputs for a target: the texts of a conformance corpus where one is given, else a few of our own.

    python3 seeds.py TARGET FOLDER [CORPUS]
"""

import hashlib
import json
import pathlib
import sys

OWN = {
    "yaml": ["a: 1\nb: [x, {y: 2}]\nc: &x {k: '${a}'}\nd:\n  <<: *x\n  e: |\n    text\n", "- !!binary YQ==\n- \"\\u00e9\"\n- 1:30\n- ? a\n  : b\n"],
    "override_word": ["+a.b@p=[1,{k: 'v'}]", "a=choice(x,1.5,true)", "~db/x=range(0,1,0.1)", "k=sort(shuffle(1,2),reverse=true)", "a=glob(*,exclude=[b])"],
    "interpolation": ["${a.b}", "x${oc.select:a.${str},[1,{k: 'v'}]}\\${y}", "a: ${b}\nb: [1, '${oc.create:{x: ${..c}}}']\nc: 2\n"],
}


def texts(target, corpus):
    yield from OWN[target]
    if corpus is None:
        return
    kinds = {"yaml": ["yaml_load", "interp"], "override_word": ["override_parse"], "interpolation": ["interp"]}[target]
    for kind in kinds:
        for line in open(pathlib.Path(corpus, "cases", f"{kind}.jsonl"), encoding="utf-8"):
            row = json.loads(line)
            for key in ("yaml", "input"):
                if row.get(key):
                    yield row[key]
            if target == "interpolation" and row.get("yaml", "").count("\nv: ") == 1:
                yield row["yaml"].split("\nv: ")[1].strip().strip("\"'")


def main():
    target, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    for text in texts(target, sys.argv[3] if len(sys.argv) > 3 else None):
        data = text.encode("utf-8", "surrogatepass")
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


if __name__ == "__main__":
    main()
