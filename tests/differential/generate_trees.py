"""Random configuration trees and command lines over them (kind `extra`)."""

import generate_overrides

# Sorted so that a group mostly refers to later ones: cycles are for the few trees that want them.
GROUPS = ["exp", "app", "a", "a/b", "db", "srv", "nested/deep", "db/engine", "leaf"]
OPTIONS = ["x", "y", "z", "base", "mysql", "v1.0", "one_two", "a-b"]
KEYS = ["host", "port", "name", "opts", "items", "k", "db", "srv", "leaf", "a", "b"]
PACKAGES = ["pkg", "a.b", "_global_", "_here_", "_group_", "_name_", "_global_.pkg", "foo", "db", "_group_.x", "x._global_.y", "", "pkg.sub", "a", "opts", "_global_.db"]
INTERPOLATIONS = ["${port}", "${db.host}", "${.name}", "${..name}", "${k}", "${opts.k}", "${oc.env:HO_SET}", "${oc.env:HO_UNSET,dflt}", "${srv}", "${.opts}", "x-${name}-${k}", "${nope}", "${items}", "${items.0}",
                  "${oc.select:nope,7}", "${hydra:job.name}", "${multiply:${k},2}", "${db.${name}}", "\\${k}", "${leaf.k}", "${a.b.k}", "${oc.decode:'[1,2]'}", "${oc.create:{z:1}}", "${oc.dict.keys:opts}", "${hydra:runtime.choices}", "${hydra.job.name}"]


def scalar(r):
    return r.choice(["1", "2", "abc", "true", "null", "???", "1.5", "1e3", "'5'", "yes", "''", "x y", "{}", "[]", "-1", "01", "a,b"])


def value(r, depth, indent, path):
    """What stands after `key:`; the paths of the keys written are noted in `r.paths`."""
    choice = r.random()
    r.paths.append(path)
    if choice < 0.5 or depth > 2:
        return " " + scalar(r)
    if choice < 0.66:
        text = r.choice(INTERPOLATIONS)
        return f' "{text}"'.replace("\\", "\\\\") if '"' not in text else f" '{text}'"
    if choice < 0.74:
        return " [" + ", ".join(r.choice(["1", "2", "a", "b", "null", "{k: 1}", "[3]"]) for _ in range(r.randint(0, 3))) + "]"
    if choice < 0.78:
        return " {" + ", ".join(key + ": " + r.choice(["1", "a", "null", "'???'", "[1]"]) for key in r.sample(KEYS, r.randint(0, 3))) + "}"
    return "\n" + content(r, depth + 1, indent + 2, path + ".")


def content(r, depth=0, indent=0, prefix=""):
    keys = r.sample(KEYS, r.randint(1, 4 if depth == 0 else 3))
    lines = [" " * indent + f"{key}:{value(r, depth, indent, prefix + key)}" for key in keys]
    if r.random() < 0.03:
        lines.append(" " * indent + r.choice(["1: one", "1.5: f", "true: t", "'1': s", "01: o", "'': empty", "a.b: dotted", "null_: 1", "x/y: 1", "'k k': 2"]))
    return "\n".join(lines)


HYDRA_KEYS = """run run.dir sweep sweep.dir sweep.subdir launcher launcher._target_ launcher.x sweeper sweeper.params sweeper.params.k sweeper.max_batch_size sweeper._target_ sweeper.x
help help.app_name help.template hydra_help hydra_help.hydra_help hydra_logging hydra_logging.root.level hydra_logging.x job_logging job_logging.root job_logging.handlers.file env env.x mode searchpath
callbacks callbacks.c callbacks.c.x output_subdir overrides overrides.task overrides.hydra overrides.task.0 job job.name job.chdir job.override_dirname job.id job.num job.config_name job.env_set job.env_set.A job.env_copy
job.env_copy.0 job.config job.config.override_dirname job.config.override_dirname.kv_sep job.config.override_dirname.item_sep job.config.override_dirname.exclude_keys runtime runtime.version runtime.cwd
runtime.config_sources runtime.output_dir runtime.choices runtime.choices.db verbose foo foo.bar run.foo job.foo""".split()
HYDRA_VALUES = ["1", "x", "true", "null", "???", "1.5", "''", "[]", "[a]", "[1]", "[null]", "[[a]]", "[{a:1}]", "{}", "{x:1}", "{dir:z}", "{x:null}", "{A:1}", "{name:n}", "{x:{y:1}}", "'${db}'", "'${hydra.job.name}'", "RUN", "MULTIRUN", "run", "yes", "off", "'3'",
                "{_target_:a}", "[HO_SET]", "'x-${name}'", "2", "0", "-1", "'${k}'", "{k:1}", "'1.0'", "[k,a]", "'-'"]


