"""Quality gates by name: what each one sees, the measurement it reads and where its limit lies.

A gate that could not measure says nothing: the world passes it, and the column is null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lyra_core.errors import RecipeError

DEFAULT_GATES = ("empty", "motion")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The range a measurement must lie in; None is no limit."""

    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedGate:
    """One gate.

    Attributes:
        id: its name in `Recipe.gates`, and the first word of its reason.
        column: the column of `worlds` that it reads, a field of `Quality`.
        limit: the range that passes.
        meaning: what fails it, for people.
    """

    id: str
    column: str
    limit: Gate
    meaning: str


GATES = {
    gate.id: gate
    for gate in (
        NamedGate(
            id="empty",
            column="texture_frac",
            limit=Gate(min=0.01),
            meaning="the frames are blank: hardly a cell of 8x8 pixels is not of one tone",
        ),
        NamedGate(
            id="motion",
            column="motion_frac",
            limit=Gate(min=0.05),
            meaning="the cameras ask for a motion and the picture stands still",
        ),
        NamedGate(
            id="flicker",
            column="flicker_levels",
            limit=Gate(max=2.0),
            meaning="brightness alternates from frame to frame",
        ),
        NamedGate(
            id="revisit",
            column="revisit_db",
            limit=Gate(min=18.0),
            meaning="where the camera comes back, the picture is another",
        ),
        NamedGate(
            id="floaters",
            column="floater_frac",
            limit=Gate(max=0.1),
            meaning="Gaussians hang in front of what several frames see",
        ),
        NamedGate(
            id="isolated",
            column="isolated_frac",
            limit=Gate(max=0.1),
            meaning="Gaussians hang alone in the air",
        ),
        NamedGate(
            id="needles",
            column="needle_frac",
            limit=Gate(max=0.1),
            meaning="Gaussians are long and thin and show as streaks from aside",
        ),
    )
}


def require_gates(names: Sequence[str]) -> None:
    """Refuse names that no gate has.

    Raises:
        RecipeError: with the names there are.
    """
    unknown = [name for name in names if name not in GATES]
    if unknown:
        raise RecipeError(f"gates: wanted some of {', '.join(GATES)}, found {unknown[0]!r}")
