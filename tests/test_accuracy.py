import functools
import re
from pathlib import Path

import pytest
import torch

import faigfast
from faigfast.bench import accuracy
from faigfast.bench.accuracy import AUTHORS, CHECK, EMULATED, REFERENCE, TRIALS, Trial
from faigfast.commands import accuracy as command
from faigfast.quadrature import RULES
from faigfast.tables import markdown
from faigfast.zoo import SRResNet
from faigfast.zoo.pairs import PAIRS, shipped_folder, shipped_pair

main = pytest.importorskip("faigfast.cli").main if True else None
