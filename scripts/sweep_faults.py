"""Kills and damages sweeps at random moments; each must end with the scores of an undisturbed one.

python scripts/sweep_faults.py --workers 200 --drivers 50 --files 50 --hung 10 --clocks 20
python scripts/sweep_faults.py --workers 0 --drivers 0 --files 0 --hung 0 --read-only 10 --full 10

The second one mounts file systems, which only root may do.
"""

import argparse
import hashlib
import os
import random
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch

import faigfast
from faigfast.data import write_image
from faigfast.io.text_table import markdown
from faigfast.sweeps.opened import Sweep
from faigfast.zoo import SRCNNStyle

TIMEOUT = 4.0  # seconds after which a stopped worker counts as hung; a unit takes far less
PAUSES = 1.0, 7.0  # seconds between two signals; a worker takes some to start
STEP = 3600.0  # most seconds that the clock is set forward or back
ONE_SENTENCE = r"ValueError: [^\n]* cannot be (written|made or read): [^\n]*"
# Python runs a file of this name at the start of every worker.
STEPPING_CLOCK = """
import time

system_time = time.time


def stepping_time():
    with open({offset!r}) as file:
        return system_time() + float(file.read() or 0)


time.time = stepping_time
"""


def prepare(folder: Path, images: int) -> dict:
    """Write a pair and photographs; give a plan."""
    torch.manual_seed(0)
    for name in "ab":
        faigfast.save_model(SRCNNStyle(widths=(4, 3), scale=2), folder / f"{name}.pth")
    for n in range(images):
        write_image(folder / "photos" / f"p{n}.png", torch.rand(3, 24, 24 + 8 * (n % 2)))
    return {
        "pairs": {"tiny": [str(folder / "a.pth"), str(folder / "b.pth")]},
        "images": str(folder / "photos"),
        "degradations": {"noise": [0.05, 0.1], "blur": 1},
        "settings": [{"steps": 20}, {"steps": 30}, {"method": "change"}],
        "shard": 2,
    }


def content(result: Sweep) -> dict:
    """Hash all scores and losses by degradation, setting and image; every image once."""
    hashes: dict = {}
    for degradation in result.degradations:
        for setting in result.settings:
            for unit in result.scores(None, degradation, setting):
                for n, image in enumerate(unit.images or ["weights alone"]):
                    key = degradation, setting, image
                    assert key not in hashes, f"{key} is there twice"
                    rows = (unit.scores[n], unit.tensors["losses"][n])
                    values = b"".join(row.numpy().tobytes() for row in rows)
                    hashes[key] = hashlib.sha256(values).hexdigest()
    return hashes


def own_workers() -> list[int]:
    """Worker processes of this process."""
    pids = []
    for folder in Path("/proc").iterdir():
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"worker_process" in (folder / "cmdline").read_bytes():
                pids.append(int(folder.name))
        except (OSError, ValueError, IndexError):
            continue
    return pids


class Disturbance(threading.Thread):
    """Calls a function at random moments until it has returned True `most` times."""

    def __init__(
        self,
        disturb: Callable[[], bool],
        most: int,
        generator: random.Random,
        pauses: tuple[float, float] = PAUSES,
    ) -> None:
        super().__init__()
        self.disturb, self.most, self.random, self.pauses = disturb, most, generator, pauses
        self.count = 0
        self.ended = threading.Event()

    def run(self) -> None:
        """Disturb until the block ends."""
        while not self.ended.wait(self.random.uniform(*self.pauses)):
            if self.count < self.most:
                self.count += self.disturb()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Mount a file system at a folder."""
    subprocess.run(["mount", *options, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def protect(folder: Path, pause: float, mounts: ExitStack) -> None:
    """Make a folder read-only after a pause, until `mounts` ends."""
    time.sleep(pause)
    mounts.enter_context(mounted(folder, "--bind", "-o", "ro", str(folder)))


def size_of(folder: Path) -> int:
    """Bytes of the blocks of all files."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return sum(file.stat().st_blocks * 512 for file in files)


