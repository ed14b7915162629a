"""`faigfast bench`: rival implementations and faigfast's backends, compared and timed."""

from faigfast.bench.cost import Cost, measure_cost
from faigfast.bench.experiment import Experiment, experiment
from faigfast.bench.kernels import Kernels, measure_kernels
from faigfast.bench.race import Race, race
from faigfast.bench.report import BenchmarkResult
from faigfast.bench.runner import DEFAULT, benchmark
from faigfast.bench.workloads import WORKLOADS, workload

__all__ = [
    "DEFAULT",
    "WORKLOADS",
    "BenchmarkResult",
    "Cost",
    "Experiment",
    "Kernels",
    "Race",
    "benchmark",
    "experiment",
    "measure_cost",
    "measure_kernels",
    "race",
    "workload",
]
