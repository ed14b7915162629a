"""`scripts.gpu` with a faked device: the script itself, whose items have small bodies.

    python fake_gpu.py FOLDER [arguments of scripts.gpu]

FOLDER has `tree`, whose files are the sources, and `fake.json`: what each step of each item does,
and the seconds of items, and which items there are. Every step that begins adds a line to `ran`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from scripts.gpu.children import die_with_parent  # noqa: E402
from scripts.gpu.outcomes import NotRunError, StepFailedError  # noqa: E402
from scripts.gpu.run import run_steps  # noqa: E402

PYTHON = (sys.executable, "-S")  # no package is needed, and it starts faster
STEPS = ("one", "two")
DEVICE = {"device": "Fake 9000", "versions": {"torch": "0.0"}}


def main(folder, *words):
    from scripts.gpu import __main__ as script
    from scripts.gpu import items, session, staging, stamp

    told = json.loads((folder / "fake.json").read_text())
    hashed = items.Item.sources_hash
    items.Item.sources_hash = lambda item: hashed(item, folder / "tree")
    for name, item in items.ITEMS.items():
        command = (*PYTHON, __file__, str(folder), "item", name)
        seconds = told["seconds"].get(name, 60)
        items.ITEMS[name] = replace(item, command=command, seconds=seconds)
    for group in ("FIRST", "SECOND", "TABLE"):
        names = [item.name for item in getattr(items, group)]
        faked = tuple(items.ITEMS[name] for name in names if name in told["items"])
        setattr(script, group, faked)
    session.LEAST, session.RESERVE = 0.1, 0.1
    describe = f"print({json.dumps(told.get('describe', DEVICE))!r})"
    stamp.DESCRIBE = (*PYTHON, "-c", describe)
    staging.stage = lambda: None
    script.BUILT = folder
    sys.argv = ["gpu", *words]
    return script.main()


def item(folder, name, given):
    die_with_parent()
    told = json.loads((folder / "fake.json").read_text())

    def run(step):
        with (folder / "ran").open("a") as file:
            file.write(f"{name} {step} {os.getpid()}\n")
        return act(told["steps"].get(f"{name} {step}", "pass"), folder)

    return run_steps(name, lambda: {step: lambda step=step: run(step) for step in STEPS}, given)


def act(what, folder):
    if what == "pass":
        return {"seconds": 1e-4, "least": 1e-4, "most": 1e-4, "flops": 1, "bytes": 1, "error": 0.0}
    if what == "fail":
        raise StepFailedError("it is wrong", {"error": 0.5})
    if what == "raise":
        raise ValueError("no such value\nmore")
    if what == "not run":
        raise NotRunError("nothing is there")
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "kill the script":
        os.kill(os.getppid(), signal.SIGKILL)
    if what == "fill the log":
        print("x" * 1000 * 1000)
        return {}
    if what == "hang with a child":
        child = subprocess.Popen([*PYTHON, "-c", "import time; time.sleep(600)"])
        (folder / "child").write_text(str(child.pid))
    time.sleep(600)


def script(path, text):
    """Write a Python program that runs by its name, in place of a tool."""
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


if __name__ == "__main__":
    place = Path(sys.argv[1])
    sys.exit(
        item(place, *sys.argv[3:]) if sys.argv[2:3] == ["item"] else main(place, *sys.argv[2:])
    )