class Faults:
    """Runs sweeps with faults, and counts the ones that end as an undisturbed sweep."""

    def __init__(self, folder: Path, seed: int, images: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.plan = prepare(folder, images)
        self.wanted = content(faigfast.sweep(self.plan, folder / "wanted", workers=0))
        self.tried: Counter[str] = Counter()
        self.bad: Counter[str] = Counter()
        self._number = 0

    def output(self) -> Path:
        """Give a new folder."""
        self._number += 1
        return self.folder / f"out-{self._number}"

    def compare(self, kind: str, faults: int, result: Sweep, clear: bool = True) -> None:
        """Count faults, as bad ones where the results differ or an error was not clear."""
        same = clear and content(result) == self.wanted and not result.failures
        self.tried[kind] += faults
        self.bad[kind] += 0 if same else faults
        print(f"{kind}: {faults} more, {'same' if same else 'DIFFERENT'}", file=sys.stderr)

    def signals(self, kind: str, number: signal.Signals, count: int) -> None:
        """Send a signal to workers at random moments."""
        while self.tried[kind] < count:
            disturbance = Disturbance(
                lambda: self._signal(number), count - self.tried[kind], self.random
            )
            timeout = TIMEOUT if number == signal.SIGSTOP else None
            with disturbance:
                result = faigfast.sweep(
                    self.plan, self.output(), workers=2, retries=1000, unit_timeout=timeout
                )
            self.compare(kind, disturbance.count, result)

    def _signal(self, number: signal.Signals) -> bool:
        pids = own_workers()
        if pids:
            os.kill(self.random.choice(pids), number)
        return bool(pids)

    def clocks(self, kind: str, count: int) -> None:
        """Set the clock of the driver and of its workers forward and back while they compute."""
        offset, site = self.folder / "offset", self.folder / "site"
        offset.write_text("0")
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(STEPPING_CLOCK.format(offset=str(offset)))
        usual_time, usual_path = time.time, list(sys.path)

        def step() -> bool:
            (self.folder / "next").write_text(str(self.random.uniform(-STEP, STEP)))
            os.replace(self.folder / "next", offset)
            return True

        try:
            sys.path.insert(0, str(site))  # which workers search too
            runpy.run_path(str(site / "sitecustomize.py"))
            for _ in range(count):
                disturbance = Disturbance(step, 10**6, self.random, (0.05, 0.5))
                output = self.output()
                with disturbance:
                    faigfast.sweep(self.plan, output, workers=2)
                    finished = faigfast.sweep(self.plan, output, workers=0)
                print(f"{disturbance.count} steps of the clock", file=sys.stderr)
                self.compare(kind, 1, finished)
        finally:
            time.time, sys.path[:] = usual_time, usual_path

    def _error_of_driver(self, output: Path, meanwhile: Callable[[], None]) -> str:
        """Give the error that ends a driver of its own process; "" if it finishes."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                faigfast.sweep(self.plan, output, workers=2)
            except BaseException as problem:
                os.write(writer, f"{type(problem).__name__}: {problem}".encode())
            os._exit(0)
        os.close(writer)
        meanwhile()
        os.waitpid(pid, 0)
        with open(reader, encoding="utf-8") as pipe:
            error = pipe.read()
        print(error, file=sys.stderr)
        return error

    def read_only(self, kind: str, count: int) -> None:
        """Make the output read-only while workers compute; go on when it can be written again."""
        start = time.perf_counter()
        self._error_of_driver(self.output(), lambda: None)
        usual = time.perf_counter() - start
        while self.tried[kind] < count:
            output = self.output()
            output.mkdir()
            pause = self.random.uniform(0, usual)
            with ExitStack() as mounts:
                errors = [
                    self._error_of_driver(output, partial(protect, output, pause, mounts)),
                    self._error_of_driver(output, lambda: None),  # meets it at the start
                ]
            clear = all(re.fullmatch(ONE_SENTENCE, error) for error in errors)
            if errors[0]:  # otherwise it ended before
                self.compare(kind, 1, faigfast.sweep(self.plan, output, workers=0), clear)

    def full(self, kind: str, count: int) -> None:
        """Compute on a file system that gets full; go on when it is larger."""
        whole = size_of(self.folder / "wanted")
        while self.tried[kind] < count:
            output = self.output()
            output.mkdir()
            size = int(whole * self.random.uniform(0.1, 0.95))
            with mounted(output, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
                error = self._error_of_driver(output, lambda: None)
                larger = ["mount", "-o", f"remount,size={4 * whole}", str(output)]
                subprocess.run(larger, check=True)
                result = faigfast.sweep(self.plan, output, workers=0)
                if error:  # otherwise the size was enough
                    self.compare(kind, 1, result, bool(re.fullmatch(ONE_SENTENCE, error)))

    def drivers(self, kind: str, count: int) -> None:
        """Kill drivers that compute in their own process, again and again on one output."""
        while self.tried[kind] < count:
            output, killed = self.output(), 0
            while self.tried[kind] + killed < count:
                pid = os.fork()
                if pid == 0:
                    faigfast.sweep(self.plan, output, workers=0)
                    os._exit(0)
                time.sleep(self.random.uniform(0, 1.5))
                os.kill(pid, signal.SIGKILL)
                _, status = os.waitpid(pid, 0)
                if os.WIFEXITED(status):
                    break
                killed += 1
            self.compare(kind, killed, faigfast.sweep(self.plan, output, workers=0))

    def files(self, kind: str, count: int) -> None:
        """Truncate, flip or delete files of a finished sweep."""
        output = self.output()
        faigfast.sweep(self.plan, output, workers=0)
        for _ in range(count):
            names = ["finished.bin", "catalogue.jsonl", "files.jsonl", "plan.json"]
            scores = sorted((output / "scores").rglob("*.safetensors"))
            file = self.random.choice([*scores, *(output / name for name in names)])
            whole = file.read_bytes()
            kinds = ["truncate", "delete"]
            if file.suffix == ".safetensors":
                kinds.append("flip")
            how = self.random.choice(kinds)
            if how == "delete":
                file.unlink()
            elif how == "flip":
                place = self.random.randrange(len(whole))
                changed = bytes([whole[place] ^ 1])
                file.write_bytes(whole[:place] + changed + whole[place + 1 :])
            else:
                file.write_bytes(whole[: self.random.randrange(len(whole))])
            result = faigfast.sweep(self.plan, output, workers=0, verify=True)
            self.compare(kind, 1, result)


def main() -> None:
    """Run the faults and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=200, help="SIGKILL of a worker")
    parser.add_argument("--hung", type=int, default=10, help="SIGSTOP of a worker")
    parser.add_argument("--drivers", type=int, default=50, help="SIGKILL of a driver")
    parser.add_argument("--files", type=int, default=50, help="damaged files")
    parser.add_argument("--clocks", type=int, default=20, help="sweeps with a clock that steps")
    parser.add_argument("--read-only", type=int, default=0, help="outputs turned read-only")
    parser.add_argument("--full", type=int, default=0, help="outputs that get full")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        faults = Faults(Path(folder), options.seed, options.images)
        faults.files("files damaged", options.files)
        faults.drivers("drivers killed", options.drivers)
        faults.clocks("sweeps with clock steps", options.clocks)
        faults.read_only("outputs turned read-only", options.read_only)
        faults.full("outputs full", options.full)
        faults.signals("workers stopped", signal.SIGSTOP, options.hung)
        faults.signals("workers killed", signal.SIGKILL, options.workers)
    rows = [
        (kind, str(tried), str(tried - faults.bad[kind]), str(faults.bad[kind]))
        for kind, tried in faults.tried.items()
    ]
    print(markdown(("fault", "tried", "same to the bit", "bad"), rows))
    raise SystemExit(1 if any(faults.bad.values()) else 0)


if __name__ == "__main__":
    main()