def hydra_word(r):
    """A word that changes a typed value of Hydra's own."""
    prefix = r.choice(["", "", "", "", "+", "+", "++", "++", "~"])
    key = "hydra." + r.choice(HYDRA_KEYS)
    if prefix == "~" and r.random() < 0.7:
        return "~" + key
    return f"{prefix}{key}={r.choice(HYDRA_VALUES)}"


def hydra_part(r):
    """Content of `hydra:` in a file, one key of it."""
    key, value = r.choice(HYDRA_KEYS), r.choice(HYDRA_VALUES)
    value = value.replace(":", ": ").replace("$" + "{hydra: ", "${hydra:")
    if value.startswith("'${") or value == "???":
        value = f'"{value.strip(chr(39))}"'
    lines = key.split(".")
    return "\n".join("  " * (depth + 1) + part + ":" for depth, part in enumerate(lines)) + " " + value


class Tree:
    """The files of one tree, and what there is to choose in it."""

    def __init__(self, r, number):
        self.r = r
        self.folder = f"trees/fuzz/{number:05}"
        self.files = {}
        self.options = {}
        # Most trees are what somebody meant to write: in the others every line may be wrong.
        self.calm = r.random() < 0.75
        self.cycles = not self.calm and r.random() < 0.04
        self.present = []
        r.paths = []
        groups = r.sample(GROUPS, r.randint(2, 6))
        if r.random() < 0.12:
            groups.append("hydra/" + r.choice(["job_logging", "output", "help", "env", "launcher", "callbacks", "mine"]))
        self.groups = sorted(groups, key=lambda g: GROUPS.index(g) if g in GROUPS else 99)
        for group in self.groups:
            self.options[group] = r.sample(OPTIONS, r.randint(1, 4))
        for group in self.groups:
            for option in self.options[group]:
                self.files[f"conf/{group}/{option}.yaml"] = self.config(group, option)
        self.primaries = ["config", "alt", "sub/inner"]
        for name in self.primaries:
            self.files[f"conf/{name}.yaml"] = self.config("sub" if "/" in name else "", name, primary=True)
        if r.random() < 0.15:
            self.more("cd")
        if r.random() < 0.12:
            self.more("sp")
            searchpath = r.choice(["[\"file://${oc.env:HO_ROOT}/FOLDER/sp\"]"] * 4 + ([] if self.calm else ["[\"file://${oc.env:HO_ROOT}/FOLDER/nope\"]", "[1]", "abc", "[]", "null", "[\"pkg://hydra.conf\"]", "[\"x://y\"]"]))
            name = r.choice(list(self.files) if r.random() < 0.1 else ["conf/config.yaml"])
            self.files[name] += f"\nhydra:\n  searchpath: {searchpath.replace('FOLDER', self.folder)}\n"
        elif r.random() < 0.1:
            part = r.choice(["run:\n    dir: out/${name}", "job:\n    name: me", "sweep:\n    dir: s", "output_subdir: null"] if self.calm else ["run:\n    dir: out/${name}", "job:\n    name: me", "job:\n    chdir: yes", "sweep:\n    dir: s", "job:\n    num: x", "job:\n    env_set:\n      A: 1", "foo: 1", "output_subdir: null", "verbose: true",
                             "job:\n    config:\n      override_dirname:\n        exclude_keys: [k]", "mode: run", "mode: MULTIRUN", "callbacks:\n    c: {a: 1}", "run: 3", "help:\n    app_name: ${name}", "job_logging: null", "sweeper:\n    params:\n      k: 1"])
            self.files["conf/config.yaml"] += f"\nhydra:\n  {part}\n"
        elif r.random() < 0.06:
            self.files["conf/config.yaml"] += f"\nhydra:\n{hydra_part(r)}\n"
        if self.rare(0.2):
            self.files[f"conf/{r.choice(self.groups)}/{r.choice(OPTIONS)}.yaml"] = r.choice(["", "hello", "1", "[1, 2]", "- a", "null", "# only", "a: [", "\ta: 1", "a: 1\na: 2", "a: *x", "defaults: 1\n", "defaults:\n", "defaults: {}\n", "defaults: []\nk: 1\n", "a: ${x", "true", "a: !x 1", "k: 1\n---\nk: 2\n", "é: ü\n"])

    def rare(self, probability):
        return self.r.random() < (probability * 0.1 if self.calm else probability)

    def more(self, name):
        """A second folder for `--config-dir` or the search path: new options, and files that the main folder has too."""
        r = self.r
        for _ in range(r.randint(1, 3)):
            group = r.choice(self.groups + ["extra"])
            option = r.choice(OPTIONS + ["new"])
            self.options.setdefault(group, []).append(option)
            self.files[f"{name}/{group}/{option}.yaml"] = self.config(group, option)

    def config(self, group, name, primary=False):
        r = self.r
        lines = []
        if r.random() < (0.05 if primary else 0.22):
            lines.append(r.choice(["# @package ", "# @package ", "# @package ", "#@package ", "# @package  ", "# c\n# @package ", "\n# @package ", "## @package "]) + (r.choice(PACKAGES) or "pkg" if self.calm else r.choice(PACKAGES)) + (r.choice([" x", "\n# @package foo", " "]) if self.rare(0.25) else ""))
        entries = self.defaults(group, name, primary)
        if entries is not None:
            lines.append("defaults:" + (" []" if not entries else ""))
            lines += [r.choice(["  - ", "  - ", "- "]) if False else f"  - {entry}" for entry in entries]
        if r.random() < 0.92:
            lines.append(content(r, prefix=group.replace("/", ".") + "." if group and not primary else ""))
        return "\n".join(lines) + "\n"

    def below(self, group):
        """Groups that this config may refer to without a cycle, as (absolute, as written here)."""
        r = self.r
        later = [g for g in self.groups if self.cycles or group == "" or group == "sub" or (g in GROUPS and (group not in GROUPS or GROUPS.index(g) > GROUPS.index(group)))]
        out = []
        for other in later:
            if group == "" and r.random() < (1 if self.calm else 0.9):
                out.append((other, other))
            elif group and other.startswith(group + "/") and r.random() < 0.8:
                out.append((other, other[len(group) + 1:]))
            else:
                out.append((other, "/" + other))
        return out

    def defaults(self, group, name, primary):
        r = self.r
        if r.random() > (0.93 if primary else 0.38):
            return None
        below = self.below(group)
        entries, overrides = [], []
        count = r.randint(1, 4) if primary else r.randint(0, 3)
        chosen = r.sample(below, min(count, len(below)))
        if self.rare(0.1) and chosen:
            chosen.append(chosen[0])
        for other, written in chosen:
            entries.append(self.entry(other, written))
            if name == "config" and "@" not in entries[-1] and ":" in entries[-1] and "[" not in entries[-1]:
                self.present.append(other)
        if r.random() < 0.12 and not primary:
            siblings = [o for o in self.options[group] if o > name] if group in self.options else []
            if siblings:
                entries.append(r.choice(siblings) + (f"@{r.choice(PACKAGES)}" if r.random() < 0.3 else ""))
        if primary and r.random() < 0.10 and name == "config":
            entries.append(r.choice(["alt", "/alt", "sub/inner", "alt@pkg", "alt@_global_"]) if not self.rare(0.2) else "nope")
        for _ in range(r.choice([0, 0, 0, 1, 2])):
            if r.random() < ((0.3 if primary else 0.06) if self.calm else 0.4):
                other = r.choice(self.present if self.calm and self.present else self.groups)
                written = other if group == "" else "/" + other
                if self.rare(0.1):
                    written = written.lstrip("/")
                package = f"@{r.choice(PACKAGES)}" if self.rare(0.3) else ""
                option = r.choice(self.options[other] + ["null", "null" if self.calm else "nope", "[" + r.choice(self.options[other]) + "]"]) if r.random() < 0.3 else r.choice(self.options[other])
                overrides.append(f"{r.choice(['override', 'override', 'override', 'optional override', 'override optional'])} {written}{package}: {option}")
        if r.random() < 0.05:
            choice = r.choice(["job_logging: disabled", "job_logging: none", "hydra_logging: none", "output: default", "env: null", "launcher: basic", "job_logging: stdout"]) if self.calm else r.choice(["env: nope", "launcher: null", "output: x", "nope: x"])
            overrides.append("override " + ("/" if group else "") + f"hydra/{choice}")
        if r.random() < 0.75:
            entries.insert(r.randint(0, len(entries)), "_self_")
        if self.rare(0.06):
            entries.insert(r.randint(0, len(entries)), r.choice(["_self_", "_self_@x", "1", "null", "{a: 1, b: 2}", "{}", "[x]", "???", "db: 1", "db: {a: 1}", "db: true", "db: [1]", "opt db: x", "optional: true", "''", "nope/nope", "${db}", "db: [null]", "db: ''"]))
        if self.rare(0.1):
            r.shuffle(overrides)
            return overrides + entries
        return entries + overrides

    def entry(self, other, written):
        r = self.r
        options = self.options[other]
        option = r.choice(options)
        package = f"@{r.choice(PACKAGES)}" if r.random() < 0.2 else ""
        choice = r.random()
        if choice < 0.15:
            return f"{written}/{option}{package}"
        if choice < 0.20:
            option = "nope"
        elif choice < 0.25:
            option = "null"
        elif choice < 0.29:
            option = "???"
        elif choice < 0.37:
            option = "[" + ", ".join(r.choice(options) for _ in range(r.randint(0, 3))) + "]"
        elif choice < 0.43:
            option = "${oc.env:HO_UNSET,%s}" % option if self.calm and r.random() < 0.7 else r.choice([f"${{{r.choice(self.groups)}}}", f"${{{r.choice(self.groups)}}}_x", "${oc.env:HO_UNSET,x}", "${nope}", f"x_${{{r.choice(self.groups)}@pkg}}", "${oc.select:db,x}"])
            option = f'"{option}"'
        elif self.rare(0.1):
            option = option + ".yaml"
        keyword = r.choice(["optional "]) if r.random() < (0.5 if option == "nope" else 0.08) else ""
        return f"{keyword}{written}{package}: {option}"

    # ---- the words of one command line

    def word(self):
        r = self.r
        choice = r.random()
        group = r.choice(self.groups)
        options = self.options[group]
        package = f"@{r.choice(PACKAGES)}" if self.rare(0.15) else ""
        if choice < 0.40:
            pick = r.random()
            if self.calm and r.random() < 0.9:
                if not self.present or r.random() < 0.15:
                    absent = [g for g in self.groups if g not in self.present]
                    if absent:
                        group = r.choice(absent)
                        return f"+{group}{package}={r.choice(self.options[group])}"
                if self.present:
                    group = r.choice(self.present)
                    options = self.options[group]
            option = r.choice(options)
            if self.rare(0.08):
                option = r.choice(["nope", "null", "", "1", "true", "'x'", "???", "{a:1}", "x,y", "${db}", "'${db}'"])
            elif pick < 0.14:
                option = "[" + ",".join(r.choice(options) for _ in range(r.randint(0, 2))) + "]"
            prefix = r.choice(["+", "+", "++"]) if self.rare(0.3) else ""
            return f"{prefix}{group}{package}={option}"
        if choice < 0.45:
            if self.calm and self.present and r.random() < 0.8:
                return "~" + r.choice(self.present)
            return f"~{group}{package}" + (f"={r.choice(options)}" if r.random() < 0.3 else "")
        if choice < 0.47:
            return hydra_word(r)
        if choice < 0.50:
            if self.calm and r.random() < 0.7:
                return r.choice(["hydra.run.dir=x", "hydra.job.name=me", "hydra/job_logging=disabled", "hydra/hydra_logging=none", "hydra.verbose=true", "hydra.job.num=3", "+hydra.job.env_set.A=1", "hydra.output_subdir=null"])
            return r.choice(["hydra.run.dir=x", "hydra.job.name=me", "hydra/job_logging=disabled", "hydra/hydra_logging=none", "hydra.verbose=true", "hydra.job.num=3", "hydra.job.num=x", "hydra.searchpath=[]", "+hydra.job.env_set.A=1",
                             "hydra.job.chdir=maybe", "hydra.output_subdir=null", "hydra.mode=RUN", "hydra.foo=1", "+hydra.foo=1", "~hydra.verbose", "hydra.run=3", "hydra.job.env_set={A:1}", "~hydra/env", "hydra/env=null", "hydra/output=default", "hydra.run.dir=3",
                             "hydra.job.config.override_dirname.kv_sep=':'", "hydra.callbacks={a:1}", "hydra.sweep.subdir='${hydra.job.num}'", "+hydra.job_logging.x=1", "hydra/launcher=nope", "hydra.searchpath=1", "hydra.launcher.x=1", "hydra.sweeper.max_batch_size=2"])
        if self.calm and r.paths and r.random() < 0.8:
            path = r.choice(r.paths)
            pick = r.random()
            if pick < 0.25:
                return f"{path}={self.word_value()}"
            if pick < 0.32:
                return f"~{path}"
            if pick < 0.8:
                return f"++{path}{r.choice(['', '.new', '.k'])}={self.word_value()}"
            return f"+{path}.new={self.word_value()}"
        prefix = r.choice(["", "", "", "+", "+", "++", "~"])
        parts = [r.choice(KEYS)] if r.random() < 0.5 else []
        if r.random() < 0.4:
            parts = group.split("/")
        for _ in range(r.randint(0 if parts else 1, 2)):
            parts.append(r.choice(KEYS + ["0", "1", "new"]))
        key = ".".join(parts)
        if r.random() < 0.03:
            key += r.choice(["@pkg", ".", "..x", "[0]", "/x"])
        if prefix == "~" and r.random() < 0.6:
            return "~" + key
        return f"{prefix}{key}={self.word_value()}"

    def word_value(self):
        r = self.r
        choice = r.random()
        if choice < 0.55:
            return r.choice(["1", "2", "abc", "true", "null", "???", "1.5", "1e3", "'5'", "yes", "", "''", "x y", "{}", "[]", "-1", "01", "\"q\""])
        if choice < 0.70:
            return r.choice(["{k:1}", "{name:a,port:2}", "[1,2]", "[{k:1}]", "{opts:{k:2}}", "{new:null}", "{k:[1]}", "[[]]", "{}", "{1:a}", "{a b:c}"])
        if choice < 0.88:
            text = r.choice(INTERPOLATIONS)
            return f"'{text}'" if "'" not in text else text
        if choice < 0.94:
            if self.calm and r.random() < 0.8:
                return r.choice(["int(3.7)", "str(1)", "float([1,2])", "bool(1)", "sort([3,1])"])
            return r.choice(["1,2", "range(3)", "choice(a,b)", "int(3.7)", "str(1)", "sort(3,1)", "float([1,2])", "shuffle([1])", "bool(x)", "glob(*)", "interval(0,1)"])
        return generate_overrides.value(r)

    def command(self, hydra=False):
        r = self.r
        if hydra:
            words = [hydra_word(r) for _ in range(r.choice([1, 1, 1, 2, 3]))]
            flags = r.choice([["--cfg", "hydra"], ["--cfg", "all"], ["--cfg", "hydra"], ["--cfg", "all", "--resolve"], ["--cfg", "job"], ["--cfg", "hydra", "-p", "hydra." + r.choice(HYDRA_KEYS)]])
            row = {"kind": "extra", "config_dir": self.folder + "/conf", "config_name": "config", "args": words, "flags": flags, "resolve": "--resolve" in flags}
            row["argv"] = ["-cp", "{ROOT}/" + row["config_dir"], "-cn", "config"] + flags + words
            return row
        words = [self.word() for _ in range(r.choice([0, 0, 1, 1, 1, 2, 2, 3, 4]))]
        choice = r.random()
        if choice < 0.45:
            flags = ["--cfg", "job"]
        elif choice < 0.58:
            flags = ["--cfg", "job", "--resolve"]
        elif choice < 0.68:
            flags = ["--cfg", r.choice(["job", "job", "job", "all", "hydra"]), "-p", r.choice(KEYS + [g.replace("/", ".") for g in self.groups] + ["db.host", "items.0", "opts.k", "_global_", "", "nope", "hydra.job", "hydra", "items[0]", "hydra.run.dir", "a.b"])]
            if r.random() < 0.3:
                flags.append("--resolve")
        elif choice < 0.73:
            flags = ["--cfg", "hydra"]
        elif choice < 0.78:
            flags = ["--cfg", "all"]
            if r.random() < 0.2:
                flags.append("--resolve")
        elif choice < 0.88:
            flags = ["--info", "defaults"]
        elif choice < 0.96:
            flags = ["--info", "defaults-tree"]
        else:
            flags = ["--info", r.choice(["searchpath", "config"])]
        if any(name.startswith("cd/") for name in self.files) and r.random() < 0.7:
            flags = ["--config-dir", "{ROOT}/" + self.folder + "/cd"] + flags
        name = r.choice(self.primaries + ["nope", "config.yaml", None, "db/x"]) if self.rare(0.2) else "config" if r.random() < 0.93 else "alt"
        words = [word for word in words if "shuffle" not in word]
        row = {"kind": "extra", "config_dir": self.folder + "/conf", "config_name": name, "args": words, "flags": flags, "resolve": "--resolve" in flags}
        row["argv"] = ["-cp", "{ROOT}/" + row["config_dir"]] + (["-cn", name] if name is not None else []) + flags + (["--"] if any(w.startswith("-") for w in words) else []) + words
        return row


class HydraTree(Tree):
    """A tree that always composes, for words about `hydra`."""

    def __init__(self, r, number):
        self.r = r
        self.folder = f"trees/fuzz/{number:05}"
        self.files = {"conf/config.yaml": "defaults:\n  - db: x\n  - _self_\nname: n\nk: 1\n", "conf/db/x.yaml": "host: h\n"}
        if r.random() < 0.4:
            self.files["conf/config.yaml"] += f"hydra:\n{hydra_part(r)}\n"
