"""The CUDA extension compiled for the CPU, where each thread is a fiber. It needs no GPU."""

import os
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pybind11
import torch

from faigfast.backend.gpu import cuda_hopper, triton_support
from faigfast.backend.gpu import extension as _extension_cuda

CSRC = Path(__file__).parents[2] / "csrc" / "cuda"
EMULATED = Path(__file__).parents[1] / "cpp" / "cuda" / "emulated_hopper.h"
FLAGS = ["-std=c++17", "-O1", "-fPIC", "-Wno-unknown-pragmas", "-fvisibility=hidden"]
CHECKED = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]


def compiler():
    return next(filter(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++")), None)


@cache
def extension():
    """Compile kernels and module with UndefinedBehaviorSanitizer, and load the module."""
    with TemporaryDirectory() as folder:
        return _build(Path(folder))


def _build(folder):
    includes = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}"]
    tasks = [
        (source, ["-O2", *CHECKED, "-include", str(EMULATED), "-x", "c++"])
        for source in sorted(CSRC.glob("*.cu"))
    ]
    tasks.append((CSRC / "module.cpp", includes))

    def compile_one(task):
        source, flags = task
        path = folder / f"{source.stem}.o"
        run([compiler(), *FLAGS, *flags, "-c", source, "-o", path])
        return path

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, tasks))
    path = folder / f"_C_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
    run([compiler(), "-shared", *CHECKED, *objects, "-o", path])
    loader = ExtensionFileLoader("_C_cuda", str(path))
    module = module_from_spec(spec_from_loader("_C_cuda", loader))
    loader.exec_module(module)
    return module


def run(command):
    completed = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr


@contextmanager
def here(device):
    yield {"device": 0, "stream": 0}


@contextmanager
def emulated(module):
    """Let the CUDA kernel serve tensors on the CPU, and cuDNN's place be taken by torch's."""
    with (
        mock.patch.object(_extension_cuda, "module", module),
        mock.patch.object(_extension_cuda, "problem", lambda device=None: ""),
        mock.patch.object(triton_support, "refuses", lambda device=None: ""),
        mock.patch.object(cuda_hopper, "on", here),
        mock.patch.object(torch.Tensor, "data_ptr", _address, create=False),
    ):
        yield


_data_ptr = torch.Tensor.data_ptr


def _address(tensor):
    """Address of a tensor, which must be dense."""
    assert tensor.is_contiguous() or tensor.ndim == 3, tensor.stride()
    return _data_ptr(tensor)
