#!/usr/bin/env python3
"""Runs and sweeps through real Hydra, as cases for tests/hydra_corpus (kind `run`).

    make.py OUT [--trees DIR] [--random N] [--seed S]

Needs `hydra-core==1.3.*`. Writes OUT/cases/run.jsonl and OUT/trees (this folder's `trees` as `own`, and links to those in
DIR, such as the corpus' `extra`). Then

    PTUNE_HYDRA_CORPUS=OUT cargo test --test hydra_corpus -- --nocapture

compares. Every command below is one case; `--random` adds N made of parts. A development tool: nothing else needs it.
"""
import argparse
import json
import os
import random
import re
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
PLAIN = "hydra.hydra_logging.formatters.simple.format='[HYDRA] %(message)s'"
RUN = ["hydra.run.dir=out"]
SWEEP = ["-m", "hydra.sweep.dir=mr", PLAIN]


def by_hand():
    """(tree, config, words)"""
    own, extra = "own", "extra/conf"
    cases = []

    def run(config, *words, tree=own):
        cases.append((tree, config, [*RUN, *words]))

    def free(config, *words, tree=own):
        cases.append((tree, config, list(words)))

    def sweep(config, *words, tree=own):
        cases.append((tree, config, [*SWEEP, *words]))

    # --- one job
    for words in [
        [], ["a=2"], ["b.c=x", "a=5"], ["+n=1"], ["++a=3"], ["~a"], ["~a=1"], ["~a=2"], ["a=1,2"], ["a=[1,2]"], ["a='1,2'"],
        ["db=pg"], ["db=nope"], ["~db"], ["db@other=pg"], ["+db@other=pg"], ["a=range(3)"], ["nope=1"],
        ["hydra.output_subdir=null"], ["hydra.output_subdir=x/y"], ["hydra.output_subdir=''"], ["hydra.output_subdir=.."],
        ["hydra.job.chdir=true"], ["hydra.job.chdir=false"], ["hydra.job.chdir=maybe"], ["hydra.job.chdir=1"],
        ["hydra.job.name=zz"], ["hydra.job.name=a/b"], ["hydra.job.name=${b.c}"], ["hydra.job.name=3"], ["hydra.job.name=null"],
        ["hydra/job_logging=none"], ["hydra/job_logging=disabled"], ["hydra/job_logging=stdout"], ["hydra/job_logging=default"],
        ["hydra/hydra_logging=none"], ["hydra/hydra_logging=disabled"], ["hydra/hydra_logging=hydra_debug"],
        ["hydra/hydra_logging=none", "hydra/job_logging=none"],
        ["hydra.mode=RUN"], ["hydra.mode=MULTIRUN"], ["hydra.mode=run"], ["hydra.mode=null"],
        ["hydra.verbose=nobody"], ["hydra.verbose=[x,y]"], ["hydra.verbose=false"], ["hydra.verbose=1"],
        ["+hydra.job.env_set.HO_X=1"], ["hydra.job.env_copy=[HO_SET]"], ["hydra.job.env_copy=[HO_UNSET]"],
        ["+hydra.foo=1"], ["hydra.foo=1"], ["hydra.job.num=3"], ["hydra.job.id=x"], ["hydra.job.num=x"],
        ["hydra.job.config.override_dirname.kv_sep=_", "a=2", "b.c=x"],
        ["hydra.job.config.override_dirname.item_sep=;", "a=2", "b.c=x"],
        ["hydra.job.config.override_dirname.exclude_keys=[a]", "a=2", "b.c=x"],
        ["b.c=${hydra:job.override_dirname}", "a=2"], ["b.c=${hydra:runtime.output_dir}"], ["b.c=${hydra:overrides.task}"],
        ["hydra.job_logging.handlers.file.filename=other.log"], ["hydra.job_logging.handlers.file.filename=no/folder.log"],
        ["hydra.job_logging.root.handlers=[console]"], ["hydra.job_logging.root.handlers=[nobody]"],
        ["hydra.job_logging.root.handlers=[]"], ["hydra.job_logging.root.level=LOUD"], ["hydra.job_logging.root=null"],
        ["~hydra.job_logging.root"], ["hydra.job_logging.handlers.file.formatter=nobody"], ["hydra.job_logging.version=2"],
        ["hydra.job_logging.formatters.simple.format=plain"], ["hydra.job_logging=null"],
        ["+hydra.job_logging.handlers.second={class: logging.FileHandler,filename: second.log}"],
        ["+hydra.job_logging.handlers.file.delay=true"], ["+hydra.job_logging.handlers.file.mode=w"],
        ["hydra.sweep.dir=unused"], ["hydra.sweeper.max_batch_size=2"],
        ["hydra.callbacks={}"], ["hydra.launcher._target_=nope.Nope"],
    ]:
        run("config", *words)
    for where in ["out/${a}", "${b.c}", "out/${hydra.job.name}", "out/${hydra:job.config_name}", "out/${hydra.job.override_dirname}",
                  "out/${nope}", "./x/../y", "out/${db}", "3", "'a b'", "${now:%Y}", "out/${oc.env:HO_SET}", "''", ".", "{ROOT}/../x${nope}",
                  "${hydra.job.num}", "out/${hydra.mode}", "null"]:
        free("config", f"hydra.run.dir={where}")
        free("config", f"hydra.run.dir={where}", "a=7", "db=pg")
    for config in ["config", "missing", "empty", "multirun", "interp", "logging", "logging_sweep", "params", "params_typed", "batch", "named", "env",
                   "subdirs", "chdir", "required", "nested_hydra"]:
        free(config)
        run(config)
        free(config, "-m")
        sweep(config)
        sweep(config, "a=1,2")
    # --- sweeps
    for words in [
        ["a=1,2,3"], ["a=1,2", "b.c=x,y"], ["b.c=x,y", "a=1,2"], ["a=1,2", "a=3,4"], ["a=1,2", "a=9"], ["a=9", "b.c=x,y", "a=1,2"],
        ["db=mysql,pg"], ["db=glob(*)"], ["db=glob(m*)"], ["db=glob([m-p]*,exclude=pg)"], ["db=glob(zzz)"], ["a=glob(*)"],
        ["db=glob([m*,p?])"], ["+db@x=mysql,pg"], ["db@x=mysql,pg"], ["+db@x=glob(*)", "a=1,2"], ["~db", "a=1,2"], ["~a", "b.c=x,y"], ["~a=1", "b.c=1,2"],
        ["~b.c=x"], ["~db=mysql", "a=1,2"], ["~db=pg", "a=1,2"],
        ["db=mysql,nope"], ["a=1,2", "nope=1"], ["a=1,2", "+nope=1,2"], ["++new.deep=1,2"], ["+db=pg,mysql"],
        ["a=range(3)"], ["a=range(1,10,4)"], ["a=range(3,0,-1)"], ["a=range(0,0)"], ["a=range(0,1,0.3)"], ["a=range(1,2,0)"], ["a=range(1.0,2.0,0)"],
        ["a=range(5,1)"], ["a=interval(0,1)"], ["a=choice(1,2)"], ["a=choice(x)"], ["a=choice('a,b',c)"], ["a=choice([1,2],{x: 1})"],
        ["a=tag(t1,t2,choice(1,2))"], ["a=tag(t,range(2))"], ["a=tag(t,interval(0,1))"], ["a=sort(3,1,2)"], ["a=sort(3,1,2,reverse=true)"],
        ["a=sort(range(3,0))"], ["a=sort(choice(b,a))"], ["a=shuffle(1)"], ["a=float(range(2))"], ["a=int(1.5,2.5)"], ["a=str(1,2)"], ["a=bool(0,1)"], ["a=int(choice(1.9))"],
        ["a=null,1"], ["a=true,false"], ["a=True,NULL"], ["a=1e3,2e-5"], ["a=inf,nan"], ["a=1_000,0x1f"], ["a='x',\"y\""], ["a='it\\'s',b"], ["a=a b,c"],
        ["a=a\\,b,c"], ["a=a:b,c/d"], ["a=[1,[2,3]],[x]"], ["a={x:1,y:[2]},{}"], ["a=[],{}"], ["a=,1"], ["a="], ["a='',1"], ["a=${b.c},2"], ["a=${hydra:job.num},7"],
        ["a=${now:%Y},1"], ["a='${b.c}',x"], ["a=$1,2"], ["a=a=b,c"], ["a=äö,ß"], ["a=x*y,@z"], ["a='\\\\',b"], ["a=[a b,'c,d']"], ["a=a\\ b"], ["a=\\{x\\}"],
        ["s=1"], ["a=[x,y=1,2"], ["a=1,,2"], ["a=choice()"], ["a=[1,2"], ["a=foo(1)"],
        ["hydra.job.name=a,b"], ["hydra/job_logging=none,disabled"], ["+hydra.x=range(2)"], ["hydra.run.dir=x"],
        ["hydra.sweep.subdir=${hydra.job.override_dirname}", "a=1,2"], ["hydra.sweep.subdir=${a}_${b.c}", "a=1,2", "b.c=x,y"], ["hydra.sweep.subdir=${hydra:job.id}", "a=1,2"],
        ["hydra.sweep.subdir=same", "a=1,2"], ["hydra.sweep.subdir=${nope}", "a=1,2"], ["hydra.sweep.subdir=''", "a=1,2"], ["hydra.sweep.subdir=j${hydra.job.num}", "a=1,2"],
        ["hydra.sweep.subdir=${b.c}", "db=mysql,pg", "b.c=${db.port}"], ["hydra.sweep.subdir=../up", "a=1"], ["hydra.sweep.subdir=x/${a}/y", "a=1,2"],
        ["hydra.sweeper.max_batch_size=2", "a=1,2,3,4,5"], ["hydra.sweeper.max_batch_size=1", "a=1,2"], ["hydra.sweeper.max_batch_size=0", "a=1,2"],
        ["hydra.sweeper.max_batch_size=-1", "a=1,2"], ["hydra.sweeper.max_batch_size=x", "a=1,2"], ["hydra.sweeper.max_batch_size=2", "a=glob(*)"],
        ["hydra.sweeper.max_batch_size='2'", "a=1,2,3"], ["hydra.sweeper.max_batch_size=null", "a=1,2"], ["hydra.sweeper.max_batch_size=1", "db=mysql,nope"],
        ["hydra.sweeper.max_batch_size=1.5", "a=1,2"], ["hydra.sweeper.nope=1"], ["hydra.sweeper._target_=nope.Nope", "a=1,2"], ["hydra.launcher._target_=nope.Nope", "a=1,2"],
        ["+hydra.sweeper.params.a='1,2'"], ["hydra.sweeper.params={a:'1,2'}"], ["hydra.sweeper.params=null"],
        ["hydra.output_subdir=null", "a=1,2"], ["hydra.output_subdir=cfg", "a=1,2"], ["hydra.job.chdir=true", "a=1,2"], ["hydra.job.name=${a}", "a=1,2"],
        ["hydra/job_logging=none", "a=1,2"], ["hydra/job_logging=disabled", "a=1,2"], ["hydra/job_logging=stdout", "a=1,2"],
        ["hydra/job_logging=disabled", "hydra.sweeper.max_batch_size=1", "a=1,2"],
        ["hydra.mode=RUN", "a=1,2"], ["hydra.mode=MULTIRUN", "a=1,2"], ["hydra.mode=null", "a=1,2"], ["hydra.mode=bad", "a=1,2"],
        ["hydra.hydra_logging.root.level=ERROR", "a=1,2"], ["hydra.hydra_logging.root.handlers=[]", "a=1,2"], ["hydra.hydra_logging.handlers.console.stream=ext://sys.stderr", "a=1,2"],
        ["+hydra.hydra_logging.handlers.console.level=WARNING", "a=1,2"], ["hydra.hydra_logging.loggers={hydra: {level: ERROR}}", "a=1,2"],
        ["+hydra.hydra_logging.loggers.hydra={level: ERROR}", "a=1,2"], ["+hydra.hydra_logging.loggers.hydra={level: INFO,handlers: [console],propagate: false}", "a=1,2"],
        ["+hydra.hydra_logging.loggers.hydra={handlers: [console]}", "a=1,2"], ["+hydra.hydra_logging.loggers.other={level: ERROR}", "hydra.hydra_logging.disable_existing_loggers=true", "a=1,2"],
        ["hydra.hydra_logging.disable_existing_loggers=true", "a=1,2"],
        ["hydra.job.config.override_dirname.exclude_keys=[a]", "hydra.sweep.subdir=${hydra.job.override_dirname}", "a=1,2", "b.c=x,y"],
        ["hydra.job.config.override_dirname.kv_sep=-", "hydra.sweep.subdir=${hydra.job.override_dirname}", "a=1,2"],
        ["+hydra.job.env_set.HO_X=${a}", "a=1,2"], ["hydra.job.env_copy=[HO_SET]", "a=1,2"], ["hydra.searchpath=[nope]", "a=1,2"],
        ["+a=1,2"], ["b={c:1},{c:2,d:3}"], ["b.c=1,2", "b={}"], ["a.b=1,2"], ["b=1,2"], ["'a'=1,2"], ["a@x=1,2"], ["db.port=1,2"], ["db=pg", "db.port=1,2"],
        ["hydra.sweep.dir=mr/${a}", "a=1,2"], ["hydra.sweep.dir=${b.c}", "a=1,2"], ["hydra.sweep.dir=${nope}", "a=1,2"], ["hydra.sweep.dir=.", "a=1"],
        ["hydra.sweep.dir=mr/${now:%Y}", "a=1,2"], ["hydra.sweep.dir=mr/${hydra.job.num}", "a=1,2"], ["hydra.sweep.dir=null", "a=1,2"],
        ["hydra.runtime.output_dir=x", "a=1"], ["hydra.overrides.task=[x]", "a=1,2"], ["hydra.verbose=nobody", "a=1,2"], ["hydra.verbose=hydra.core", "a=1,2"],
    ]:
        sweep("config", *words)
    for fmt in ["%(levelname)s|%(message)s", "%(levelname)-8s|%(name).5s %(message)s", "%(message)r", "%(nope)s", "%%x %(message)s", "%(levelno)05d %(message)s", "%(message).9s",
                "[%(asctime)s][HYDRA] %(message)s", "100% %(message)s", "%(processName)s %(message)10.3s|"]:
        cases.append((own, "config", ["-m", "hydra.sweep.dir=mr", f"hydra.hydra_logging.formatters.simple.format='{fmt}'", "a=1,2"]))
    cases.append((own, "config", ["-m", "hydra.sweep.dir=mr", "a=1,2"]))
    cases.append((own, "config", ["-m", "a=1,2"]))
    for hydra in ["none", "disabled", "default", "hydra_debug"]:
        for job in ["none", "disabled", "default", "stdout"]:
            cases.append((own, "config", ["-m", "hydra.sweep.dir=mr", f"hydra/hydra_logging={hydra}", f"hydra/job_logging={job}", "a=1,2"]))
    # --- the corpus' tree
    for config in ["config", "struct", "hydra_in_cfg", "missing_group", "override_hydra", "group_with_hydra", "hydra_bad", "hydra_badtype", "hydra_choices", "hydra_sp",
                   "types", "keys", "empty", "multi", "null_group", "merge", "interp_default", "top_list", "bad_yaml", "nope", "db/mysql", "dots", "pkgs", "self_first"]:
        run(config, tree=extra)
        sweep(config, tree=extra)
        sweep(config, "+zz=1,2", tree=extra)
    for words in [["db=mysql,pg", "app.port=1,2"], ["db=mysql,pg", "+experiment=tune,hyd_abs"], ["+experiment=glob(*)"], ["db=glob(*,exclude=m*)"], ["list=[1],[2]"],
                  ["app={name: x},{port: 1}"], ["missing=1,2"], ["db=pg", "db.host=a,b"], ["interp=1,${app.name}"], ["~db", "app.port=1,2"]]:
        sweep("config", *words, tree=extra)
        sweep("missing_group", *words, tree=extra)
    return cases


