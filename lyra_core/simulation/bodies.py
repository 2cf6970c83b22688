"""What is put into a world to try it: a ball, a box, and a small robot with two driven wheels, as MJCF.

The robot is of this project: a chassis of 0.6 x 0.4 m on two wheels and two balls that slide. Collections of real
robots (MuJoCo Menagerie) are fetched from the network where they are used, so a test of a world does not need them.
"""

from __future__ import annotations

import math
from xml.etree import ElementTree as ET

BALL_RADIUS_M, BOX_HALF_M = 0.1, 0.08
DROP_HEIGHT_M = 0.3  # of the lowest point above the ground
WHEEL_RADIUS_M, AXLE_M = 0.1, 0.4
CHASSIS_HALF_M = (0.3, 0.16, 0.06)
FRICTION = "1 0.05 0.05"  # sliding; torsional and rolling, metres: a ball stops rolling on a slope of up to 26 degrees
GROUP = "3"  # of geoms that move: rays and renderers tell them from the world's

Place = tuple[float, float, float, float]  # x, y, z on the ground, heading from x towards y


def add_ball(world: ET.Element, place: Place) -> str:
    """A ball of 1 kg above the ground; the name of its body."""
    body = _free_body(world, "ball", place, BALL_RADIUS_M + DROP_HEIGHT_M)
    _geom(body, type="sphere", size=f"{BALL_RADIUS_M}", mass="1", rgba="0.9 0.2 0.2 1")
    return "ball"


def add_box(world: ET.Element, place: Place) -> str:
    """A cube of 1 kg above the ground; the name of its body."""
    body = _free_body(world, "box", place, BOX_HALF_M + DROP_HEIGHT_M)
    _geom(body, type="box", size=" ".join([f"{BOX_HALF_M}"] * 3), mass="1", rgba="0.2 0.4 0.9 1")
    return "box"


def add_robot(root: ET.Element, place: Place) -> str:
    """The robot above the ground, with velocity motors `left` and `right` (radians a second); the name of its body."""
    world = root.find("worldbody")
    assert world is not None  # noqa: S101 - write_mjcf always writes one
    body = _free_body(world, "robot", place, WHEEL_RADIUS_M + DROP_HEIGHT_M)
    _geom(body, type="box", size=" ".join(map(str, CHASSIS_HALF_M)), pos="0 0 0.02", mass="10", rgba="0.2 0.7 0.4 1")
    slide = WHEEL_RADIUS_M - 0.04
    for name, x in (("front", 0.22), ("rear", -0.22)):
        # A caster: it touches and does not steer.
        _geom(
            body,
            name=f"caster_{name}",
            type="sphere",
            size="0.04",
            pos=f"{x} 0 {-slide:g}",
            mass="0.2",
            friction="0.01 0 0",
            condim="3",
            priority="1",
        )
    actuator = root.find("actuator")
    actuator = ET.SubElement(root, "actuator") if actuator is None else actuator
    for name, side in (("left", 1.0), ("right", -1.0)):
        wheel = ET.SubElement(body, "body", name=f"wheel_{name}", pos=f"0 {side * AXLE_M / 2:g} 0")
        ET.SubElement(wheel, "joint", name=name, type="hinge", axis="0 1 0", damping="0.02")
        # Condim 4: a wheel rolls, and its rolling friction would brake it.
        _geom(
            wheel,
            type="cylinder",
            size=f"{WHEEL_RADIUS_M} 0.025",
            euler=f"{math.pi / 2:.9g} 0 0",
            mass="1",
            condim="4",
            friction="1.2 0.01 0",
            priority="1",
            rgba="0.15 0.15 0.15 1",
        )
        ET.SubElement(actuator, "velocity", name=name, joint=name, kv="4")
    return "robot"


def _free_body(world: ET.Element, name: str, place: Place, height: float) -> ET.Element:
    x, y, z, heading = place
    body = ET.SubElement(world, "body", name=name, pos=f"{x:.9g} {y:.9g} {z + height:.9g}", euler=f"0 0 {heading:.9g}")
    ET.SubElement(body, "freejoint")
    return body


def _geom(body: ET.Element, **attributes: str) -> None:
    ET.SubElement(body, "geom", {"condim": "6", "friction": FRICTION, "group": GROUP, **attributes})
