"""Kills and damages sweeps at random moments; each must end with the scores of an undisturbed one.

python scripts/sweep_faults.py --workers 200 --drivers 50 --files 50 --hung 10
"""

import argparse
import hashlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import torch

import faigfast
from faigfast.data import write_image
from faigfast.io.text_table import markdown
from faigfast.sweeps.opened import Sweep
from faigfast.zoo import SRCNNStyle

TIMEOUT = 4.0  # seconds after which a stopped worker counts as hung; a unit takes far less
PAUSES = 1.0, 7.0  # seconds between two signals; a worker takes some to start


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
        "settings": [{"steps": 20}, {"steps": 30}],
        "shard": 2,
    }


def content(result: Sweep) -> dict:
    """Hash all scores and losses by degradation, setting and image; every image once."""
    hashes: dict = {}
    for degradation in result.degradations:
        for setting in result.settings:
            for unit in result.scores(None, degradation, setting):
                for n, image in enumerate(unit.images):
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
    """Sends a signal to workers at random moments, at most `most` times."""

    def __init__(self, number: signal.Signals, most: int, generator: random.Random) -> None:
        super().__init__()
        self.number, self.most, self.random, self.sent = number, most, generator, 0
        self.ended = threading.Event()

    def run(self) -> None:
        """Send until the block ends."""
        while not self.ended.wait(self.random.uniform(*PAUSES)):
            pids = own_workers()
            if pids and self.sent < self.most:
                os.kill(self.random.choice(pids), self.number)
                self.sent += 1

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()


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

    def compare(self, kind: str, faults: int, result: Sweep) -> None:
        """Count faults, as bad ones where the results differ."""
        same = content(result) == self.wanted and not result.failures
        self.tried[kind] += faults
        self.bad[kind] += 0 if same else faults
        print(f"{kind}: {faults} more, {'same' if same else 'DIFFERENT'}", file=sys.stderr)

    def signals(self, kind: str, number: signal.Signals, count: int) -> None:
        """Send a signal to workers at random moments."""
        while self.tried[kind] < count:
            disturbance = Disturbance(number, count - self.tried[kind], self.random)
            timeout = TIMEOUT if number == signal.SIGSTOP else None
            with disturbance:
                result = faigfast.sweep(
                    self.plan, self.output(), workers=2, retries=1000, unit_timeout=timeout
                )
            self.compare(kind, disturbance.sent, result)

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
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        faults = Faults(Path(folder), options.seed, options.images)
        faults.files("files damaged", options.files)
        faults.drivers("drivers killed", options.drivers)
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
