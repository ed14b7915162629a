"""`faigfast bench`: the rivals' loops, faigfast's backends, and the table of them all."""

from faigfast.bench.compiled import CompiledKernels, compile_kernels
from faigfast.bench.cost import Cost, measure_cost
from faigfast.bench.experiment import Experiment, experiment
from faigfast.bench.kernels import Kernels, measure_kernels
from faigfast.bench.race import Race, race
from faigfast.bench.report import Report
from faigfast.bench.runner import DEFAULT, benchmark
from faigfast.bench.workloads import WORKLOADS, workload

__all__ = [
    "DEFAULT",
    "WORKLOADS",
    "CompiledKernels",
    "Cost",
    "Experiment",
    "Kernels",
    "Race",
    "Report",
    "benchmark",
    "compile_kernels",
    "experiment",
    "measure_cost",
    "measure_kernels",
    "race",
    "workload",
]
