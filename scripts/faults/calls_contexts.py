"""Callers in unusual modes: of torch, of warnings, of threads, of other programs."""

import contextlib
import gc
import io
import random as python_random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from random import Random
from typing import Any

import numpy as np
import torch
from call import Call, Mutation
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class Functions(TorchFunctionMode):
    """Counts the functions of torch."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count and call."""
        self.count += 1
        return func(*args, **(kwargs or {}))


class Operations(TorchDispatchMode):
    """Counts the operations of torch."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count and call."""
        self.count += 1
        return func(*args, **(kwargs or {}))


class Broken(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, text: str) -> int:
        """Fail as a closed pipe."""
        raise BrokenPipeError(32, "Broken pipe")


Setter = Callable[[Any], object]


@contextlib.contextmanager
def _kept(read: Callable[[], Any], write: Setter, value: Any) -> Iterator[None]:
    """Set a global value inside."""
    before = read()
    write(value)
    try:
        yield
    finally:
        write(before)


@contextlib.contextmanager
def _other_thread(act: Callable[[], object]) -> Iterator[None]:
    """Let another thread act again and again inside."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            act()
            stop.wait(0.001)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def _no_stderr(stream: Any) -> Iterator[None]:
    with _kept(lambda: sys.stderr, lambda value: setattr(sys, "stderr", value), stream):
        yield


@contextlib.contextmanager
def _strict_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@contextlib.contextmanager
def _global_hook() -> Iterator[None]:
    handle = nn.modules.module.register_module_forward_hook(lambda module, given, output: None)
    try:
        yield
    finally:
        handle.remove()


def _own_training() -> None:
    """Train a network of the other thread for one step."""
    with torch.enable_grad():
        network = nn.Conv2d(1, 1, 3)
        network(torch.ones(1, 1, 5, 5)).sum().backward()


def _draw_everywhere() -> None:
    torch.rand(2)
    python_random.random()
    np.random.rand()


CONTEXTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True, check_nan=True),
    "deterministic algorithms": lambda: _kept(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
    ),
    "default dtype float64": lambda: _kept(
        torch.get_default_dtype, torch.set_default_dtype, torch.float64
    ),
    "default dtype float16": lambda: _kept(
        torch.get_default_dtype, torch.set_default_dtype, torch.float16
    ),
    "default device meta": lambda: torch.device("meta"),
    "fake mode": FakeTensorMode,
    "a mode of functions": Functions,
    "a mode of operations": Operations,
    "a global hook": _global_hook,
    "saved tensors in memory": lambda: torch.autograd.graph.save_on_cpu(),
    "saved tensors refused": lambda: torch.autograd.graph.disable_saved_tensors_hooks("no hooks"),
    "forward mode": torch.autograd.forward_ad.dual_level,
    "one autograd thread": lambda: torch.autograd.set_multithreading_enabled(False),
    "mkldnn off": lambda: torch.backends.mkldnn.flags(enabled=False),
    "medium precision of products": lambda: _kept(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "three threads": lambda: _kept(torch.get_num_threads, torch.set_num_threads, 3),
    "warnings as errors": _strict_warnings,
    "NumPy's warnings as errors": lambda: np.errstate(all="raise"),
    "no stderr": lambda: _no_stderr(None),
    "a broken stderr": lambda: _no_stderr(Broken()),
    "garbage collection at every step": lambda: _kept(
        gc.get_threshold, lambda value: gc.set_threshold(*value), (1, 1, 1)
    ),
    "a thread that draws": lambda: _other_thread(_draw_everywhere),
    "a thread that seeds": lambda: _other_thread(lambda: torch.manual_seed(5)),
    "a thread that trains": lambda: _other_thread(_own_training),
    "a thread that collects garbage": lambda: _other_thread(gc.collect),
}
PROGRESS = ("no stderr", "a broken stderr")
DRAWING = ("a thread that draws", "a thread that seeds", "a thread that trains")


def _in_context(name: str, make: Callable[[], AbstractContextManager[Any]]) -> Mutation:
    def change(call: Call, random: Random) -> None:
        call.contexts.append(make)
        call.draws = name in DRAWING
        if name in PROGRESS:
            call.options["progress"] = True

    return Mutation(f"under {name}", change, ".")


def _in_thread(run: Callable[[], Any]) -> Any:
    answers: list[Any] = []

    def work() -> None:
        try:
            answers.append(run())
        except BaseException as problem:
            answers.append(problem)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(answers[0], BaseException):
        raise answers[0]
    return answers[0]


def _in_coroutine(run: Callable[[], Any]) -> Any:
    import asyncio

    async def work() -> Any:
        return run()

    return asyncio.run(work())


def _in_vmap(run: Callable[[], Any]) -> Any:
    answers = []
    torch.vmap(lambda value: (answers.append(run()), value)[1])(torch.zeros(1))
    return answers[0]


def _in_gradient(run: Callable[[], Any]) -> Any:
    answers = []
    torch.func.grad(lambda value: (answers.append(run()), value)[1])(torch.zeros(()))
    return answers[0]


def _in_compiled(run: Callable[[], Any]) -> Any:
    def caller(value: torch.Tensor) -> Any:
        return value + 1, run()

    return torch.compile(caller, backend="eager")(torch.zeros(3))[1]


ENTRIES: dict[str, Callable[[Callable[[], Any]], Any]] = {
    "from another thread": _in_thread,
    "from a coroutine": _in_coroutine,
    "inside vmap": _in_vmap,
    "inside a gradient": _in_gradient,
    "inside torch.compile": _in_compiled,
}


def _through(name: str, entry: Callable[[Callable[[], Any]], Any]) -> Mutation:
    def change(call: Call, random: Random) -> None:
        call.entry = entry

    return Mutation(f"called {name}", change, ".", alone=name == "inside torch.compile")


MUTATIONS = [
    *(_in_context(name, make) for name, make in CONTEXTS.items()),
    *(_through(name, entry) for name, entry in ENTRIES.items()),
]
