"""Images of a folder in groups of one size: read, degraded and hashed ahead of the computation."""

from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from threading import Event

import torch

from faigfast.cli.output import sha256
from faigfast.data.folders import DegradedFolder, PairedFolders
from faigfast.integration.batch import Batch
from faigfast.io.progress import progress_bar

# Low-resolution pixels of a group over all degradations: 14 images of 48², several seconds.
# A call costs about a tenth of one such image, 1 % of a group; an interrupt loses one group.
PIXELS = 2**15
IMAGES = 32  # most images of a group, since each has a score for every filter

Images = PairedFolders | DegradedFolder


@dataclass(frozen=True)
class Group:
    """Images of one size.

    Parameters
    ----------
    names : list of str
        The N images.
    batch : Batch
        Their tensors, lq [N, 3, h, w] and gt [N, 3, H, W].
    hashes : dict of str to dict of str to str
        SHA-256 of the bytes that were decoded, by name and role.
    """

    names: list[str]
    batch: Batch
    hashes: dict[str, dict[str, str]]


def group_by_size(
    sizes: Sequence[tuple[int, int]], degradations: int, devices: int = 1
) -> list[list[int]]:
    """Group images of equal sizes, and cut large groups into equal ones.

    Parameters
    ----------
    sizes : sequence of (int, int)
        Height and width of the low-resolution images.
    degradations : int
        Number of degradations, in each of which every image is attributed.
    devices : int
        Groups that run at the same time; images of one size give a multiple of it.

    Returns
    -------
    list of list of int
        Positions of the images, each once; groups are in the order of their first images.

    Examples
    --------
    >>> group_by_size([(24, 24), (24, 32), (24, 24)], degradations=1)
    [[0, 2], [1]]
    """
    by_size: dict[tuple[int, int], list[int]] = {}
    for position, size in enumerate(sizes):
        by_size.setdefault(size, []).append(position)
    groups = []
    for (height, width), positions in by_size.items():
        most = min(IMAGES, max(1, PIXELS // (height * width * degradations)))
        count = -(-len(positions) // most)
        count = min(-(-count // devices) * devices, len(positions))
        edges = [len(positions) * n // count for n in range(count + 1)]
        groups += [positions[start:end] for start, end in pairwise(edges)]
    return sorted(groups)


def hash_images(images: Images, quiet: bool, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """SHA-256 of every file of some images, by name and role, with a progress bar."""
    bar = progress_bar(names, desc="hashing", unit="image", disable=quiet, leave=False)
    return {name: {role: sha256(path) for role, path in images.files(name).items()} for name in bar}


def read_ahead(
    images: Images, groups: Sequence[Sequence[int]], dtype: torch.dtype
) -> Generator[Group, None, None]:
    """Read groups in a thread, one ahead of the group that is taken.

    Close the iterator unless you exhaust it: the thread then ends after the image
    that it reads.

    Parameters
    ----------
    images : PairedFolders or DegradedFolder
        The data set.
    groups : sequence of sequence of int
        Positions of images of one size each.
    dtype : torch.dtype
        Of the tensors.

    Yields
    ------
    Group

    Raises
    ------
    FileNotFoundError, ValueError
        If an image cannot be read, when its group is due.
    """
    stop = Event()
    # With more OpenMP threads than cores all of them sleep at every barrier, in place of spinning.
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(1, "faigfast-reading", _compute_alone)
    pool.submit(int).result()  # the pool's thread now computes alone
    torch.set_num_threads(threads)  # inherited by threads that start later
    ahead: Future[Group] | None = None
    try:
        for following in [*groups, None]:
            group = ahead.result() if ahead else None
            if following is not None:
                ahead = pool.submit(_read, images, following, dtype, stop)
            if group:
                yield group
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _compute_alone() -> None:
    """Let this thread compute alone, whatever number of threads is set elsewhere later."""
    torch.set_num_threads(1)
    torch.get_num_threads()  # the first call adopts the last number set by any thread


def _read(images: Images, positions: Sequence[int], dtype: torch.dtype, stop: Event) -> Group:
    """Read images one after the other, until `stop` is set."""
    names = [images.names[position] for position in positions]
    items, hashes = [], {}
    for name, position in zip(names, positions, strict=True):
        if stop.is_set():
            raise CancelledError
        items.append(images[position])
        hashes[name] = items[-1]["sha256"]
    lq = {
        degradation: torch.stack([item["lq"][degradation] for item in items]).to(dtype)
        for degradation in items[0]["lq"]
    }
    gt = torch.stack([item["gt"] for item in items]).to(dtype)  # [N, 3, H, W]
    return Group(names, Batch(lq, dict.fromkeys(lq, gt)), hashes)
