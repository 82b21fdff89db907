"""Makes a case smaller while ptune and Hydra still differ on it in the same way.

    python shrink.py --out /tmp/fuzz --id extra-00042 --run BINARY
"""

import argparse
import json
import os
import re
import tempfile

import explained
import fuzz


def shorter(text):
    """Texts with a part removed, big parts first."""
    lines = text.split("\n")
    if len(lines) > 1:
        size = len(lines) // 2
        while size:
            for at in range(0, len(lines), size):
                yield "\n".join(lines[:at] + lines[at + size:])
            size //= 2
    if len(text) <= 120:
        for size in (8, 4, 2, 1):
            for at in range(0, len(text), max(1, size // 2)):
                if text[at:at + size]:
                    yield text[:at] + text[at + size:]


def smaller(row, files):
    """Candidates (row, files), each with one thing less."""
    for at in range(len(row.get("args") or []) if row["kind"] not in ("override_parse", "interp") else 0):
        yield {**row, "args": row["args"][:at] + row["args"][at + 1:]}, files
    for path in list(files):
        yield row, {other: text for other, text in files.items() if other != path}
    for path in list(files):
        for text in shorter(files[path]):
            yield row, {**files, path: text}
    for key in ("yaml", "input"):
        if row.get(key):
            for text in shorter(row[key]):
                yield {**row, key: text}, files
    for at, word in enumerate(row.get("args") or [] if row["kind"] == "extra" else []):
        for text in shorter(word):
            yield {**row, "args": row["args"][:at] + [text] + row["args"][at + 1:]}, files
    if row["kind"] == "to_yaml":
        for value in smaller_values(row["value"]):
            yield {**row, "value": value}, files


def smaller_values(value):
    if value["k"] in ("list", "dict"):
        for at, item in enumerate(value["v"]):
            yield {**value, "v": value["v"][:at] + value["v"][at + 1:]}
            parts = [item] if value["k"] == "list" else item
            for place, part in enumerate(parts):
                for less in smaller_values(part):
                    new = less if value["k"] == "list" else [less if i == place else p for i, p in enumerate(parts)]
                    yield {**value, "v": value["v"][:at] + [new] + value["v"][at + 1:]}
    elif value["k"] == "str":
        for text in shorter(value["v"]):
            yield {**value, "v": text}


def differing(candidates, binary):
    """(row, files, class) of each candidate on which the two programs differ."""
    out = tempfile.mkdtemp(prefix="shrink-")
    rows = []
    for number, (row, files) in enumerate(candidates):
        row = {key: value for key, value in row.items() if key not in ("expect", "id", "argv")}
        if files:
            old = row["config_dir"].rsplit("/", 1)[0]
            new = f"trees/{number}"
            fuzz.write_tree(out, {path.replace(old, new): text.replace(old, new) for path, text in files.items()})
            row["config_dir"] = row["config_dir"].replace(old, new)
            row["flags"] = [flag.replace(old, new) for flag in row["flags"]]
            os.makedirs(os.path.join(out, row["config_dir"]), exist_ok=True)
        row["id"] = f"{row['kind']}-{number:05}"
        rows.append(row)
    os.makedirs(os.path.join(out, "trees"), exist_ok=True)
    rows = fuzz.answered(rows, out, 1)
    fuzz.write_cases(out, rows)
    failing = fuzz.run(binary, out) or {}
    found = []
    for row in rows:
        difference = failing.get(row["id"])
        if difference is not None and explained.reason(row, difference) is None:
            found.append((int(row["id"].rsplit("-", 1)[1]), fuzz.class_of(row, difference), row, difference))
    return found


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--out", required=True)
    arguments.add_argument("--id", required=True)
    arguments.add_argument("--run", required=True)
    given = arguments.parse_args()
    out = os.path.realpath(given.out)
    row = None
    for name in os.listdir(os.path.join(out, "cases")):
        for line in open(os.path.join(out, "cases", name), encoding="utf-8"):
            if f'"{given.id}"' in line:
                row = json.loads(line)
    files = {}
    if row.get("config_dir"):
        base = row["config_dir"].rsplit("/", 1)[0]
        for folder, _, names in os.walk(os.path.join(out, base)):
            for name in names:
                path = os.path.join(folder, name)
                files[os.path.relpath(path, out)] = open(path, encoding="utf-8", newline="").read()
    start = differing([(row, files)], given.run)
    if not start:
        print("the programs agree on this case")
        return
    wanted = start[0][1]
    last = start[0]
    progress = True
    while progress:
        progress = False
        candidates = list(smaller(row, files))
        for at in range(0, len(candidates), 40):
            part = candidates[at:at + 40]
            found = [one for one in differing(part, given.run) if one[1] == wanted]
            if found:
                row, files = part[found[0][0]]
                last = found[0]
                progress = True
                break
    print(wanted)
    for path, text in files.items():
        print(f"--- {path}\n{text}")
    print(json.dumps({key: value for key, value in row.items() if key in ("yaml", "input", "rule", "op", "select", "value", "args", "flags", "config_name")}, ensure_ascii=False))
    print(re.sub(r"\\n", "\n     ", last[3])[:3000])


if __name__ == "__main__":
    main()
