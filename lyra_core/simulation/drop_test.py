"""Drop a ball, a box and a robot at a world's spawn point, in MuJoCo, and look whether they stay where they land.

The test proves that a world's files fit together: ground, obstacles, spawn point, axes, units. It says nothing about
the truth of the floor, which is the gate's matter (lyra_core.scene_geometry.floor).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from lyra_core.errors import FormatError
from lyra_core.extras import require
from lyra_core.simulation.bodies import (
    BALL_RADIUS_M,
    BOX_HALF_M,
    WHEEL_RADIUS_M,
    Place,
    add_ball,
    add_box,
    add_robot,
)

TOLERANCE_M = 0.05  # between where a thing rests and the ground under it
FALL_S, DRIVE_S = 3.0, 2.0
STILL_M_S = 0.05  # faster than this it does not rest
UPRIGHT_DEG = 30.0
DRIVE_M_S = 0.3
PROBE_HEIGHT_M = 0.5  # above the thing, so that what sank is found too and what hangs over it is not hit


@dataclass(frozen=True, slots=True, kw_only=True)
class Landing:
    """How one thing landed.

    Attributes:
        error_m: height of its lowest point above the ground under it; negative: it sank.
        moved_m: horizontal distance from where it was dropped.
        speed_m_s: at the end.
        tilt_deg: of its own z axis against up.
    """

    error_m: float
    moved_m: float
    speed_m_s: float
    tilt_deg: float

    @property
    def is_at_rest(self) -> bool:
        """On the ground within the tolerance and still."""
        return abs(self.error_m) <= TOLERANCE_M and self.speed_m_s <= STILL_M_S


@dataclass(frozen=True, slots=True, kw_only=True)
class DropTest:
    """The result for a world.

    Attributes:
        ball, box, robot: how each landed.
        drove_m: how far the robot came, straight ahead for DRIVE_S.
        reasons: why the world fails; empty where it passes.
        simulator: name and version.
    """

    ball: Landing
    box: Landing
    robot: Landing
    drove_m: float
    reasons: tuple[str, ...]
    simulator: str

    @property
    def is_passed(self) -> bool:
        """Ball and box rest on the ground and the robot stands."""
        return not self.reasons


def drop_test(mjcf: str) -> DropTest:
    """Try a world.

    Args:
        mjcf: text of a file of lyra_core.formats.mjcf.write_mjcf.

    Raises:
        FormatError: MuJoCo refuses it, or it has no spawn site.
        MissingExtraError: MuJoCo is not installed.
    """
    require("mujoco", "trying a world in a simulator", "sim")
    import mujoco

    place = _spawn(mjcf)
    ball, _ = _landed(mjcf, lambda root: add_ball(_world(root), place), lambda *_: BALL_RADIUS_M)
    box, _ = _landed(mjcf, lambda root: add_box(_world(root), place), _box_reach)
    robot, drove = _landed(mjcf, lambda root: add_robot(root, place), lambda *_: WHEEL_RADIUS_M, drives=True)
    reasons = [
        f"the {name} does not rest: {landing.error_m * 100:+.1f} cm above the ground under it, "
        f"{landing.speed_m_s:.2f} m/s, {landing.moved_m:.2f} m away"
        for name, landing in (("ball", ball), ("box", box), ("robot", robot))
        if not landing.is_at_rest
    ]
    if robot.tilt_deg > UPRIGHT_DEG:
        reasons.append(f"the robot is tilted by {robot.tilt_deg:.0f} degrees, wanted at most {UPRIGHT_DEG:.0f}")
    return DropTest(
        ball=ball,
        box=box,
        robot=robot,
        drove_m=drove,
        reasons=tuple(reasons),
        simulator=f"mujoco {mujoco.__version__}",
    )


def _world(root: ET.Element) -> ET.Element:
    world = root.find("worldbody")
    if world is None:
        raise FormatError("a MuJoCo world needs a worldbody, found none; write it with lyra_core.formats.mjcf")
    return world


def _spawn(mjcf: str) -> Place:
    try:
        site = ET.fromstring(mjcf).find(".//site[@name='spawn']")
        if site is None:
            raise FormatError("a MuJoCo world needs a site named spawn, found none")
        x, y, z = (float(value) for value in site.get("pos", "").split())
        return x, y, z, float(site.get("euler", "").split()[2])
    except (ET.ParseError, ValueError, IndexError) as error:
        raise FormatError(f"not a world of lyra_core.formats.mjcf: {error}") from error


def _landed(
    mjcf: str,
    add: Callable[[ET.Element], str],
    reach: Callable[[Any, int], float],
    *,
    drives: bool = False,
) -> tuple[Landing, float]:
    """Drop one thing alone; `reach` is how far its lowest point is below its centre."""
    import mujoco

    root = ET.fromstring(mjcf)
    name = add(root)
    try:
        model = mujoco.MjModel.from_xml_string(ET.tostring(root, encoding="unicode"))
    except ValueError as error:
        raise FormatError(f"MuJoCo refuses the world: {error}") from error
    data = mujoco.MjData(model)
    body = model.body(name).id
    start = np.array(model.body_pos[body])
    _run(model, data, FALL_S)
    place = np.array(data.xpos[body])
    speed = float(np.linalg.norm(data.qvel[:3]))
    landing = Landing(
        error_m=float(place[2]) - reach(data, body) - _ground(model, data, place),
        moved_m=float(np.hypot(*(place - start)[:2])),
        speed_m_s=speed,
        tilt_deg=math.degrees(math.acos(float(np.clip(data.xmat[body][8], -1.0, 1.0)))),
    )
    drove = 0.0
    if drives:
        data.ctrl[:] = DRIVE_M_S / WHEEL_RADIUS_M
        _run(model, data, DRIVE_S)
        drove = float(np.hypot(*(data.xpos[body] - place)[:2]))
    return landing, drove


def _run(model: Any, data: Any, seconds: float) -> None:
    import mujoco

    for _ in range(round(seconds / model.opt.timestep)):
        mujoco.mj_step(model, data)


def _box_reach(data: Any, body: int) -> float:
    """Half the height of the cube as it lies: on any side, an edge or a corner."""
    return BOX_HALF_M * float(np.abs(data.xmat[body][6:9]).sum())


def _ground(model: Any, data: Any, place: np.ndarray) -> float:
    """Height of what stands fast under a place; minus infinity over nothing."""
    import mujoco

    origin = np.array([place[0], place[1], place[2] + PROBE_HEIGHT_M])
    fixed = np.array([True] + [False] * 5)  # geoms of group 0; what was dropped is of another (bodies.GROUP)
    hit = np.zeros(1, np.int32)
    distance = mujoco.mj_ray(model, data, origin, np.array([0.0, 0.0, -1.0]), fixed, 1, -1, hit)
    return float(origin[2] - distance) if distance >= 0 else -math.inf
