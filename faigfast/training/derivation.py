"""Record of how a baseline was derived, and the criteria by which the training stops."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from faigfast.integration.cautions import MOST_BARRIER
from faigfast.io.text_table import aligned, counted
from faigfast.training.held_out import CLEAN

PATIENCE = 3  # measurements in a row without a change
LEAST_RISE = 0.02  # dB of clean PSNR that count as a rise
LEAST_FALL = 0.05  # dB of a removed degradation that count as a fall
LEAST_ABILITY = 0.25  # dB of gain over bicubic enlargement that count as an ability
MOST_LOSS = 3.0  # dB of clean PSNR below the target's from which no rise is divergence


@dataclass(frozen=True)
class Measurement:
    """PSNR of the averaged weights on held-out crops after some iterations."""

    iteration: int
    psnr: dict[str, float]


@dataclass(frozen=True)
class Derivation:
    """How a baseline was derived from a target.

    Parameters
    ----------
    iterations : int
        Steps that the weights of the baseline saw.
    stopped : str
        Why the training stopped.
    diverged : bool
        Whether it diverged, so that the baseline is the best one measured before.
    target, baseline, bicubic : dict of str to float
        PSNR in dB on held-out crops by degradation, "clean" among them: of the two networks, and of
        the degraded crop itself, enlarged by bicubic interpolation.
    forgotten, kept : tuple of str
        Degradations that the baseline shall no longer remove, and shall go on removing.
    barrier : dict of str to float
        Median over held-out crops, of the line from the baseline to the target.
    distance : float
        ‖θ − θ̄‖ / ‖θ̄‖.
    measurements : tuple of Measurement
        In the order of the training.
    settings : dict
        Arguments of the training, in JSON's types.
    """

    iterations: int
    stopped: str
    diverged: bool
    target: dict[str, float]
    baseline: dict[str, float]
    bicubic: dict[str, float]
    forgotten: tuple[str, ...]
    kept: tuple[str, ...]
    barrier: dict[str, float]
    distance: float
    measurements: tuple[Measurement, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def remaining(self) -> dict[str, float]:
        """Gain over bicubic enlargement that is left, in dB, by forgotten degradation."""
        return {name: self.baseline[name] - self.bicubic[name] for name in self.forgotten}

    @property
    def worst_barrier(self) -> float:
        """Largest barrier of a degradation."""
        return max(self.barrier.values())

    def to_json(self) -> dict[str, Any]:
        """Give everything in JSON's types."""
        return {**asdict(self), "remaining": self.remaining}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Derivation":
        """Read what `to_json` gave."""
        values = {key: value for key, value in content.items() if key != "remaining"}
        values["measurements"] = tuple(Measurement(**m) for m in values["measurements"])
        for key in ("forgotten", "kept"):
            values[key] = tuple(values[key])
        return cls(**values)

    def __str__(self) -> str:
        """Give the table and the sentences that the command prints."""
        roles = dict.fromkeys(self.forgotten, "to be forgotten") | dict.fromkeys(self.kept, "kept")
        head = ["crops", "", "target, dB", "baseline, dB", "change, dB", "bicubic, dB", "barrier"]
        rows = [
            [
                name,
                roles.get(name, ""),
                f"{self.target[name]:.2f}",
                f"{self.baseline[name]:.2f}",
                f"{self.baseline[name] - self.target[name]:+.2f}",
                f"{self.bicubic[name]:.2f}",
                f"{self.barrier[name]:.3f}",
            ]
            for name in self.target
        ]
        low = self.worst_barrier <= MOST_BARRIER
        barriers = "within" if low else "ABOVE"
        return (
            f"{aligned(head, rows)}\n\n"
            f"{counted(self.iterations, 'iteration')}; {self.stopped}. Relative distance "
            f"{self.distance:.3f}; the barrier is {barriers} the bound of {MOST_BARRIER:g}."
            f"{self._not_forgotten()}"
        )

    def _not_forgotten(self) -> str:
        """Name abilities of which the baseline keeps more than half, and the remedy."""
        had = {name: self.target[name] - self.bicubic[name] for name in self.forgotten}
        left = [
            f"{name} ({kept:.2f} of {had[name]:.2f} dB)"
            for name, kept in self.remaining.items()
            if kept > max(had[name] / 2, LEAST_ABILITY)
        ]
        if not left:
            return ""
        return (
            f"\nNOT FORGOTTEN: more than half of the gain over bicubic enlargement is left under "
            f"{', '.join(left)}; expected more iterations, or a higher learning rate."
        )


def abilities(
    target: Mapping[str, float], bicubic: Mapping[str, float], names: Sequence[str]
) -> tuple[str, ...]:
    """Name the degradations that a target removes: its gain over bicubic exceeds that on clean."""
    plain = max(target[CLEAN] - bicubic[CLEAN], 0.0)
    return tuple(n for n in names if target[n] - bicubic[n] >= plain + LEAST_ABILITY)


def clean_settled(history: Sequence[Measurement]) -> bool:
    """Whether the clean PSNR no longer rises."""
    values = [m.psnr[CLEAN] for m in history]
    if len(values) <= PATIENCE:
        return False
    return max(values[-PATIENCE:]) - max(values[:-PATIENCE]) < LEAST_RISE


def forgotten_reason(
    history: Sequence[Measurement],
    bicubic: Mapping[str, float],
    target: Mapping[str, float],
    names: Sequence[str],
) -> str:
    """Say why no further forgetting is expected; "" while an ability still falls."""
    gone, settled = [], []
    for name in names:
        values = [m.psnr[name] for m in history]
        if values[-1] <= bicubic[name] + LEAST_ABILITY:
            gone.append(name)
        elif (
            len(values) > PATIENCE
            and min(values[:-PATIENCE]) - min(values[-PATIENCE:]) < LEAST_FALL
        ):
            settled.append(name)
        else:
            return ""
    parts = []
    if gone:
        parts.append(f"{_and(gone)} is down to the level of bicubic enlargement")
    if settled:
        left = [
            f"{name} no longer falls ({history[-1].psnr[name] - bicubic[name]:.2f} dB above "
            f"bicubic of the target's {target[name] - bicubic[name]:.2f})"
            for name in settled
        ]
        parts.append("; ".join(left))
    return "; ".join(parts) or "the target removes no degradation to be forgotten"


def has_diverged(history: Sequence[Measurement], target: Mapping[str, float]) -> bool:
    """Whether clean crops lost far too much, and the last measurement shows no recovery."""
    last = [m.psnr[CLEAN] for m in history[-2:]]
    return len(last) == 2 and max(last) < target[CLEAN] - MOST_LOSS and last[1] <= last[0]


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)