def at_random(random_, count):
    values = ["1", "x", "null", "true", "1.5", "a b", "'q,r'", "[1,2]", "{k:v}", "${b.c}", "1e-4", "-3", "''", "a:b", "\"d'q\"", "x\\,y", "0x10", "a.b", "%d", "t/u"]
    keys = ["a", "b.c", "+n", "++m.n", "+b.d", "a", "b.c", "~a", "db.port"]
    hydra = ["hydra.sweep.subdir=${hydra.job.override_dirname}", "hydra.sweep.subdir=s${hydra.job.num}", "hydra.sweeper.max_batch_size=2", "hydra/job_logging=none",
             "hydra.job.name=j", "hydra.output_subdir=null", "hydra/hydra_logging=none", "hydra.job.chdir=true", "hydra.mode=MULTIRUN", "hydra.job.config.override_dirname.item_sep=__"]
    cases = []
    for _ in range(count):
        words = []
        for _ in range(random_.randint(1, 3)):
            key = random_.choice(keys)
            if key.startswith("~"):
                words.append(key)
                continue
            some = [random_.choice(values) for _ in range(random_.choice([1, 1, 2, 2, 3]))]
            form = random_.random()
            if form < 0.6:
                text = ",".join(some)
            elif form < 0.75:
                text = f"choice({','.join(some)})"
            elif form < 0.85:
                text = f"range({random_.randint(-2, 2)},{random_.randint(0, 5)}{random_.choice(['', ',2', ',0.5', ',-1'])})"
            elif form < 0.95:
                text = f"sort({','.join(random_.sample(['3', '1', '2', '0.5'], 3))}{random_.choice(['', ',reverse=true'])})"
            else:
                text = f"tag(t,choice({','.join(some)}))"
            words.append(f"{key}={text}")
        if random_.random() < 0.3:
            words.append(random_.choice(["db=mysql,pg", "db=pg", "db=glob(*)", "+db@o=mysql,pg", "~db", "db=nope"]))
        if random_.random() < 0.4:
            words.append(random_.choice(hydra))
        random_.shuffle(words)
        base = SWEEP if random_.random() < 0.9 else RUN
        cases.append(("own", random_.choice(["config", "config", "params", "batch", "named", "required"]), [*base, *words]))
    return cases


ENVIRONMENT = {"HO_SET": "envval", "HO_NUM": "42", "HO_EMPTY": "", "HO_LIST": "[1, 2, {a: b}]", "HO_INTERP": "${str}", "TZ": "UTC", "LC_ALL": "C.UTF-8"}


def execute(root, tree, config, words, folder):
    """In a process of its own: real Hydra, its output into files of `folder`."""
    import hydra
    from omegaconf import OmegaConf

    for name in list(os.environ):
        if name.startswith(("HYDRA_", "OC_", "HO_")):
            del os.environ[name]
    os.environ.update(ENVIRONMENT, HO_ROOT=root, HYDRA_FULL_ERROR="1")
    work = os.path.join(folder, "work")
    os.mkdir(work)
    os.chdir(work)
    for number, name in [(1, "stdout"), (2, "stderr")]:
        os.dup2(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["app.py", "-cp", os.path.join(root, "trees", tree), "-cn", config, *words]
    outcome = {"ok": True}

    def app(cfg):
        print("--- job")
        print(OmegaConf.to_yaml(cfg), end="")

    app.__module__ = "__main__"
    try:
        hydra.main(version_base="1.3", config_path=None)(app)()
    except SystemExit as stop:
        outcome = {"error": "SystemExit", "rc": stop.code}
    except BaseException as error:  # noqa: BLE001
        outcome = {"error": type(error).__name__, "message": str(error), "rc": 1}
    sys.stdout.flush()
    with open(os.path.join(folder, "outcome"), "w", encoding="utf-8") as file:
        json.dump(outcome, file)


def case(root, number, tree, config, words):
    folder = os.path.realpath(tempfile.mkdtemp())
    words = [word.replace("{ROOT}", root) for word in words]
    child = os.fork()
    if child == 0:
        try:
            execute(root, tree, config, words, folder)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    with open(os.path.join(folder, "outcome"), encoding="utf-8") as file:
        outcome = json.load(file)

    def normal(data):
        import hydra
        text = data.decode("utf-8", "replace").replace(root, "{ROOT}").replace(os.path.join(folder, "work"), "{CWD}")
        return text.replace(f"version: {hydra.__version__}\n", "version: {HYDRA_VERSION}\n")

    files = {}
    for at, _, names in os.walk(os.path.join(folder, "work")):
        for name in names:
            path = os.path.join(at, name)
            with open(path, "rb") as file:
                files[os.path.relpath(path, os.path.join(folder, "work"))] = normal(file.read())
    if "ok" in outcome:
        with open(os.path.join(folder, "stdout"), "rb") as file:
            expect = {"ok": {"stdout": normal(file.read()), "files": files}}
    else:
        expect = {"error": {"type": outcome["error"], "message": normal(outcome.get("message", "").encode()), "rc": outcome["rc"]}}
    shutil.rmtree(folder)
    flags = [word for word in words if word == "-m"]
    args = [word.replace(root, "{ROOT}") for word in words if word != "-m"]
    return {"id": f"run-own-{number:04}", "kind": "run", "config_dir": f"trees/{tree}", "config_name": config, "job_name": "make", "args": args, "flags": flags,
            "argv": ["-cp", "{ROOT}/trees/" + tree, "-cn", config, *flags, *args], "expect": expect,
            "nondeterministic": any("shuffle" in word for word in args)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--trees", help="folder with further trees, such as the corpus' `trees`")
    parser.add_argument("--random", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    root = os.path.realpath(arguments.out)
    os.makedirs(os.path.join(root, "cases"), exist_ok=True)
    os.makedirs(os.path.join(root, "trees"), exist_ok=True)
    shutil.copytree(os.path.join(HERE, "trees"), os.path.join(root, "trees/own"), dirs_exist_ok=True)
    if arguments.trees:
        for name in os.listdir(arguments.trees):
            link = os.path.join(root, "trees", name)
            if not os.path.lexists(link):
                os.symlink(os.path.realpath(os.path.join(arguments.trees, name)), link)
    cases = by_hand() + at_random(random.Random(arguments.seed), arguments.random)
    cases = [one for one in cases if os.path.isdir(os.path.join(root, "trees", one[0]))]
    import hydra  # noqa: F401  (once, before the forks)
    children = []
    for part in range(arguments.jobs):
        child = os.fork()
        if child == 0:
            with open(os.path.join(root, f"part{part}"), "w", encoding="utf-8") as file:
                for number in range(part, len(cases), arguments.jobs):
                    file.write(json.dumps(case(root, number, *cases[number]), ensure_ascii=False) + "\n")
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    with open(os.path.join(root, "cases/run.jsonl"), "w", encoding="utf-8") as file:
        lines = []
        for part in range(arguments.jobs):
            path = os.path.join(root, f"part{part}")
            with open(path, encoding="utf-8") as made:
                lines += made.readlines()
            os.remove(path)
        lines.sort(key=lambda line: json.loads(line)["id"])
        file.writelines(lines)
    failed = sum('"error": {' in line for line in lines)
    print(f"{len(lines)} cases, {failed} of them errors")


if __name__ == "__main__":
    main()
