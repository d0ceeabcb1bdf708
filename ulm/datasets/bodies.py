"""Articulated human bodies for procedural scenes: skeleton, shape, face, hair and clothes.

A person is a :class:`Body` (who it is and what is worn) and a :class:`Pose` (angles of the joints, in degrees).
:func:`pose_body` turns both into painted surfaces for :func:`ulm.datasets.shapes.picture` and named 3-D joints.

Frame: centimetres, x to the image's right, y up, z to the viewer, the ground at y = 0. A body that is not turned looks
at the viewer (+z), so the person's *left* is at +x. Proportions follow Drillis and Contini (1966), as fractions of the
body's height. A bone's own frame has the bone along -y, its front along z and the person's left along x.

Typical use::

    body = sample_body(rng)
    pose = Pose(turn=30, left_arm=Arm(lift=80, elbow=60))
    pose = reach_arm(body, pose, "right", np.array([-10.0, -20.0, 30.0]))
    posed = pose_body(body, pose)
    sample = shapes.picture(posed.surfaces, camera, light, backdrop, posed.places(names), posed.radii(names))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ulm.datasets import rendering as r
from ulm.datasets.rendering import Array, bump, smoothstep
from ulm.datasets.shapes import Paint, Surface

Colour = tuple[float, float, float]
SIDES = ("left", "right")
# Texture coordinates are given as if everybody were this tall, so that patterns sit at the same places on everybody.
TALL = 175.0

# ---------------------------------------------------------------------------------------------- parameters


@dataclass(frozen=True)
class Figure:
    """Build of a body: ``height`` in centimetres, the rest factors about 1 unless said otherwise.

    Attributes:
        height: From sole to crown.
        male: -1 (female) to 1 (male); shapes chest, waist, hips and face.
        shoulders: Width between the shoulder joints.
        hips: Width of the pelvis.
        waist: Girth of the waist.
        girth: Thickness of limbs and torso.
        belly: How far the belly stands out, 0 to 1.
        bust: How far the breasts stand out, 0 to 1.
        legs: Length of the legs at the cost of the torso.
        arms: Length of the arms.
        head: Size of the head.
    """

    height: float = 172.0
    male: float = 0.0
    shoulders: float = 1.0
    hips: float = 1.0
    waist: float = 1.0
    girth: float = 1.0
    belly: float = 0.0
    bust: float = 0.0
    legs: float = 1.0
    arms: float = 1.0
    head: float = 1.0


@dataclass(frozen=True)
class Look:
    """Face, skin and hair; colours are display RGB in [0, 1].

    Attributes:
        skin: Colour of the skin.
        hair: Colour of the hair.
        iris: Colour of the eyes.
        lip: Colour of the lips.
        brow: Colour of the brows and the beard.
        style: One of :data:`HAIR_STYLES`.
        length: Length of hair that falls, in centimetres below the ears.
        beard: 0 none, 0.4 stubble, 1 full.
        glasses: Whether glasses are worn.
        face: Six numbers about 0 that shape the face: jaw, nose, eye distance, mouth, brow, cheeks.
        seed: Decides strands of hair and other fine detail.
    """

    skin: Colour = (0.8, 0.6, 0.48)
    hair: Colour = (0.18, 0.12, 0.08)
    iris: Colour = (0.3, 0.2, 0.12)
    lip: Colour = (0.7, 0.38, 0.35)
    brow: Colour = (0.15, 0.1, 0.07)
    style: str = "short"
    length: float = 20.0
    beard: float = 0.0
    glasses: bool = False
    face: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    seed: int = 0


@dataclass(frozen=True)
class Cloth:
    """A cloth: ``pattern`` is one of :data:`PATTERNS`, ``scale`` its period in centimetres."""

    colour: Colour = (0.3, 0.35, 0.5)
    second: Colour = (0.85, 0.85, 0.85)
    third: Colour = (0.2, 0.2, 0.25)
    pattern: str = "plain"
    scale: float = 6.0
    gloss: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class Dress:
    """What is worn.

    Attributes:
        top: Cloth of shirt or dress.
        sleeve: Where sleeves end: 0 none, 1 at the elbow, 2 at the wrist.
        loose: Ease of the top in centimetres.
        neckline: ``round``, ``v``, ``collar``, ``high``, ``boat`` or ``straps``.
        hem: Height at which the top ends, as a fraction of the body's height; 0.6 is tucked in at the waist.
        bottom: Cloth of trousers or skirt.
        kind: ``trousers``, ``skirt`` (a dress where ``bottom`` is the top's cloth) or ``shorts``.
        leg: Where the bottom ends: 0 at the hip, 1 at the knee, 2 at the ankle.
        width: Ease of the bottom in centimetres.
        flare: How much wider the bottom is at its end, in centimetres.
        belt: Colour of a belt, if one is worn.
        jacket: Cloth of an open jacket or coat, if one is worn.
        jacket_hem: Height at which it ends, as a fraction of the body's height.
        gap: Half the opening of the jacket in degrees round the body.
        shoe: Colour of the shoes.
        sole: Colour of their soles.
        boot: How far boots reach up the shank, 0 to 1.
        heel: Height of the heels in centimetres.
        sash: Colour of a cloth belt with hanging ends, if one is worn.
    """

    top: Cloth = field(default_factory=Cloth)
    sleeve: float = 0.7
    loose: float = 1.2
    neckline: str = "round"
    hem: float = 0.55
    bottom: Cloth = field(default_factory=lambda: Cloth((0.2, 0.25, 0.4)))
    kind: str = "trousers"
    leg: float = 1.97
    width: float = 1.2
    flare: float = 0.0
    belt: Colour | None = None
    jacket: Cloth | None = None
    jacket_hem: float = 0.5
    gap: float = 18.0
    shoe: Colour = (0.15, 0.13, 0.12)
    sole: Colour = (0.85, 0.85, 0.83)
    boot: float = 0.0
    heel: float = 0.0
    sash: Colour | None = None


@dataclass(frozen=True)
class Body:
    """Who it is: build, looks and clothes. Draw one with :func:`sample_body`."""

    figure: Figure = field(default_factory=Figure)
    look: Look = field(default_factory=Look)
    dress: Dress = field(default_factory=Dress)


@dataclass(frozen=True)
class Arm:
    """Angles of an arm in degrees; both arms alike, mirrored.

    Attributes:
        lift: Of the upper arm: 0 hangs, 90 is level, 180 is straight up.
        around: Where it is lifted to: 0 to the side, 90 to the front, 180 across the chest, -60 to the back.
        twist: About the upper arm's own axis; positive turns the bent forearm outwards (or up, if the arm is out).
        elbow: 0 straight, 140 fully bent.
        turn: Of the forearm: 0 thumb to the front of a hanging arm, 90 palm to the back, -90 palm to the front.
        wrist: Bend towards the palm.
        slant: Bend towards the thumb.
        fingers: Curl of thumb, index, middle, ring and little finger: 0 straight, 1 a fist.
        spread: Of the fingers: 0 closed, 1 spread.
        shrug: Of the shoulder, in degrees about the breastbone.
    """

    lift: float = 8.0
    around: float = 10.0
    twist: float = 0.0
    elbow: float = 14.0
    turn: float = 20.0
    wrist: float = 0.0
    slant: float = 0.0
    fingers: tuple[float, float, float, float, float] = (0.2, 0.25, 0.3, 0.32, 0.35)
    spread: float = 0.15
    shrug: float = 0.0


@dataclass(frozen=True)
class Leg:
    """Angles of a leg in degrees; both legs alike, mirrored.

    Attributes:
        flex: Of the hip: positive lifts the thigh to the front.
        spread: To the side.
        twist: Positive turns the foot outwards.
        knee: 0 straight, 140 fully bent.
        flat: 1 keeps the sole level, 0 keeps it square to the shank.
        pitch: Positive lifts the toes, added to what ``flat`` gives.
        turn: Of the foot, positive outwards.
    """

    flex: float = 0.0
    spread: float = 2.5
    twist: float = 7.0
    knee: float = 3.0
    flat: float = 1.0
    pitch: float = 0.0
    turn: float = 0.0


@dataclass(frozen=True)
class Pose:
    """Angles of all joints in degrees, and what the face does.

    Attributes:
        turn: Of the whole body about the vertical, positive to its left (the image's right).
        lean: Of the pelvis to the front.
        tilt: Of the pelvis to its left.
        place: Where the pelvis is, in centimetres; y counts from standing height and matters only if not grounded.
        waist: Bend to the front, twist to the left, tilt to the left, above the pelvis.
        chest: The same, above the waist.
        head: The same of neck and head together; a positive bend looks down.
        left_arm: See :class:`Arm`.
        right_arm: See :class:`Arm`.
        left_leg: See :class:`Leg`.
        right_leg: See :class:`Leg`.
        grounded: Whether the lowest foot is put on the ground.
        mouth: 0 closed, 1 wide open.
        smile: -0.5 to 1.
        blink: 0 open eyes, 1 closed.
        gaze: To the person's left and up, -1 to 1.
    """

    turn: float = 0.0
    lean: float = 0.0
    tilt: float = 0.0
    place: tuple[float, float, float] = (0.0, 0.0, 0.0)
    waist: tuple[float, float, float] = (0.0, 0.0, 0.0)
    chest: tuple[float, float, float] = (0.0, 0.0, 0.0)
    head: tuple[float, float, float] = (0.0, 0.0, 0.0)
    left_arm: Arm = field(default_factory=Arm)
    right_arm: Arm = field(default_factory=Arm)
    left_leg: Leg = field(default_factory=Leg)
    right_leg: Leg = field(default_factory=Leg)
    grounded: bool = True
    mouth: float = 0.0
    smile: float = 0.2
    blink: float = 0.0
    gaze: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Posed:
    """A body in its pose.

    Attributes:
        surfaces: What to draw.
        joints: Place ``(3,)`` of each joint by name; see :data:`JOINTS`.
        reach: How deep below the skin (or the cloth over it) each joint lies, in centimetres.
    """

    surfaces: list[Surface]
    joints: dict[str, Array]
    reach: dict[str, float]

    def places(self, names: Sequence[str]) -> Array:
        """Places ``(L, 3)`` of the named joints."""
        return np.array([self.joints[name] for name in names])

    def radii(self, names: Sequence[str]) -> Array:
        """How deep the named joints lie, ``(L,)``."""
        return np.array([self.reach[name] for name in names])

    def moved(self, matrix: Array, offset: Array | tuple[float, float, float] = (0, 0, 0)) -> Posed:
        """The body seen from elsewhere: everything at ``matrix @ p + offset``."""
        joints = {name: np.asarray(matrix) @ p + np.asarray(offset) for name, p in self.joints.items()}
        return Posed([s.moved(matrix, offset) for s in self.surfaces], joints, self.reach)


_CENTRAL = ("pelvis", "spine", "thorax", "neck", "head", "head_top", "nose", "mouth")
_PAIRED = (
    "eye", "ear", "shoulder", "elbow", "wrist", "thumb", "hand", "hip", "knee", "ankle", "toe_base", "toe",
)  # fmt: skip
JOINTS = (*_CENTRAL, *(f"{side}_{name}" for side in SIDES for name in _PAIRED))
"""Names of the joints: ``thorax`` is the base of the neck, ``neck`` its top, ``head`` the middle of the head; ``thumb``
and ``hand`` are the tips of thumb and middle finger; ``toe_base`` the ball of the foot."""


# ---------------------------------------------------------------------------------------------- rotations


def rotate(axis: str, degrees: float) -> Array:
    """Rotation matrix ``(3, 3)`` about ``x``, ``y`` or ``z``, right-handed."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    if axis == "x":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _bend(angles: Sequence[float]) -> Array:
    """Bend to the front, twist to the left, tilt to the left."""
    forward, twist, tilt = angles
    return rotate("y", twist) @ rotate("z", -tilt) @ rotate("x", forward)


def _about(axis: Array, degrees: float) -> Array:
    x, y, z = axis
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    a = np.radians(degrees)
    return np.eye(3) + np.sin(a) * k + (1 - np.cos(a)) * (k @ k)


def _square(matrices: Array) -> Array:
    """Make blended rotations ``(..., 3, 3)`` rotations again, keeping their y axis."""
    y = r.unit(matrices[..., :, 1])
    x = matrices[..., :, 0]
    x = r.unit(x - (x * y).sum(-1, keepdims=True) * y)
    return np.stack([x, y, r.cross(x, y)], -1)


def _lifted(arm: Arm, side: float) -> Array:
    a = np.radians(arm.around)
    return _about(np.array([-np.sin(a), 0, side * np.cos(a)]), arm.lift)


def _thigh(leg: Leg, side: float) -> Array:
    return rotate("z", side * leg.spread) @ rotate("x", -leg.flex)


# ---------------------------------------------------------------------------------------------- skeleton


@dataclass(frozen=True)
class _Bones:
    """Lengths in centimetres, and the heights of the torso's joints in the rest pose."""

    height: float
    hip: float
    hip_x: float
    waist: float
    chest: float
    neck: float
    skull: float
    shoulder: Array
    upper: float
    fore: float
    thigh: float
    shank: float
    ankle: float
    foot: float
    head: float
    lift: float

    @classmethod
    def of(cls, body: Body) -> _Bones:
        f = body.figure
        h = f.height
        leg = 0.245 * h * f.legs
        ankle = 0.039 * h
        hip = ankle + 2 * leg
        # What longer legs take, the torso gives.
        scale = (0.818 * h - hip) / (0.818 * h - 0.529 * h)
        at = lambda y: hip + (y - 0.529) * h * scale  # noqa: E731
        shoulder = np.array([0.103 * h * f.shoulders, at(0.791), -0.008 * h])
        return cls(
            h, hip, 0.049 * h * f.hips, at(0.60), at(0.69), at(0.826), 0.888 * h, shoulder, 0.178 * h * f.arms,
            0.148 * h * f.arms, leg, leg, ankle, 0.150 * h, 0.131 * h * f.head / 22.8,
            body.dress.heel * float(smoothstep(0.5, -0.1, 0.0)),
        )  # fmt: skip


@dataclass(frozen=True)
class _Frames:
    """Where every bone is: rotation ``(3, 3)`` and origin ``(3,)`` by name."""

    turn: dict[str, Array]
    at: dict[str, Array]

    def put(self, name: str, points: Array) -> Array:
        """Points of a bone's own frame, wherever the bone is."""
        return points @ self.turn[name].T + self.at[name]


def measures(body: Body) -> dict[str, float]:
    """Lengths of a body in centimetres: heights of ``hip`` and ``ankle`` when standing, ``hip_x`` and ``shoulder_x``
    from the middle, ``arm`` from shoulder to wrist, ``leg`` from hip to ankle, and the whole ``height``."""
    b = _Bones.of(body)
    return {
        "height": b.height, "hip": b.hip, "ankle": b.ankle, "hip_x": b.hip_x, "shoulder_x": float(b.shoulder[0]),
        "arm": b.upper + b.fore, "leg": b.thigh + b.shank,
    }  # fmt: skip


def pose_joints(body: Body, pose: Pose) -> dict[str, Array]:
    """The joints that :func:`pose_body` gives, without building the surfaces: quick, for framing a video."""
    bones = _Bones.of(body)
    return _joints(_Model(body, pose, bones, _frames(bones, pose)))


def _spine(bones: _Bones, pose: Pose) -> _Frames:
    """Pelvis, waist, chest, neck and head."""
    turn, at = {}, {}
    turn["pelvis"] = rotate("y", pose.turn) @ _bend((pose.lean, 0, pose.tilt))
    at["pelvis"] = np.array([0, bones.hip, 0]) + np.asarray(pose.place, float)
    chain = (
        ("waist", "pelvis", (0, bones.waist - bones.hip, -0.008 * bones.height), pose.waist),
        ("chest", "waist", (0, bones.chest - bones.waist, 0), pose.chest),
        ("neck", "chest", (0, bones.neck - bones.chest, -0.006 * bones.height), tuple(0.4 * a for a in pose.head)),
        ("head", "neck", (0, bones.skull - bones.neck, 0.012 * bones.height), tuple(0.6 * a for a in pose.head)),
    )
    for name, parent, offset, angles in chain:
        at[name] = at[parent] + turn[parent] @ np.array(offset)
        turn[name] = turn[parent] @ _bend(angles)
    return _Frames(turn, at)


def _shoulder(bones: _Bones, arm: Arm, side: float) -> Array:
    """The shoulder joint in the chest's frame; a lifted arm takes it up and in."""
    x, y, z = bones.shoulder
    root = np.array([0.02 * bones.height, y - 0.008 * bones.height - bones.chest, 0.01 * bones.height])
    rest = np.array([x, y - bones.chest, z])
    a = np.radians(arm.around)
    rise = 0.30 * max(arm.lift - 35, 0) * (0.55 + 0.45 * np.cos(a)) + 0.18 * max(arm.lift - 60, 0) + arm.shrug
    forward = 0.22 * arm.lift * np.sin(a)
    lifted = root + rotate("z", float(np.clip(rise, -10, 38))) @ rotate("y", -float(np.clip(forward, -14, 26))) @ (
        rest - root
    )
    return lifted * np.array([side, 1, 1])


def _frames(bones: _Bones, pose: Pose) -> _Frames:
    """All bones; the lowest foot on the ground where the pose says so."""
    frames = _spine(bones, pose)
    turn, at = frames.turn, frames.at
    for name, side in zip(SIDES, (1.0, -1.0), strict=True):
        arm: Arm = getattr(pose, f"{name}_arm")
        leg: Leg = getattr(pose, f"{name}_leg")
        at[f"{name}_upper"] = frames.put("chest", _shoulder(bones, arm, side))
        turn[f"{name}_upper"] = turn["chest"] @ _lifted(arm, side) @ rotate("y", side * arm.twist)
        at[f"{name}_fore"] = frames.put(f"{name}_upper", np.array([0, -bones.upper, 0]))
        turn[f"{name}_fore"] = turn[f"{name}_upper"] @ rotate("x", -arm.elbow)
        at[f"{name}_hand"] = frames.put(f"{name}_fore", np.array([0, -bones.fore, 0]))
        twisted = turn[f"{name}_fore"] @ rotate("y", -side * arm.turn)
        turn[f"{name}_roll"] = twisted
        turn[f"{name}_hand"] = twisted @ rotate("z", -side * arm.wrist) @ rotate("x", -arm.slant)
        at[f"{name}_thigh"] = frames.put("pelvis", np.array([side * bones.hip_x, 0, 0]))
        turn[f"{name}_thigh"] = turn["pelvis"] @ _thigh(leg, side) @ rotate("y", side * leg.twist)
        at[f"{name}_shank"] = frames.put(f"{name}_thigh", np.array([0, -bones.thigh, 0]))
        turn[f"{name}_shank"] = turn[f"{name}_thigh"] @ rotate("x", leg.knee)
        at[f"{name}_foot"] = frames.put(f"{name}_shank", np.array([0, -bones.shank, 0]))
        turn[f"{name}_foot"] = _foot(turn[f"{name}_shank"], leg, side)
    if pose.grounded:
        low = min(float(_sole(bones, frames, name)[:, 1].min()) for name in SIDES)
        for name in at:
            at[name] = at[name] - np.array([0, low, 0])
    return frames


def _foot(shank: Array, leg: Leg, side: float) -> Array:
    # The heading of the shank: its front where it is upright, its underside where it lies.
    ahead = shank[:, 2] + np.clip(shank[1, 2], -1, 1) * -shank[:, 1]
    level = rotate("y", float(np.degrees(np.arctan2(ahead[0], ahead[2]))))
    base = _square(leg.flat * level + (1 - leg.flat) * shank)
    return base @ rotate("y", side * leg.turn) @ rotate("x", -leg.pitch)


def _sole(bones: _Bones, frames: _Frames, name: str) -> Array:
    points = np.array(
        [[0, -bones.ankle - bones.lift, -0.24 * bones.foot], [0, -bones.ankle - bones.lift, 0.76 * bones.foot]]
    )
    return frames.put(f"{name}_foot", points)


def reach_arm(body: Body, pose: Pose, side: str, wrist: Array, swivel: float = 0.0) -> Pose:
    """Bend an arm so that its wrist comes to a place.

    Args:
        body: Whose arm.
        pose: The pose of everything else.
        side: ``left`` or ``right``, of the person.
        wrist: ``(3,)``, centimetres from the base of the neck in the chest's frame: x to the person's left, y up, z
            to the front. A place out of reach is approached.
        swivel: Degrees by which the elbow is turned outwards and up from where it hangs.

    Returns:
        The pose with that arm's ``lift``, ``around``, ``twist`` and ``elbow`` set.
    """
    bones, sign = _Bones.of(body), 1.0 if side == "left" else -1.0
    name = f"{side}_arm"
    arm: Arm = getattr(pose, name)
    target = np.asarray(wrist, float) + np.array([0, bones.neck - bones.chest, 0])
    # The shoulder moves with the arm: two rounds settle it.
    for _ in range(3):
        arm = _solve_arm(bones, arm, sign, target, swivel)
    return replace(pose, **{name: arm})  # type: ignore[arg-type]


def _solve_arm(bones: _Bones, arm: Arm, side: float, target: Array, swivel: float) -> Arm:
    shoulder = _shoulder(bones, arm, side)
    way = r.unit(target - shoulder)
    # The elbow hangs down and back; of a hand that is held high it points outwards.
    high = float(smoothstep(-0.2, 0.8, way[1]))
    hang = np.array([side * (0.40 + high), 0.30 * high - 0.85, 0.35 * high - 0.65])
    pole = _about(way, side * swivel) @ hang
    elbow, hand = _two_bones(shoulder, target, bones.upper, bones.fore, pole)
    d = (elbow - shoulder) / bones.upper
    lift = float(np.degrees(np.arccos(np.clip(-d[1], -1, 1))))
    around = float(np.degrees(np.arctan2(d[2], side * d[0])))
    bent = replace(arm, lift=lift, around=around)
    v = _lifted(bent, side).T @ (hand - elbow) / bones.fore
    flex = float(np.degrees(np.arccos(np.clip(-v[1], -1, 1))))
    return replace(bent, twist=float(side * np.degrees(np.arctan2(v[0], v[2]))), elbow=flex)


def plant_leg(body: Body, pose: Pose, side: str, ankle: Array, heading: float = 10.0, out: float = 0.0) -> Pose:
    """Bend a leg so that its ankle comes to a place, the foot level.

    Args:
        body: Whose leg.
        pose: The pose of everything else; ``lean`` and ``tilt`` of the pelvis are allowed for.
        side: ``left`` or ``right``, of the person.
        ankle: ``(3,)``, centimetres from the middle of the hips, in a frame that turns with the body but does not
            lean: x to the person's left, y up (so negative), z to the front.
        heading: Of the foot, degrees outwards; the knee bends that way.
        out: Degrees by which the knee opens further than the foot.

    Returns:
        The pose with that leg's angles set; keep ``grounded``, or put the pelvis at the right height.
    """
    bones, sign = _Bones.of(body), 1.0 if side == "left" else -1.0
    lean = _bend((pose.lean, 0, pose.tilt))
    hip = np.array([sign * bones.hip_x, 0, 0])
    target = lean.T @ np.asarray(ankle, float)
    a = np.radians(heading + out)
    pole = lean.T @ np.array([sign * np.sin(a), 0.15, np.cos(a)])
    knee, foot = _two_bones(hip, target, bones.thigh, bones.shank, pole)
    d = (knee - hip) / bones.thigh
    flex, spread = np.degrees(np.arcsin(np.clip(d[2], -1, 1))), np.degrees(np.arctan2(sign * d[0], -d[1]))
    leg = replace(getattr(pose, f"{side}_leg"), flex=float(flex), spread=float(spread), twist=0.0)
    v = _thigh(leg, sign).T @ (foot - knee) / bones.shank
    bend = float(np.degrees(np.arccos(np.clip(-v[1], -1, 1))))
    twist = float(sign * np.degrees(np.arctan2(-v[0], -v[2]))) if bend > 1 else heading
    leg = replace(leg, twist=twist, knee=bend, flat=1.0, pitch=0.0, turn=0.0)
    shank = lean @ _thigh(leg, sign) @ rotate("y", sign * twist) @ rotate("x", bend)
    level = _foot(shank, leg, sign)
    now = np.degrees(np.arctan2(level[0, 2], level[2, 2]))
    turned = (heading - sign * now + 180) % 360 - 180
    return replace(pose, **{f"{side}_leg": replace(leg, turn=float(turned))})  # type: ignore[arg-type]


def _two_bones(root: Array, target: Array, first: float, second: float, pole: Array) -> tuple[Array, Array]:
    """Where the middle joint and the end of two bones come to lie."""
    way = target - root
    distance = float(np.clip(np.linalg.norm(way), abs(first - second) + 0.05 * first, 0.998 * (first + second)))
    along = r.unit(way)
    side = r.unit(pole - (pole @ along) * along)
    cosine = (first**2 + distance**2 - second**2) / (2 * first * distance)
    middle = root + first * (cosine * along + np.sqrt(max(1 - cosine**2, 0)) * side)
    return middle, root + distance * along


def blend_poses(a: Pose, b: Pose, t: float) -> Pose:
    """The pose a part ``t`` of the way from ``a`` to ``b``; every number is interpolated."""
    blended: Pose = blend(a, b, t)
    return blended


def blend(a: Any, b: Any, t: float) -> Any:
    """Numbers, tuples or dataclasses of one kind, interpolated a part ``t`` of the way from ``a`` to ``b``."""
    if isinstance(a, bool):
        return a
    if isinstance(a, int | float):
        return a + (b - a) * t
    if isinstance(a, tuple):
        return tuple(blend(p, q, t) for p, q in zip(a, b, strict=True))
    return replace(a, **{k: blend(v, getattr(b, k), t) for k, v in vars(a).items()})


# ---------------------------------------------------------------------------------------------- cloth

PATTERNS = (
    "plain", "stripes", "pinstripes", "gingham", "plaid", "dots", "floral", "denim", "knit", "graphic", "block",
    "mottled",
)  # fmt: skip


def _noise(seed: int, side: int = 32) -> Array:
    return np.random.default_rng(seed).normal(0, 1, (side, side)).astype(np.float32)


def _mix(base: Array, colour: Array | Colour, amount: Array) -> Array:
    return base + (np.asarray(colour) - base) * amount[:, None]


def cloth_paint(cloth: Cloth) -> Paint:
    """Paint for texture coordinates: rest is (round the body, height, anything), in centimetres of a tall body."""
    grid, first, second, third = _noise(cloth.seed), *map(np.array, (cloth.colour, cloth.second, cloth.third))

    def paint(rest: Array, u: Array, v: Array) -> Array:
        s, t = rest[:, 0], rest[:, 1]
        one, two = _pattern(cloth, grid, s, t)
        colour = _mix(_mix(np.broadcast_to(first, (len(s), 3)), second, one), third, two)
        # Folds: long soft ones and a few sharp creases.
        soft = r.value_noise(grid, s / 5 + 7, t / 17)
        crease = r.value_noise(grid, s / 8 + t / 26, t / 9 - s / 30)
        return np.clip(
            colour * (1 + 0.06 * soft - 0.07 * bump(crease / 0.35) * smoothstep(-0.2, 0.9, soft))[:, None], 0.01, 1
        )

    return paint


def _pattern(cloth: Cloth, grid: Array, s: Array, t: Array) -> tuple[Array, Array]:
    """How much of the second and the third colour shows."""
    none, p = np.zeros(len(s)), cloth.scale
    across, up = np.sin(2 * np.pi * s / p), np.sin(2 * np.pi * t / p)
    if cloth.pattern == "stripes":
        return smoothstep(-0.15, 0.15, up), none
    if cloth.pattern == "pinstripes":
        return smoothstep(0.75, 0.9, across), none
    if cloth.pattern == "gingham":
        return 0.5 * smoothstep(-0.15, 0.15, across) + 0.5 * smoothstep(-0.15, 0.15, up), none
    if cloth.pattern == "plaid":
        thin = np.maximum(smoothstep(0.86, 0.96, np.sin(2 * np.pi * s / p + 1.6)), smoothstep(0.86, 0.96, -up))
        return 0.45 * smoothstep(0.1, 0.4, across) + 0.45 * smoothstep(0.1, 0.4, up), 0.8 * thin
    if cloth.pattern == "dots":
        row = np.floor(t / p)
        x, y = (s / p + 0.5 * (row % 2)) % 1 - 0.5, (t / p) % 1 - 0.5
        return smoothstep(0.30, 0.24, np.hypot(x, y)), none
    if cloth.pattern == "floral":
        a, b = r.value_noise(grid, s / p * 2, t / p * 2), r.value_noise(grid, s / p * 2.3 + 9, t / p * 2.3 + 5)
        return smoothstep(0.30, 0.45, a), smoothstep(0.55, 0.7, b)
    if cloth.pattern == "denim":
        worn = bump(s / 9) * (0.5 + 0.5 * r.value_noise(grid, s / 9, t / 16))
        return np.clip(0.10 * r.value_noise(grid, s * 1.3, t * 1.3) + 0.28 * worn, 0, 1), none
    if cloth.pattern == "knit":
        return 0.18 + 0.18 * np.sin(2 * np.pi * s / 1.8), none
    if cloth.pattern == "graphic":
        x, y = s, t - 0.715 * TALL
        inside = smoothstep(9.5, 9.0, np.abs(x)) * smoothstep(p, p - 0.6, np.abs(y))
        marks = r.value_noise(grid, x / 3, y / 2.2)
        return inside * smoothstep(-0.35, -0.2, marks), inside * smoothstep(0.55, 0.7, marks)
    if cloth.pattern == "block":
        return smoothstep(-0.6, 0.6, t - (0.66 * TALL + p)), none
    if cloth.pattern == "mottled":
        return smoothstep(-0.8, 1.0, r.value_noise(grid, s / p, t / p)), none
    return none, none


# ---------------------------------------------------------------------------------------------- grids


@dataclass(frozen=True)
class _Grid:
    """Points ``(R, C, 3)`` and texture coordinates of the same shape."""

    points: Array
    rest: Array


def _rings(centres: Array, axes: Array, radii: Array, columns: int, squareness: float = 0.0) -> Array:
    """Rings round ``centres`` ``(M, 3)``, from the lowest up; ``axes`` ``(M, 3, 3)``: x across, z to the front."""
    angle = np.linspace(-np.pi, np.pi, columns)
    power = 1 - 0.6 * squareness
    s, c = np.sin(angle), np.cos(angle)
    s, c = np.sign(s) * np.abs(s) ** power, np.sign(c) * np.abs(c) ** power
    across = s[None, :, None] * (radii[:, :1] * axes[:, :, 0])[:, None]
    return centres[:, None] + across + c[None, :, None] * (radii[:, 1:] * axes[:, :, 2])[:, None]


def _closed(grid: _Grid) -> _Grid:
    """With both ends drawn together to a point."""
    ends = [np.broadcast_to(grid.points[k].mean(0), grid.points[k].shape)[None] for k in (0, -1)]
    rest = np.concatenate([grid.rest[:1], grid.rest, grid.rest[-1:]])
    return _Grid(np.concatenate([ends[0], grid.points, ends[1]]), rest)


def _chain(grids: Sequence[_Grid]) -> _Grid:
    """Closed grids of equally many columns as one; what joins them has no area."""
    closed = [_closed(g) for g in grids]
    return _Grid(np.concatenate([g.points for g in closed]), np.concatenate([g.rest for g in closed]))


def _surface(grid: _Grid, paint: Paint | Colour, gloss: float = 0.1, part: int = 0, **flags: bool) -> Surface:
    return Surface(grid.points, paint, gloss, part, rest=grid.rest, **flags)


SKIN, TORSO, HEAD, HAIR, LEGS, ARMS, SHOES, SKIRT, JACKET = range(9)

# Sections of limbs: how far along (1 is elbow or knee, 2 wrist or ankle), centre across and to the front, half width
# and half depth, as fractions of the body's height.
_ARM = np.array([
    (-0.115, -0.008, 0, 0.010, 0.012), (-0.085, -0.005, 0, 0.020, 0.022), (-0.02, -0.001, 0, 0.029, 0.031),
    (0.16, 0.001, 0, 0.033, 0.035),
    (0.36, 0.001, 0.001, 0.0285, 0.0315), (0.6, 0, 0.001, 0.0255, 0.0285), (0.86, 0, 0, 0.0232, 0.0252),
    (1.0, 0, -0.001, 0.0232, 0.0242), (1.13, 0.001, 0, 0.0245, 0.0252), (1.32, 0, 0, 0.0238, 0.0242),
    (1.56, 0, 0, 0.0202, 0.0205), (1.8, 0, 0, 0.0158, 0.0178), (2.0, 0, 0, 0.0122, 0.0160),
    (2.05, 0, 0, 0.0118, 0.0158),
])  # fmt: skip
_LEG = np.array([
    (-0.16, -0.006, -0.004, 0.020, 0.024), (-0.10, -0.003, -0.004, 0.035, 0.040), (0.0, 0.001, -0.005, 0.0485, 0.056),
    (0.12, 0.003, -0.004, 0.053, 0.0595), (0.3, 0.002, 0.001, 0.049, 0.054), (0.5, 0, 0.003, 0.0425, 0.048),
    (0.7, 0, 0.003, 0.0365, 0.0415), (0.88, 0, 0.002, 0.0325, 0.0365), (1.0, 0, 0.001, 0.0312, 0.0352),
    (1.1, 0, -0.003, 0.0305, 0.0338), (1.22, 0.001, -0.007, 0.0322, 0.0352), (1.36, 0.001, -0.0085, 0.0325, 0.0345),
    (1.52, 0, -0.006, 0.0288, 0.0308), (1.7, 0, -0.003, 0.0225, 0.0245), (1.88, 0, -0.001, 0.0182, 0.0215),
    (2.0, 0, -0.001, 0.0190, 0.0230), (2.1, 0, 0, 0.018, 0.022),
])  # fmt: skip


@dataclass(frozen=True)
class _Model:
    """One body in one pose, while its surfaces are built."""

    body: Body
    pose: Pose
    bones: _Bones
    frames: _Frames

    @property
    def h(self) -> float:
        return self.bones.height

    def limb(self, names: tuple[str, ...], side: float, sections: Array, columns: int, squareness: float = 0) -> _Grid:
        """A limb of two bones; a third name gives the frame to which the end of the second is twisted."""
        first, second = names[:2]
        lengths = (self.bones.upper, self.bones.fore) if "upper" in first else (self.bones.thigh, self.bones.shank)
        sections = sections[::-1]
        at = sections[:, 0]
        along = np.where(at < 1, at, 1.0) * lengths[0], np.maximum(at - 1, 0) * lengths[1]
        a = np.stack([0 * at, -(along[0] + along[1]), 0 * at], 1)
        b = np.stack([0 * at, -(along[0] - lengths[0] + along[1]), 0 * at], 1)
        w = smoothstep(0.86, 1.14, at)
        axes = (1 - w)[:, None, None] * self.frames.turn[first] + w[:, None, None] * self.frames.turn[second]
        if len(names) > 2:
            end = smoothstep(1.2, 2.0, at)[:, None, None]
            axes = (1 - end) * axes + end * self.frames.turn[names[2]]
        axes = _square(axes)
        centres = (1 - w)[:, None] * self.frames.put(first, a) + w[:, None] * self.frames.put(second, b)
        offset = np.stack([side * sections[:, 1], 0 * at, sections[:, 2]], 1) * self.h
        centres = centres + (axes @ offset[..., None])[..., 0]
        points = _rings(centres, axes, sections[:, 3:] * self.h, columns, squareness)
        angle = np.linspace(-np.pi, np.pi, columns)
        top = 0.80 if "upper" in first else 0.53
        scale = (0.178, 0.148) if "upper" in first else (0.245, 0.245)
        height = TALL * (top - scale[0] * np.minimum(at, 1) - scale[1] * np.maximum(at - 1, 0))
        wide = 5.0 if "upper" in first else 8.0
        rest = np.stack(np.broadcast_arrays(wide * angle[None], height[:, None], at[:, None]), -1)
        return _Grid(points, rest)

    def arm_sections(self) -> Array:
        f = self.body.figure
        thick = 0.5 * (1 + f.girth) * (1 + 0.07 * f.male)
        return _ARM * np.array([1, 1, 1, thick, thick])

    def leg_sections(self) -> Array:
        f = self.body.figure
        table = _LEG * np.array([1, 1, 1, f.girth**0.7, f.girth**0.7])
        table[:, 3:] *= (1 - 0.04 * f.male * smoothstep(1.0, 0.2, table[:, 0]))[:, None]
        return table


def _part_of(table: Array, start: float, end: float) -> Array:
    """Rows of ``table`` from ``start`` to ``end`` of its first column, both ends interpolated."""
    at = table[:, 0]
    wanted = np.concatenate([[start], at[(at > start + 0.02) & (at < end - 0.02)], [end]])
    return np.stack([np.interp(wanted, at, column) for column in table.T], 1)


def _eased(table: Array, ease: Array | float, height: float) -> Array:
    """Sections widened by ``ease`` centimetres."""
    grown = table.copy()
    grown[:, 3:] += (np.broadcast_to(np.asarray(ease, float), (len(table),)) / height)[:, None]
    return grown


# ---------------------------------------------------------------------------------------------- torso

# Height, half width, half depth, centre to the front: fractions of the height of a body of ordinary proportions.
_MALE = np.array([
    (0.462, 0.040, 0.038, -0.002), (0.475, 0.070, 0.050, -0.002), (0.495, 0.088, 0.060, -0.003),
    (0.520, 0.094, 0.064, -0.005), (0.545, 0.092, 0.063, -0.005), (0.575, 0.086, 0.058, -0.001),
    (0.605, 0.082, 0.056, 0.001), (0.640, 0.084, 0.058, 0.002), (0.680, 0.091, 0.063, 0.002),
    (0.715, 0.098, 0.067, 0.002), (0.745, 0.104, 0.068, 0.000), (0.770, 0.110, 0.064, -0.003),
    (0.790, 0.117, 0.056, -0.007), (0.803, 0.117, 0.048, -0.009), (0.815, 0.104, 0.041, -0.011),
    (0.826, 0.081, 0.037, -0.012), (0.836, 0.059, 0.035, -0.012), (0.846, 0.043, 0.034, -0.010),
    (0.854, 0.036, 0.033, -0.008),
])  # fmt: skip
_FEMALE = np.array([
    (0.462, 0.042, 0.040, -0.002), (0.475, 0.075, 0.051, -0.003), (0.495, 0.095, 0.061, -0.004),
    (0.520, 0.101, 0.066, -0.007), (0.545, 0.099, 0.064, -0.006), (0.575, 0.087, 0.056, -0.002),
    (0.605, 0.074, 0.050, 0.001), (0.640, 0.072, 0.050, 0.002), (0.680, 0.079, 0.055, 0.002),
    (0.715, 0.086, 0.059, 0.002), (0.745, 0.093, 0.060, 0.000), (0.770, 0.102, 0.057, -0.003),
    (0.790, 0.111, 0.051, -0.007), (0.803, 0.112, 0.044, -0.009), (0.815, 0.098, 0.037, -0.011),
    (0.826, 0.074, 0.033, -0.012), (0.836, 0.052, 0.031, -0.012), (0.846, 0.037, 0.030, -0.010),
    (0.854, 0.031, 0.029, -0.008),
])  # fmt: skip


def _torso_sections(model: _Model, rows: Array) -> Array:
    """Half width, half depth and centre ``(R, 3)`` of the naked torso at heights of ordinary proportions."""
    f = model.body.figure
    mix = 0.5 * (1 + f.male)
    table = mix * _MALE + (1 - mix) * _FEMALE
    w, d, c = (np.interp(rows, table[:, 0], table[:, k]) for k in (1, 2, 3))
    hips, ribs = smoothstep(0.60, 0.54, rows), smoothstep(0.66, 0.76, rows)
    waist = 1 - hips - ribs
    wide = hips * f.hips + ribs * f.shoulders + waist * f.waist
    thick = 0.45 + 0.55 * f.girth
    neck = smoothstep(0.80, 0.83, rows)
    w, d = w * wide * (thick + (1 - thick) * neck), d * (f.girth + (1 - f.girth) * neck)
    d = d * (1 + waist * (f.waist - 1))
    w = w + 0.018 * f.belly * bump((rows - 0.60) / 0.06)
    return np.stack([w, d, c], 1)


def _bulges(model: _Model, x: Array, y: Array, front: Array) -> Array:
    """What stands out of the ellipses, as a fraction of the height: breasts, belly, buttocks."""
    f = model.body.figure
    a = np.abs(x)
    bust = 0.026 * f.bust * bump((a - 0.042) / 0.032, (y - 0.722) / 0.030)
    chest = 0.006 * max(f.male, 0) * bump((a - 0.045) / 0.04, (y - 0.74) / 0.03)
    belly = 0.042 * f.belly * bump(x / 0.075, (y - 0.595) / 0.055)
    seat = 0.011 * bump((a - 0.042) / 0.036, (y - 0.520) / 0.030)
    return np.where(front > 0, bust + chest + belly, -seat)


def _torso(model: _Model, rows: Array, ease: Array, columns: int, angles: Array | None = None) -> _Grid:
    """The torso between heights, ``ease`` centimetres off the body at each, bent with the spine."""
    bones, h = model.bones, model.h
    sections = _torso_sections(model, rows)
    angle = np.linspace(-np.pi, np.pi, columns) if angles is None else angles
    s, c = np.sin(angle), np.cos(angle)
    power = 0.86
    s, c = np.sign(s) * np.abs(s) ** power, np.sign(c) * np.abs(c) ** power
    extra = (ease / h)[:, None]
    x = s * (sections[:, :1] + extra)
    front = np.broadcast_to(c, x.shape)
    z = c * (sections[:, 1:2] + extra) + sections[:, 2:]
    z = z + _bulges(model, x, rows[:, None], front) * np.abs(c) ** 0.5
    # Heights above the hips shrink where the legs are long.
    scale = (0.818 * h - bones.hip) / ((0.818 - 0.529) * h)
    y = bones.hip + (rows - 0.529) * h * np.where(rows < 0.529, 1.0, scale)
    # The neck's root lies lower at the throat than at the nape.
    throat = smoothstep(0.80, 0.85, rows)[:, None] * 0.0115 * (1 + c)
    points = np.stack([x * h, y[:, None] - throat * h, z * h], -1)
    rest = np.stack(np.broadcast_arrays(15 * angle[None], (TALL * rows)[:, None], x * TALL), -1)
    return _Grid(_skinned(model, points, rows), rest)


def _skinned(model: _Model, points: Array, rows: Array) -> Array:
    """Rest positions of the torso ``(R, C, 3)`` bent with pelvis, waist, chest and shoulders."""
    bones, frames, h = model.bones, model.frames, model.h
    low, high = smoothstep(0.565, 0.635, rows)[:, None, None], smoothstep(0.655, 0.73, rows)[:, None, None]
    back = np.array([0, 0, -0.008 * h])
    above = points - back - np.array([0, bones.chest, 0])
    for name, side in zip(SIDES, (1.0, -1.0), strict=True):
        shoulder = frames.turn["chest"].T @ (frames.at[f"{name}_upper"] - frames.at["chest"])
        rest = np.array([side, 1, 1]) * (bones.shoulder - np.array([0, bones.chest, 0]))
        share = smoothstep(0.03, 0.105, side * points[..., 0] / h) * smoothstep(0.70, 0.80, rows)[:, None]
        above = above + share[..., None] * 0.9 * (shoulder - rest)
    pelvis = frames.put("pelvis", points - np.array([0, bones.hip, 0]))
    waist = frames.put("waist", points - back - np.array([0, bones.waist, 0]))
    chest = frames.put("chest", above)
    return (1 - low) * pelvis + low * ((1 - high) * waist + high * chest)


_TORSO_ROWS = np.array([
    0.462, 0.468, 0.478, 0.492, 0.508, 0.525, 0.545, 0.565, 0.585, 0.605, 0.63, 0.655, 0.68, 0.702, 0.722, 0.742, 0.762,
    0.778, 0.792, 0.803, 0.812, 0.820, 0.828, 0.836, 0.845, 0.854,
])  # fmt: skip


def _ease(model: _Model, rows: Array) -> Array:
    """How far the clothes stand off the torso, in centimetres."""
    dress = model.body.dress
    hang = dress.loose * (1 - 0.85 * smoothstep(0.77, 0.83, rows)) + 0.3
    # A wide top hangs straight from the chest instead of following the waist.
    sections = _torso_sections(model, rows)
    widest = np.interp(0.72, rows, sections[:, 0])
    bridge = np.clip(widest - sections[:, 0], 0, None) * smoothstep(0.72, 0.66, rows) * model.h
    hang = hang + bridge * np.clip(dress.loose / 5, 0, 0.8) * smoothstep(0.5, 0.62, rows - dress.hem + 0.5)
    low = np.full(len(rows), 0.4 if dress.kind == "skirt" else 0.5 + 0.35 * min(dress.width, 3.0))
    hang = np.maximum(hang, (low + 0.6 + 0.3 * dress.width) * smoothstep(0.60, 0.56, rows))
    return np.where(rows > dress.hem, hang, low)


def _torso_surface(model: _Model) -> Surface:
    hem = model.body.dress.hem
    rows = np.sort(np.concatenate([_TORSO_ROWS[np.abs(_TORSO_ROWS - hem) > 0.006], [hem - 0.001, hem + 0.001]]))
    grid = _torso(model, rows, _ease(model, rows), 29)
    return _surface(grid, _torso_paint(model.body), model.body.dress.top.gloss, TORSO, wrap=True)


def _bare(neckline: str, t: Array, x: Array, front: Array) -> Array:
    """How much skin the neckline shows; heights and places in centimetres of a tall body."""
    a = np.abs(x)
    edge = {
        "round": np.where(front, 141.5 + 0.09 * a * a, 146.5),
        "boat": np.where(front, 143.0 + 0.012 * a * a, 145.0),
        "v": np.where(front, 130.5 + 1.75 * a, 146.5),
        "collar": np.where(front, 139.5 + 1.7 * a, 149.0),
        "high": np.full(len(a), 150.0),
        "straps": np.where(front, 133.0, 136.0),
    }[neckline]
    bare = smoothstep(-0.35, 0.35, t - edge)
    if neckline == "straps":
        bare = bare * (1 - smoothstep(2.3, 1.9, np.abs(a - 8.3)))
    return bare


def _torso_paint(body: Body) -> Paint:
    dress, skin = body.dress, np.array(body.look.skin)
    top, bottom = cloth_paint(dress.top), cloth_paint(dress.bottom)
    hem = dress.hem * TALL

    def paint(rest: Array, u: Array, v: Array) -> Array:
        s, t, x = rest.T
        front = np.abs(s) < 23.56
        colour = top(rest, u, v)
        if dress.neckline == "collar":
            a = np.abs(x)
            placket = smoothstep(1.3, 1.0, a) * front
            button = bump(x / 0.6, ((t + 3) % 8 - 4) / 0.6) * front
            lapel = smoothstep(3.8, 3.4, np.abs(t - (140.0 + 1.7 * a))) * smoothstep(134.5, 135.5, t) * front
            colour = colour * (1 - 0.10 * placket - 0.45 * button + 0.10 * lapel)[:, None]
            colour = colour * (1 - 0.35 * bump((a - 1.2) / 0.25) * placket)[:, None]
        bare = _bare(dress.neckline, t, x, front)
        edge = bump((bare - 0.5) / 0.45) * (dress.neckline != "straps")
        shade = 1 - 0.18 * bump(x / 1.2, (t - 118) / 16) * front
        colour = _mix(colour * (1 - 0.25 * edge)[:, None], skin, bare) * np.where(bare > 0.5, shade, 1)[:, None]
        low = smoothstep(0.2, -0.2, t - hem)
        trousers = bottom(rest, u, v)
        fly = bump((x - 0.5) / 0.5, (t - 94) / 9) * front + 0.8 * bump(x / 1.2) * smoothstep(91, 86, t)
        pocket = bump((np.abs(x) - 11 - 0.25 * (98 - t)) / 0.5) * (t < 101) * (t > 91) * front
        trousers = trousers * (1 - 0.28 * np.clip(fly + 0.6 * pocket, 0, 1))[:, None]
        if dress.kind == "skirt":
            trousers = np.broadcast_to(np.array(dress.bottom.colour), trousers.shape)
        colour = _mix(colour, trousers, low)
        if dress.belt is not None:
            band = smoothstep(1.9, 1.6, np.abs(t - (min(hem, 0.602 * TALL) - 2.0)))
            colour = _mix(colour, dress.belt, band)
            colour = _mix(colour, (0.75, 0.68, 0.45), band * smoothstep(2.2, 1.8, np.abs(x)) * front)
        under = bump((t - hem + 1.2) / 1.3) * (t < hem)
        return np.clip(colour * (1 - 0.3 * under)[:, None], 0.01, 1)

    return paint


# ---------------------------------------------------------------------------------------------- limbs


def _arms(model: _Model) -> list[Surface]:
    """Arms, hands and sleeves."""
    body, h = model.body, model.h
    bare, sleeves = [], []
    table = model.arm_sections()
    for name, side in zip(SIDES, (1.0, -1.0), strict=True):
        bones = (f"{name}_upper", f"{name}_fore", f"{name}_roll")
        start = -0.115 if body.dress.sleeve < 0.1 else max(body.dress.sleeve - 0.35, -0.115)
        bare.append(model.limb(bones, side, _part_of(table, start, 2.05), 13))
        bare.extend(_hand(model, name, side))
        if body.dress.sleeve >= 0.1:
            cut = _part_of(table, -0.115, min(body.dress.sleeve, 1.97))
            t = cut[:, 0]
            loose = 0.4 + body.dress.loose * (0.45 + 0.35 * t / 2) * smoothstep(-0.12, 0.3, t)
            if body.dress.sleeve > 1.8 and body.dress.flare < 5:
                loose = loose * (1 - 0.65 * smoothstep(1.7, 1.95, t))
            sleeves.append(model.limb(bones, side, _eased(cut, loose, h), 15))
    skin = _skin_paint(body.look)
    surfaces = [_surface(_chain(bare), skin, 0.35, SKIN, wrap=True)]
    cloth = body.dress.jacket or body.dress.top
    if cloth.pattern == "graphic":
        cloth = replace(cloth, pattern="plain")
    end = min(body.dress.sleeve, 1.97)
    for sleeve in sleeves:
        surfaces.append(
            _surface(sleeve, _hemmed(cloth_paint(cloth), end), cloth.gloss, ARMS, wrap=True, two_sided=True)
        )
    return surfaces


def _hemmed(paint: Paint, end: float) -> Paint:
    """A cloth with a seam near the end of the limb."""

    def seamed(rest: Array, u: Array, v: Array) -> Array:
        return paint(rest, u, v) * (1 - 0.25 * bump((rest[:, 2] - end + 0.06) / 0.02))[:, None]

    return seamed


def _skin_paint(look: Look) -> Paint:
    tone, grid = np.array(look.skin), _noise(look.seed + 3)

    def paint(rest: Array, u: Array, v: Array) -> Array:
        s, t, at = rest.T
        mottle = 0.025 * r.value_noise(grid, s / 3, t / 3)
        # Knuckles, elbows and knees are a little redder and darker.
        joint = bump((np.abs(at) - 1) / 0.08) + 0.8 * bump((at - 3) / 0.12)
        red = np.array([0.03, 0.10, 0.10])
        return np.clip(tone * (1 + mottle[:, None] - joint[:, None] * red), 0.01, 1)

    return paint


# Rings of the palm: distance from the wrist, half thickness, half width, in centimetres of a tall body.
_PALM = np.array(
    [(-0.6, 2.0, 2.7), (1.4, 1.7, 3.1), (4.0, 1.65, 3.8), (6.8, 1.45, 4.15), (9.0, 1.2, 4.1), (10, 0.8, 3.7)]
)
# Thumb to little finger: where each is rooted (down, to the thumb's side), length, radius.
_FINGERS = (
    (2.6, 2.9, 6.6, 1.05),
    (9.0, 2.95, 7.4, 0.88),
    (9.3, 1.0, 8.2, 0.90),
    (9.1, -0.95, 7.6, 0.86),
    (8.5, -2.75, 6.0, 0.76),
)


def _finger_path(side: float, which: int, curl: float, spread: float) -> tuple[Array, Array]:
    """Joints ``(4, 3)`` of a finger from its root and the frames ``(4, 3, 3)`` there, in the hand's frame."""
    down, across, length, _ = _FINGERS[which]
    root = np.array([0.0, -down, across])
    if which == 0:
        root = root + np.array([-side * 0.5, 0, 0])
        base = rotate("x", -48 + 40 * curl - 14 * spread) @ rotate("z", -side * (18 + 26 * curl))
        bends, parts = (12 + 30 * curl, 10 + 55 * curl), np.array([0.40, 0.33, 0.27])
    else:
        base = rotate("x", (-9, -2.5, 3, 9)[which - 1] * (0.25 + 1.4 * spread) * (1 - curl))
        base = base @ rotate("z", -side * (4 + 84 * curl))
        bends, parts = (3 + 100 * curl, 2 + 66 * curl), np.array([0.46, 0.30, 0.24])
    frames = [base]
    for bend in bends:
        frames.append(frames[-1] @ rotate("z", -side * bend))
    steps = [frame @ np.array([0, -length * part, 0]) for frame, part in zip(frames, parts, strict=True)]
    joints = np.array([root, *(root + np.cumsum(steps, 0))])
    blended = [frames[0], _square(frames[0] + frames[1]), _square(frames[1] + frames[2]), frames[2]]
    return joints, np.array(blended)


def _hand(model: _Model, name: str, side: float) -> list[_Grid]:
    """Palm and five fingers."""
    arm: Arm = getattr(model.pose, f"{name}_arm")
    scale = model.h / TALL * (1 + 0.05 * model.body.figure.male)
    palm = _PALM[::-1]
    centres = np.stack([0 * palm[:, 0], -palm[:, 0], 0 * palm[:, 0]], 1)
    grids = [_rings(centres, np.broadcast_to(np.eye(3), (len(palm), 3, 3)), palm[:, 1:], 13, 0.2)]
    for k in range(5):
        joints, axes = _finger_path(side, k, arm.fingers[k], arm.spread)
        radius = _FINGERS[k][3]
        tip = joints[3] + axes[3] @ np.array([0, -0.35 * radius, 0])
        centres = np.array([tip, 0.25 * joints[2] + 0.75 * joints[3], joints[2], joints[1], joints[0]])
        size = radius * np.array([0.55, 0.92, 0.97, 1.06, 1.05])
        grids.append(_rings(centres, axes[[3, 3, 2, 1, 0]], np.stack([size, size], 1), 13))
    placed = []
    for k, points in enumerate(grids):
        rest = np.stack([points[..., 2], points[..., 1], np.full(points.shape[:2], 2.5 if k == 0 else 3.0)], -1)
        rest[..., 2] += 0.0 if k == 0 else np.linspace(0.6, -0.1, len(points))[:, None]
        placed.append(_Grid(model.frames.put(f"{name}_hand", points * scale), rest))
    return placed


def _legs(model: _Model) -> list[Surface]:
    """Legs and what covers them."""
    body, h, dress = model.body, model.h, model.body.dress
    table = model.leg_sections()
    end = dress.leg if dress.kind != "skirt" else -0.16
    bare, covers, boots = [], [], []
    for name, side in zip(SIDES, (1.0, -1.0), strict=True):
        bones = (f"{name}_thigh", f"{name}_shank")
        start = -0.16 if dress.kind == "skirt" else max(end - 0.3, -0.16)
        bare.append(model.limb(bones, side, _part_of(table, start, 2.1), 15))
        if dress.kind != "skirt":
            # Under a top that hangs over the hips nothing of the thighs may show.
            start = float(np.clip((0.541 - dress.hem) / 0.245, -0.16, 0.3))
            cut = _part_of(table, start, min(end, 2.0))
            t = cut[:, 0] / max(end, 0.3)
            ease = 0.4 + dress.width * (0.55 + 0.45 * t) * smoothstep(-0.3, 0.2, cut[:, 0]) + dress.flare * t**3
            # Cloth does not follow the hollow of the ankle.
            wide = cut.copy()
            wide[:, 3:] = np.maximum(wide[:, 3:], 0.026 * np.clip(dress.width / 1.5, 0, 1.15))
            covers.append(model.limb(bones, side, _eased(wide, ease, h), 15))
        if dress.boot > 0.15:
            boot = _part_of(table, 2.0 - 0.92 * dress.boot, 2.1)
            boots.append(model.limb(bones, side, _eased(boot, 0.8, h), 13))
    surfaces = [_surface(_chain(bare), _skin_paint(body.look), 0.3, SKIN, wrap=True)]
    paint = _hemmed(cloth_paint(dress.bottom), end)
    surfaces += [_surface(g, paint, dress.bottom.gloss, LEGS, wrap=True, two_sided=True) for g in covers]
    surfaces += [_surface(g, dress.shoe, 0.5, SHOES, wrap=True, two_sided=True) for g in boots]
    return surfaces


# Sections of a shoe: place along the foot from the ankle, half width, height; fractions of the foot's length.
_SHOE = np.array([
    (-0.270, 0.050, 0.16), (-0.255, 0.095, 0.235), (-0.20, 0.122, 0.275), (-0.08, 0.122, 0.285), (0.06, 0.122, 0.255),
    (0.22, 0.142, 0.200), (0.40, 0.168, 0.155), (0.54, 0.172, 0.130), (0.65, 0.152, 0.110), (0.725, 0.108, 0.095),
    (0.765, 0.050, 0.065),
])  # fmt: skip


def _shoes(model: _Model) -> list[Surface]:
    dress, long = model.body.dress, model.bones.foot
    angle = np.linspace(-np.pi, np.pi, 15)
    s, c = np.sin(angle), np.cos(angle)
    s, c = np.sign(s) * np.abs(s) ** 0.75, np.sign(c) * np.abs(c) ** 0.6
    at, wide, tall = (_SHOE * long).T
    slim = 1 - 0.07 * (dress.heel > 2)
    shape = np.stack(np.broadcast_arrays(-s * wide[:, None] * slim, tall[:, None] * 0.5 * (1 + c), at[:, None]), -1)
    rest = shape.copy()
    arch = smoothstep(0.5, -0.1, at / long)
    drop = model.bones.lift
    shape[..., 1] += (dress.heel * arch)[:, None] - model.bones.ankle - drop
    grids = []
    for name in SIDES:
        grids.append(_Grid(model.frames.put(f"{name}_foot", shape), rest))
        if dress.heel > 2:
            y = np.linspace(0, 1, 4)
            centres = np.stack([0 * y, y * (dress.heel + 1) - model.bones.ankle - drop, np.full(4, -0.17 * long)], 1)
            size = (0.028 + 0.05 * y**2)[:, None] * long * np.ones(2)
            post = _rings(centres, np.broadcast_to(np.eye(3), (4, 3, 3)), size, 15)
            grids.append(_Grid(model.frames.put(f"{name}_foot", post), np.zeros_like(post)))
    return [_surface(_chain(grids), _shoe_paint(model, long), 0.5, SHOES, wrap=True)]


def _shoe_paint(model: _Model, long: float) -> Paint:
    dress = model.body.dress
    laced = dress.heel <= 2 and dress.boot < 0.3

    def paint(rest: Array, u: Array, v: Array) -> Array:
        x, y, z = rest.T
        colour = np.broadcast_to(np.array(dress.shoe), (len(x), 3))
        sole = smoothstep(1.9, 1.5, y)
        colour = _mix(colour, dress.sole, sole)
        if laced:
            tongue = (
                smoothstep(1.9, 1.5, np.abs(x)) * smoothstep(0.08, 0.12, z / long) * smoothstep(0.40, 0.36, z / long)
            )
            colour = _mix(colour, dress.sole, tongue * smoothstep(0.0, 0.4, np.sin(z * 4)) * (y > 3))
        elif dress.heel > 2:
            colour = _mix(colour, model.body.look.skin, smoothstep(0.22, 0.26, 0.52 - z / long) * (y > 3.4) * (z > 0))
        return colour

    return paint


# ---------------------------------------------------------------------------------------------- head

# Height above the eyes, half width, front and back, in centimetres of a head 22.8 high.
_SKULL = np.array([
    (-11.4, 1.0, 7.4, 5.4), (-11.15, 2.6, 8.5, 2.0), (-10.3, 4.0, 9.05, -2.0), (-8.6, 5.3, 9.1, -4.8),
    (-6.6, 6.1, 9.2, -6.4), (-4.5, 6.6, 9.25, -7.5), (-2.0, 7.0, 9.2, -8.5), (0.6, 7.25, 9.3, -9.2),
    (3.2, 7.45, 9.7, -9.7),
    (5.6, 7.35, 9.3, -9.6), (7.8, 6.6, 7.9, -8.5), (9.6, 5.2, 5.8, -6.7), (10.7, 3.4, 3.4, -4.6),
    (11.25, 1.7, 1.3, -2.6),
    (11.4, 0.2, -0.4, -0.9),
])  # fmt: skip
EYE_X, EYE_HALF, MOUTH_Y, NOSE_Y = 3.25, 1.55, -6.6, -4.3


def _head_base(look: Look, male: float, y: Array, angle: Array) -> Array:
    """Points of the head without nose and lips at heights and angles (0 is the front), broadcast together."""
    at = np.interp(np.ravel(y), _SKULL[:, 0], np.arange(len(_SKULL)))
    w, front, back = r.spline(_SKULL[:, 1:], at).reshape(3, *np.shape(y))
    jaw = smoothstep(-3.0, -9.0, y)
    w = w * (1 + jaw * (0.05 * male + 0.06 * look.face[0])) * (1 + 0.02 * look.face[5])
    front = front + 0.25 * male * bump((y + 10) / 2.0)
    middle, half = 0.5 * (front + back), 0.5 * (front - back)
    s, c = np.sin(angle), np.cos(angle)
    # The face is flatter than an ellipse, and the cheeks fuller.
    s, c = np.sign(s) * np.abs(s) ** 0.88, np.sign(c) * np.abs(c) ** 0.92
    x, z = np.broadcast_arrays(w * s, middle + half * c)
    return np.stack([x, np.broadcast_to(y, x.shape), z], -1)


def _head(model: _Model) -> _Grid:
    look, pose = model.body.look, model.pose
    y = np.concatenate([np.linspace(-11.4, -9.0, 5)[:-1], np.linspace(-9.0, 3.6, 17), np.linspace(5.0, 11.4, 8)])[
        :, None
    ]
    t = np.linspace(-1, 1, 37)
    base = _head_base(look, model.body.figure.male, y, np.pi * t * (0.5 + 0.5 * np.abs(t)))
    points = base.copy()
    x, y, z = base[..., 0], base[..., 1], base[..., 2]
    a, ahead = np.abs(x), z > 2
    size = 1 + 0.14 * look.face[1]
    along = np.clip((1.2 - y) / (1.2 - NOSE_Y), 0, 1.25)
    ridge = np.interp(along, [0, 0.12, 0.8, 1.0, 1.12, 1.25], [0, 0.35, 2.15, 2.1, 0.4, 0]) * size
    nose = ridge * np.exp(-((a / (0.75 + 0.55 * along * size)) ** 2)) + 0.75 * bump(
        (a - 1.15) / 0.6, (y - NOSE_Y - 0.5) / 0.7
    )
    socket = -0.75 * bump((a - EYE_X) / 1.9, (y - 0.2) / 1.1) + 0.3 * bump((a - EYE_X) / 1.15, y / 0.75)
    brow = (0.25 + 0.15 * model.body.figure.male) * bump((a - 3.0) / 2.6, (y - 2.0) / 0.8)
    lips = 0.45 * bump(x / 2.3, (y - MOUTH_Y) / 1.0) - 0.25 * bump(x / 3, (y - MOUTH_Y + 1.9) / 0.7)
    cheek = 0.3 * bump((a - 4.6) / 1.7, (y + 2.8) / 1.8) * (1 + look.face[5])
    points[..., 2] += np.where(ahead, nose + socket + brow + lips + cheek, 0)
    open_ = 1.6 * pose.mouth * smoothstep(MOUTH_Y + 0.2, MOUTH_Y - 1.5, y) * smoothstep(-4, 4, z)
    points[..., 1] -= open_
    return _Grid(points, base)


def _head_frame(model: _Model, points: Array) -> Array:
    """Points in centimetres of a head 22.8 high, eyes at y = 0, wherever the head is."""
    return model.frames.put("head", points * model.bones.head + np.array([0, 0.0475, 0.004]) * model.h)


def _ears(model: _Model) -> list[_Grid]:
    angle, v = np.linspace(-np.pi, np.pi, 13)[None], np.linspace(-1.3, 1.3, 6)[:, None]
    grids = []
    for side in (1.0, -1.0):
        across = np.cos(v) * np.sin(angle) * 0.75
        points = np.stack([across, 3.1 * np.sin(v) + 0 * angle, np.cos(v) * np.cos(angle) * 1.75], -1)
        placed = points @ rotate("y", -side * 28).T + np.array([side * 7.35, -1.0, -1.2])
        rest = np.stack([points[..., 2], points[..., 1], 0 * points[..., 0]], -1)
        grids.append(_Grid(_head_frame(model, placed), rest))
    return grids


def _neck(model: _Model) -> _Grid:
    bones, frames, h = model.bones, model.frames, model.h
    thick = (0.031 + 0.0035 * model.body.figure.male) * (0.6 + 0.4 * model.body.figure.girth)
    t = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    low = frames.put("chest", np.array([0, bones.neck - bones.chest - 0.006 * h, -0.014 * h]))
    high = frames.put("head", np.array([0, 0.014 * h, -0.004 * h]))
    middle = frames.at["neck"] + frames.turn["neck"] @ np.array([0, 0.028 * h, 0.001 * h])
    centres = (
        ((1 - t) * (1 - 2 * t))[:, None] * low + (4 * t * (1 - t))[:, None] * middle + (t * (2 * t - 1))[:, None] * high
    )
    axes = _square(frames.turn["chest"] * (1 - t)[:, None, None] + frames.turn["head"] * t[:, None, None])
    size = (
        np.stack([thick * np.array([1.05, 0.98, 0.94, 0.95, 0.98]), thick * np.array([1.0, 0.98, 0.97, 1.02, 1.1])], 1)
        * h
    )
    points = _rings(centres, axes, size, 13)
    s = 5 * np.linspace(-np.pi, np.pi, 13)
    return _Grid(points, np.stack(np.broadcast_arrays(s[None], (147 + 8 * t)[:, None], 0 * t[:, None]), -1))


def _head_surfaces(model: _Model) -> list[Surface]:
    head, neck = _head(model), _neck(model)
    dress, skin = model.body.dress, _skin_paint(model.body.look)
    cover: Paint = cloth_paint(dress.top) if dress.neckline == "high" else skin
    placed = _Grid(_head_frame(model, head.points), head.rest)
    return [
        _surface(neck, cover, 0.2, SKIN, wrap=True),
        _surface(_chain(_ears(model)), skin, 0.3, SKIN, wrap=True),
        _surface(placed, _face_paint(model), 0.35, HEAD, wrap=True),
        *_hair(model),
    ]


def _face_paint(model: _Model) -> Paint:
    look, grid = model.body.look, _noise(model.body.look.seed + 1)

    def paint(rest: Array, u: Array, v: Array) -> Array:
        x, y, z = rest.T
        colour = np.broadcast_to(np.array(look.skin), (len(x), 3)) * (1 + 0.02 * r.value_noise(grid, x, y))[:, None]
        if look.style in ("buzz", "short", "quiff", "bun", "tail", "curly", "afro", "bob", "long"):
            cap = smoothstep(-0.4, 0.5, y - _hairline(look, np.arctan2(x, z)))
            colour = _mix(colour, look.hair, cap * (0.72 if look.style == "buzz" else 0.95))
        front = np.flatnonzero(z > 1.5)
        colour[front] = _features(model, colour[front], x[front], y[front], grid)
        return np.clip(colour, 0.01, 1)

    return paint


def _features(model: _Model, colour: Array, x: Array, y: Array, grid: Array) -> Array:
    """Cheeks, brows, eyes, nostrils, beard and mouth on the front of the head."""
    look, pose, a = model.body.look, model.pose, np.abs(x)
    skin = np.array(look.skin)
    blush = 0.8 * bump((a - 4.4) / 1.8, (y + 3.4) / 1.7) + 0.5 * bump(x / 1.3, (y - NOSE_Y) / 1.0)
    colour = colour * (1 - blush[:, None] * np.array([0.0, 0.10, 0.09]))
    shade = 0.30 * bump(x / 1.7, (y - NOSE_Y + 0.75) / 0.55) + 0.14 * bump((a - 1.9) / 0.8, (y - 0.8) / 1.3)
    shade = shade + 0.16 * bump((a - EYE_X) / 1.8, (y - 1.0) / 0.5) + 0.22 * bump(x / 1.8, (y - MOUTH_Y + 1.75) / 0.5)
    shade = shade + 0.16 * bump((a - 0.9) / 0.35, (y + 1.8) / 2.2)
    colour = colour * (1 - shade)[:, None]
    nostril = bump((a - 0.75) / 0.38, (y - NOSE_Y + 0.15) / 0.3)
    colour = colour * (1 - 0.7 * nostril)[:, None]
    if look.beard > 0:
        colour = _mix(colour, look.brow, _beard(look, x, y, grid))
    eye_x = EYE_X + 0.12 * look.face[2]
    dx, male = a - eye_x, model.body.figure.male
    arch = 2.15 + 0.12 * look.face[4] + 0.3 * bump(dx / 1.6) - 0.10 * np.clip(dx - 0.8, 0, 2)
    thick = 0.33 + 0.10 * male
    brow = smoothstep(thick + 0.2, thick - 0.1, np.abs(y - arch)) * smoothstep(2.5, 1.9, np.abs(dx - 0.1))
    colour = _mix(colour, look.brow, 0.92 * brow)
    colour = _eyes(look, pose, colour, x, y, eye_x)
    return _mouth(look, pose, colour, x, y, skin)


def _eyes(look: Look, pose: Pose, colour: Array, x: Array, y: Array, eye_x: float) -> Array:
    dx = np.abs(x) - eye_x
    u = np.clip(dx / EYE_HALF, -1, 1)
    lid = 1 - 0.97 * pose.blink
    upper, lower = (0.92 * lid) * np.sqrt(1 - u * u) - 0.30 * pose.blink, -0.52 * np.sqrt(1 - u * u)
    inside = smoothstep(-0.08, 0.08, upper - y) * smoothstep(-0.08, 0.08, y - lower) * (np.abs(dx) < EYE_HALF)
    white = np.array([0.93, 0.91, 0.89]) * np.ones((len(x), 1))
    white = white * (1 - 0.35 * smoothstep(0.35, 0.0, upper - y))[:, None]
    side = np.sign(x)
    gx, gy = x - side * eye_x - 0.45 * pose.gaze[0], y - 0.12 - 0.3 * pose.gaze[1]
    far = np.hypot(gx, gy)
    white = _mix(white, look.iris, smoothstep(0.80, 0.68, far))
    white = _mix(white, (0.02, 0.02, 0.02), smoothstep(0.42, 0.32, far))
    white = _mix(white, (1.0, 1.0, 1.0), smoothstep(0.26, 0.16, np.hypot(gx - 0.25, gy - 0.28)))
    colour = _mix(colour, white, inside)
    lash = bump((y - upper - 0.06) / 0.17) * smoothstep(EYE_HALF + 0.15, EYE_HALF - 0.1, np.abs(dx))
    colour = colour * (1 - 0.85 * lash)[:, None]
    crease = bump((y - upper - 0.55) / 0.16) * smoothstep(EYE_HALF + 0.2, EYE_HALF - 0.5, np.abs(dx))
    colour = colour * (1 - 0.25 * crease - 0.22 * bump((y - lower + 0.1) / 0.14) * (np.abs(dx) < EYE_HALF))[:, None]
    if look.glasses:
        ring = np.abs(np.maximum(np.abs(dx) / 2.35, np.abs(y + 0.25) / 1.75) - 1)
        rim = np.maximum(
            smoothstep(0.17, 0.10, ring), smoothstep(0.3, 0.2, np.abs(y - 0.3)) * (np.abs(x) < eye_x - 2.2)
        )
        arms = smoothstep(0.3, 0.2, np.abs(y - 0.4)) * (dx > 2.3)
        colour = _mix(colour, (0.06, 0.05, 0.06), np.maximum(rim, arms))
    return colour


def _beard(look: Look, x: Array, y: Array, grid: Array) -> Array:
    a = np.abs(x)
    border = np.interp(a, [0, 2.6, 4.0, 6.0, 7.2], [MOUTH_Y - 1.3, MOUTH_Y - 0.2, -5.6, -4.2, -0.5])
    cheeks = smoothstep(0.4, -0.5, y - border)
    lip = bump((y - MOUTH_Y - 1.35) / 0.55) * smoothstep(3.2, 2.4, a)
    cover = np.clip(np.maximum(cheeks, 1.1 * lip), 0, 1)
    hairs = 0.85 + 0.15 * r.value_noise(grid, x * 3, y * 1.2)
    return np.clip(cover * hairs * look.beard, 0, 0.95)


def _mouth(look: Look, pose: Pose, colour: Array, x: Array, y: Array, skin: Array) -> Array:
    half = 2.35 + 0.15 * look.face[3] + 0.35 * pose.smile - 0.5 * pose.mouth
    u = np.clip(x / half, -1, 1)
    middle = MOUTH_Y + 0.75 * pose.smile * u * u
    gap = pose.mouth * 1.0 * (1 - u * u)
    arch = np.sqrt(np.clip(1 - u * u, 0, 1))
    high, low = middle + 0.62 * arch - 0.18 * bump(x / 0.5), middle - 0.85 * arch - 0.3 * gap
    edge = smoothstep(1.02, 0.96, np.abs(x / half))
    lips = smoothstep(-0.1, 0.1, high - y) * smoothstep(-0.1, 0.1, y - low) * edge
    colour = _mix(colour, look.lip, 0.9 * lips)
    colour = colour * (1 - 0.10 * lips * (y > middle))[:, None]
    seam = bump((y - middle) / 0.16) * smoothstep(1.06, 0.9, np.abs(x / half)) * (1 - min(pose.mouth * 3, 1.0))
    colour = colour * (1 - 0.68 * seam)[:, None]
    if pose.mouth > 0.02:
        inside = (
            smoothstep(-0.05, 0.08, middle + 0.18 * gap - y) * smoothstep(-0.05, 0.08, y - middle + 0.62 * gap) * edge
        )
        teeth = smoothstep(0.25, 0.45, gap) * smoothstep(0.45, 0.35, middle + 0.18 * gap - y)
        dark = _mix(np.broadcast_to(np.array([0.22, 0.06, 0.06]), colour.shape), (0.92, 0.9, 0.86), teeth)
        colour = _mix(colour, dark, inside)
    return colour


# ---------------------------------------------------------------------------------------------- hair

HAIR_STYLES = ("bald", "buzz", "short", "quiff", "curly", "afro", "bun", "tail", "bob", "long", "cap")
_LINE_ANGLES = np.radians([0, 25, 45, 58, 68, 78, 90, 105, 125, 150, 180])
_LINES = {
    "short": [6.6, 6.7, 5.9, 4.2, 1.6, -0.8, 1.6, 1.6, -3.0, -5.8, -6.4],
    "falls": [6.6, 6.7, 5.8, 4.2, 2.6, 1.2, -1.0, -3.5, -6.0, -7.0, -7.4],
    "cap": [4.6, 4.5, 4.2, 3.8, 3.4, 3.0, 2.4, 1.4, -0.5, -2.0, -2.6],
}


def _hairline(look: Look, angle: Array) -> Array:
    """Height above the eyes at which the hair begins, at angles round the head (0 is the front)."""
    kind = "cap" if look.style == "cap" else "falls" if look.style in ("bob", "long") else "short"
    return np.interp(np.abs(angle), _LINE_ANGLES, _LINES[kind])


def _hair(model: _Model) -> list[Surface]:
    look = model.body.look
    if look.style in ("bald", "buzz"):
        return []
    rng = np.random.default_rng(look.seed)
    angle = np.linspace(-np.pi, np.pi, 41)
    rough = np.append(rng.normal(0, 1, 40), 0)
    rough[-1] = rough[0]
    lean = float(rng.uniform(-1, 1))
    line = _hairline(look, angle) + (0.18 * rough if look.style != "cap" else 0)
    fringe = float(rng.uniform(0, 1.8)) * (rng.random() < 0.45) * (look.style in ("short", "bob", "long"))
    line = line - fringe * np.exp(-((angle / 0.75) ** 4)) * (1 + 0.5 * lean * angle)
    t = np.linspace(0, 1, 11)[:, None]
    points = _head_base(look, model.body.figure.male, line + (11.35 - line) * np.sin(0.5 * np.pi * t), angle + 0 * t)
    points = _stand_off(look, points, angle, t, rough, lean)
    rest = np.stack(np.broadcast_arrays(angle, t, 0 * t), -1)
    grids = [(_head_frame(model, points), rest)]
    extra = _gathered(look, rng)
    if look.style in ("bob", "long"):
        fall = _falling(model, points[0], angle, rough)
        grids[0] = (
            np.concatenate([fall, grids[0][0]]),
            np.concatenate([rest[:1] - np.linspace(1.2, 0.1, len(fall))[:, None, None] * np.array([0, 1, 0]), rest]),
        )
    paint = _hair_paint(model.body)
    surfaces = [_surface(_Grid(p, q), paint, 0.4, HAIR, wrap=True, two_sided=True) for p, q in grids]
    if len(extra):
        rest = np.stack([3 * extra[..., 0] / 4, 0.5 + extra[..., 1] / 8, extra[..., 2]], -1)
        surfaces.append(_surface(_Grid(_head_frame(model, extra), rest), paint, 0.4, HAIR, wrap=True))
    return surfaces


def _stand_off(look: Look, points: Array, angle: Array, t: Array, rough: Array, lean: float) -> Array:
    """Hair stands off the skull by its volume and sinks into the skin at its ends."""
    volume = {
        "short": 1.0,
        "quiff": 1.2,
        "curly": 2.2,
        "afro": 4.6,
        "bun": 0.7,
        "tail": 0.7,
        "bob": 1.7,
        "long": 1.5,
        "cap": 0.9,
    }
    front = np.exp(-((angle / 0.9) ** 2))
    stand = volume[look.style] * np.ones_like(t + angle)
    if look.style == "quiff":
        stand = stand * (0.6 + 1.3 * front * (1 - t) ** 0.6)
    stand = (
        stand * (1 + 0.25 * lean * np.sin(angle)) * (1 + (0.12 if look.style in ("curly", "afro") else 0.04) * rough)
    )
    falls = look.style in ("bob", "long", "cap")
    sunk = smoothstep(0.0, 0.16 if look.style != "afro" else 0.1, t)
    rise = np.where(falls, np.maximum(sunk, 0.45), sunk) if look.style != "cap" else np.full_like(sunk, 0.9)
    outward = r.unit(points - np.array([0, 1.0, -0.8]))
    moved = points + outward * (stand * rise - 0.35 * (1 - rise))[..., None]
    if look.style == "cap":
        # The peak juts out in front.
        peak = np.exp(-((angle / 0.62) ** 4)) * (np.arange(len(points)) == 0)[:, None]
        moved = moved + peak[..., None] * np.array([0, -0.6, 5.0])
    return moved


def _gathered(look: Look, rng: np.random.Generator) -> Array:
    """A bun or a tail behind the head, ``(R, C, 3)``; empty for other styles."""
    if look.style == "bun":
        place = np.array([0, 8.5, -8.0]) if rng.random() < 0.5 else np.array([0, 1.0, -11.0])
        v, u = np.linspace(-np.pi / 2, np.pi / 2, 9)[:, None], np.linspace(-np.pi, np.pi, 13)[None]
        ball = np.stack([np.cos(v) * np.sin(u), np.sin(v) + 0 * u, np.cos(v) * np.cos(u)], -1)
        return place + float(rng.uniform(2.8, 4.0)) * ball
    if look.style != "tail":
        return np.zeros((0, 0, 3))
    t = np.linspace(1, 0, 9)
    long = 10 + 0.6 * look.length
    centres = np.stack(
        [0 * t, 5.0 + 2.5 * np.sin(3 * np.minimum(t * 1.6, 1)) - long * t**1.3, -9.0 - 5.0 * np.sin(2.2 * t)], 1
    )
    size = (1.3 + 1.2 * np.sin(np.pi * np.clip(t * 0.9 + 0.1, 0, 1))) * np.clip(8 * (1.02 - t), 0.1, 1)
    return _rings(centres, np.broadcast_to(np.eye(3), (9, 3, 3)), np.stack([size, 0.8 * size], 1), 13)


def _falling(model: _Model, start: Array, angle: Array, rough: Array) -> Array:
    """Strands from the hairline ``(C, 3)`` down over the shoulders and the back, in the scene's frame."""
    look = model.body.look
    share = smoothstep(0.80, 1.05, np.abs(angle))
    t = np.linspace(1, 0, 8)[:-1, None]
    end = start[:, 1] + (-6.0 - look.length + 1.2 * rough - start[:, 1]) * share
    y = start[:, 1] + (end - start[:, 1]) * t
    out = 1 + 0.10 * np.sin(np.pi * np.minimum(1.2 * t, 1)) * share + 0.015 * rough * share * t
    x, z = start[:, 0] * out, start[:, 2] * out
    # Long strands lie on the back, or in front of the shoulders.
    ahead = smoothstep(1.75, 1.35, np.abs(angle))
    deep = smoothstep(-9.0, -17.0, y) * share
    z = z + deep * (ahead * (9.5 - z) + (1 - ahead) * np.minimum(-11.0 - z, 0))
    x = x * (1 - 0.12 * deep * (1 - ahead))
    local = np.stack([x, y, z], -1)
    placed = _head_frame(model, local)
    # Below the chin they hang from the shoulders rather than turn with the head.
    still = local * model.bones.head + np.array([0, 0.935 * model.h - model.bones.chest, 0.004 * model.h])
    hangs = smoothstep(-6.0, -18.0, y)[..., None]
    return placed * (1 - hangs) + hangs * model.frames.put("chest", still)


def _hair_paint(body: Body) -> Paint:
    look = body.look
    table = np.random.default_rng(look.seed + 2).normal(0, 1, 128).astype(np.float32)
    grid, colour = _noise(look.seed + 2), np.array(look.hair)

    def paint(rest: Array, u: Array, v: Array) -> Array:
        angle, t, _ = rest.T
        if look.style == "cap":
            seam = 0.8 + 0.2 * smoothstep(0.02, 0.06, np.abs((angle + np.pi) % (np.pi / 3) - np.pi / 6))
            return np.array(body.dress.shoe) * 0.5 + 0.5 * np.array(body.dress.bottom.colour) * seam[:, None]
        strand = 0.6 * r.line_noise(table, angle * 12 + 40) + 0.4 * r.line_noise(table, angle * 31 + 2 * t + 60)
        if look.style in ("curly", "afro"):
            strand = r.value_noise(grid, angle * 7, t * 12)
        return np.clip(
            colour * (1 + 0.20 * strand - 0.12 * bump((t - 0.05) / 0.12))[:, None] + 0.015 * strand[:, None], 0.01, 1
        )

    return paint


# ---------------------------------------------------------------------------------------------- skirts and jackets


def _skirt(model: _Model) -> Surface:
    """Skirt, or the lower part of a dress: as wide as both legs need, wider towards its hem."""
    dress, h, frames = model.body.dress, model.h, model.frames
    columns = 33
    angle = np.linspace(-np.pi, np.pi, columns)
    down = np.linspace(max(dress.leg, 0.15), -0.1, 12)
    table = model.leg_sections()
    legs = []
    for name, side in zip(SIDES, (1.0, -1.0), strict=True):
        cut = np.stack([np.interp(down, table[:, 0], column) for column in table.T], 1)
        ring = model.limb((f"{name}_thigh", f"{name}_shank"), side, cut[::-1], 9)
        legs.append(ring.points)
    both = np.concatenate(legs, 1)
    turned = frames.turn["pelvis"]
    across = np.stack([np.sin(angle), np.cos(angle)])
    ahead = r.unit(turned[:, 2] * np.array([1, 0, 1]))
    right = np.array([ahead[2], 0, -ahead[0]])
    flat = np.stack([both @ right, both @ ahead], -1)
    middle = flat.mean(1, keepdims=True)
    reach = ((flat - middle) @ across).max(1)
    # At the top the body is wider than the legs alone.
    t = np.clip(down / max(dress.leg, 0.3), 0, 1)
    sections = _torso_sections(model, np.full(len(down), 0.525))
    hips = np.hypot(sections[:, :1] * np.sin(angle), (sections[:, 1:2] + 0.004) * np.cos(angle)) * h
    reach = np.maximum(reach + 0.3, hips * smoothstep(0.5, 0.0, down)[:, None])
    wave = np.sin(angle * 9 + 1.3 * np.sin(angle * 2)) * min(dress.flare / 9, 1.0)
    reach = reach + 0.9 + dress.flare * t[:, None] ** 1.2 * (1 + 0.16 * wave * t[:, None])
    # A skirt never narrows below its widest ring by more than the cloth gives.
    reach = np.maximum(reach, np.maximum.accumulate(reach[::-1], 0)[::-1] * (0.80 + 0.2 * min(dress.flare / 5, 1)))
    height = both[..., 1].mean(1)
    place = middle[:, 0, :1] * right + middle[:, 0, 1:] * ahead
    xz = reach[..., None] * (np.sin(angle)[:, None] * right + np.cos(angle)[:, None] * ahead)
    points = place[:, None] + xz + height[:, None, None] * np.array([0, 1, 0])
    rest = np.stack(np.broadcast_arrays(15 * angle, (TALL * (0.53 - 0.245 * down))[:, None], t[:, None]), -1)
    top_rows = np.array([0.545, 0.57, 0.59, 0.606])
    top = _torso(model, top_rows, _ease(model, top_rows) * 0 + 0.9, columns)
    grid = _Grid(np.concatenate([points, top.points]), np.concatenate([rest, top.rest * np.array([1, 1, 0])]))
    return _surface(grid, _skirt_paint(dress), dress.bottom.gloss, SKIRT, wrap=True, two_sided=True)


def _skirt_paint(dress: Dress) -> Paint:
    cloth = cloth_paint(dress.bottom)

    def paint(rest: Array, u: Array, v: Array) -> Array:
        s, _, t = rest.T
        pleat = np.sin(s / 15 * 9 + 1.3 * np.sin(s / 15 * 2))
        hem = bump((t - 0.96) / 0.012)
        return cloth(rest, u, v) * (1 - (0.05 + 0.09 * min(dress.flare / 8, 1.0)) * pleat * t - 0.2 * hem)[:, None]

    return paint


def _jacket(model: _Model, jacket: Cloth) -> list[Surface]:
    """An open jacket; a long coat goes on below the hips."""
    dress = model.body.dress
    gap = np.radians(dress.gap)
    angles = np.linspace(gap, 2 * np.pi - gap, 31)
    low = max(dress.jacket_hem, 0.475)
    rows = np.sort(np.concatenate([_TORSO_ROWS[(low + 0.01 < _TORSO_ROWS) & (_TORSO_ROWS < 0.84)], [low, 0.84]]))
    ease = (
        np.maximum(_ease(model, rows), 0.5 + dress.loose * smoothstep(0.84, 0.8, rows))
        + 0.7
        + 0.6 * smoothstep(0.84, 0.81, rows)
        + 1.8 * smoothstep(0.62, 0.47, rows)
    )
    # The opening narrows to the neck.
    grid = _torso(model, rows, ease, len(angles), angles)
    rest = grid.rest - np.array([15 * np.pi, 0, 0])
    cloth = cloth_paint(jacket)

    def paint(rest: Array, u: Array, v: Array) -> Array:
        s, t, _ = rest.T
        edge = 15 * (np.pi - gap) - np.abs(s)
        lapel = smoothstep(0.2, -0.2, edge - np.clip((t - 118) * 0.32, 0, 8)) * (t > 116)
        line = bump((edge - np.clip((t - 118) * 0.32, 0, 8)) / 0.5) * (t > 116)
        pocket = bump((t - 98) / 0.7) * smoothstep(5, 4, np.abs(np.abs(s) - 32))
        return np.clip(cloth(rest, u, v) * (1 + 0.16 * lapel - 0.4 * line - 0.35 * pocket)[:, None], 0.01, 1)

    surfaces = [_surface(_Grid(grid.points, rest), paint, jacket.gloss, JACKET, two_sided=True)]
    if dress.jacket_hem < 0.46:
        surfaces.append(_coat_tail(model, jacket, grid, angles))
    return surfaces


def _coat_tail(model: _Model, jacket: Cloth, grid: _Grid, angles: Array) -> Surface:
    """Falls from the hips of a coat or a robe, swinging with the legs."""
    dress, h = model.body.dress, model.h
    t = np.linspace(1, 0, 8)[:, None]
    drop = (0.475 - dress.jacket_hem) * h * t
    share = 0.5 * (1 + np.sin(angles))
    knees = [model.frames.at[f"{n}_shank"] - model.frames.at[f"{n}_thigh"] for n in SIDES]
    fall = share[:, None] * r.unit(knees[0]) + (1 - share)[:, None] * r.unit(knees[1])
    fall = 0.45 * fall + 0.55 * np.array([0, -1, 0])
    start = grid.points[0]
    centre = start.mean(0)
    out = r.unit((start - centre) * np.array([1, 0, 1]))
    points = start + drop[..., None] * (fall + 0.16 * out)
    rest = grid.rest[:1] - np.stack([15 * np.pi + 0 * drop, drop * TALL / h, 0 * drop], -1)
    return _surface(_Grid(points, rest), cloth_paint(jacket), 0.05, JACKET, two_sided=True)


def _sash(model: _Model) -> Surface:
    rows = np.array([0.592, 0.597, 0.613, 0.618])
    grid = _torso(model, rows, _ease(model, rows) + np.array([0.2, 1.0, 1.0, 0.2]), 25)
    return _surface(grid, model.body.dress.sash or (0.1, 0.1, 0.1), 0.05, TORSO, wrap=True)


# ---------------------------------------------------------------------------------------------- posing


def pose_body(body: Body, pose: Pose) -> Posed:
    """Build a body in a pose.

    Args:
        body: Who it is.
        pose: Angles of its joints.

    Returns:
        Surfaces to draw and the joints of :data:`JOINTS` in the scene's frame (centimetres, see the module).
    """
    bones = _Bones.of(body)
    model = _Model(body, pose, bones, _frames(bones, pose))
    surfaces = [_torso_surface(model), *_arms(model), *_legs(model), *_shoes(model), *_head_surfaces(model)]
    if body.dress.kind == "skirt":
        surfaces.append(_skirt(model))
    if body.dress.jacket is not None:
        surfaces.extend(_jacket(model, body.dress.jacket))
    if body.dress.sash is not None:
        surfaces.append(_sash(model))
    joints = _joints(model)
    return Posed(surfaces, joints, _reach(model))


def _joints(model: _Model) -> dict[str, Array]:
    bones, frames, h = model.bones, model.frames, model.h
    face = _head_frame(model, np.array([
        (0, -3.6, 11.3), (0, MOUTH_Y, 9.6), (0, 11.5, -0.5), (0, -1.5, 2.5), (EYE_X, 0, 9.0), (-EYE_X, 0, 9.0),
        (8.0, -1, -1.2), (-8.0, -1, -1.2),
    ]))  # fmt: skip
    joints = {
        "pelvis": frames.at["pelvis"],
        "spine": frames.put("chest", np.array([0, -0.02 * h, 0.008 * h])),
        "thorax": frames.put("chest", np.array([0, bones.neck - bones.chest - 0.004 * h, -0.008 * h])),
        "neck": frames.at["head"],
        **dict(
            zip(
                ("nose", "mouth", "head_top", "head", "left_eye", "right_eye", "left_ear", "right_ear"),
                face,
                strict=True,
            )
        ),
    }
    for name, side in zip(SIDES, (1.0, -1.0), strict=True):
        arm: Arm = getattr(model.pose, f"{name}_arm")
        scale = h / TALL * (1 + 0.05 * model.body.figure.male)
        joints[f"{name}_shoulder"], joints[f"{name}_elbow"] = frames.at[f"{name}_upper"], frames.at[f"{name}_fore"]
        joints[f"{name}_wrist"] = frames.at[f"{name}_hand"]
        for finger, k in (("thumb", 0), ("hand", 2)):
            tip = _finger_path(side, k, arm.fingers[k], arm.spread)[0][3]
            joints[f"{name}_{finger}"] = frames.put(f"{name}_hand", tip * scale)
        joints[f"{name}_hip"], joints[f"{name}_knee"] = frames.at[f"{name}_thigh"], frames.at[f"{name}_shank"]
        joints[f"{name}_ankle"] = frames.at[f"{name}_foot"]
        for toe, along in (("toe_base", 0.50), ("toe", 0.70)):
            down = -bones.ankle - (0.8 if toe == "toe" else 0.6) * bones.lift + 0.05 * bones.foot
            joints[f"{name}_{toe}"] = frames.put(f"{name}_foot", np.array([0, down, along * bones.foot]))
    return joints


def _reach(model: _Model) -> dict[str, float]:
    """Depth of each joint below what covers it, in centimetres."""
    h, dress = model.h, model.body.dress
    coat = 2.0 if dress.jacket is not None else 0.0
    skirt = 3.0 + dress.flare if dress.kind == "skirt" else dress.width
    share = {"pelvis": 0.085, "spine": 0.075, "thorax": 0.05, "neck": 0.05, "head": 0.06, "head_top": 0.035,
             "nose": 0.008,
             "mouth": 0.008, "eye": 0.008, "ear": 0.012, "shoulder": 0.052, "elbow": 0.027, "wrist": 0.018,
             "thumb": 0.008,
             "hand": 0.008, "hip": 0.075, "knee": 0.036, "ankle": 0.03, "toe_base": 0.022, "toe": 0.014}  # fmt: skip
    cover = {"pelvis": skirt + coat, "spine": dress.loose + coat, "hip": skirt + coat, "knee": skirt,
             "wrist": 0.5 * dress.loose if dress.sleeve > 1.8 else 0.0,
             "ankle": 1.0 + dress.width + dress.flare, "shoulder": dress.loose + coat, "elbow": dress.loose + coat,
             "thorax": dress.loose + coat}  # fmt: skip
    short = {name: name.split("_", 1)[1] if name.startswith(SIDES) else name for name in JOINTS}
    return {name: share[key] * h + cover.get(key, 0.0) for name, key in short.items()}


# ---------------------------------------------------------------------------------------------- sampling

DRESSES = ("casual", "sport", "fashion", "formal")
_SKINS = np.array([
    (0.93, 0.77, 0.69), (0.90, 0.71, 0.60), (0.85, 0.65, 0.52), (0.76, 0.55, 0.42), (0.65, 0.45, 0.33),
    (0.52, 0.35, 0.25),
    (0.41, 0.27, 0.19), (0.33, 0.21, 0.16),
])  # fmt: skip
_HAIRS = np.array([
    (0.06, 0.05, 0.05), (0.11, 0.08, 0.06), (0.22, 0.14, 0.09), (0.36, 0.24, 0.14), (0.56, 0.41, 0.24),
    (0.80, 0.66, 0.43),
])  # fmt: skip
_IRISES = ((0.22, 0.13, 0.07), (0.30, 0.19, 0.09), (0.40, 0.32, 0.16), (0.33, 0.43, 0.30), (0.33, 0.46, 0.58))
_CLOTHS = np.array([
    (0.08, 0.08, 0.09), (0.22, 0.22, 0.24), (0.50, 0.50, 0.52), (0.80, 0.80, 0.80), (0.94, 0.94, 0.92),
    (0.93, 0.89, 0.80),
    (0.14, 0.18, 0.33), (0.20, 0.33, 0.58), (0.45, 0.62, 0.80), (0.62, 0.13, 0.14), (0.80, 0.25, 0.20),
    (0.90, 0.62, 0.66),
    (0.16, 0.34, 0.22), (0.42, 0.45, 0.27), (0.35, 0.60, 0.52), (0.87, 0.72, 0.25), (0.90, 0.48, 0.20),
    (0.45, 0.22, 0.45),
    (0.68, 0.58, 0.78), (0.45, 0.30, 0.20), (0.72, 0.58, 0.42),
])  # fmt: skip
_TROUSERS = np.array([
    (0.14, 0.18, 0.32), (0.22, 0.30, 0.48), (0.40, 0.50, 0.66), (0.07, 0.07, 0.08), (0.24, 0.24, 0.26),
    (0.48, 0.48, 0.49),
    (0.72, 0.63, 0.48), (0.38, 0.38, 0.26), (0.88, 0.87, 0.83), (0.35, 0.24, 0.17),
])  # fmt: skip
_SHOES = np.array([(0.07, 0.06, 0.06), (0.92, 0.92, 0.91), (0.30, 0.19, 0.12), (0.55, 0.38, 0.22), (0.62, 0.15, 0.16),
                   (0.18, 0.25, 0.45), (0.45, 0.45, 0.46)])  # fmt: skip


def _triple(colour: Array) -> Colour:
    a, b, c = np.clip(colour, 0.03, 0.97)
    return float(a), float(b), float(c)


def _pick(rng: np.random.Generator, table: Array, jitter: float = 0.03) -> Colour:
    return _triple(table[rng.integers(len(table))] + rng.normal(0, jitter, 3) + rng.normal(0, jitter))


def _between(rng: np.random.Generator, table: Array, jitter: float) -> Colour:
    at = rng.uniform(0, len(table) - 1)
    i = int(at)
    return _triple(table[i] + (at - i) * (table[min(i + 1, len(table) - 1)] - table[i]) + rng.normal(0, jitter, 3))


def _normal(rng: np.random.Generator, mean: float, spread: float) -> float:
    return float(mean + spread * np.clip(rng.normal(), -2.2, 2.2))


def sample_figure(rng: np.random.Generator, male: float, slim: float = 0.0) -> Figure:
    """Draw a build; ``slim`` from 0 (anybody) to 1 (a fashion model)."""
    girth = float(np.clip(np.exp(rng.normal(0.0, 0.11)), 0.86, 1.32))
    girth = (1 - 0.8 * slim) * girth + 0.8 * slim * 0.93
    heavy = max(girth - 1, 0)
    return Figure(
        height=_normal(rng, 170 + 6.5 * male + 5 * slim, 6.0), male=male,
        shoulders=_normal(rng, 1.0 + 0.035 * male, 0.035),
        hips=_normal(rng, 1.0, 0.035), waist=_normal(rng, 1.0 + 0.6 * heavy, 0.04), girth=girth,
        belly=float(np.clip(rng.normal(1.8 * heavy, 0.12) * (1 - slim), 0, 1)),
        bust=float(np.clip(rng.normal(0.75, 0.25), 0.25, 1.2)) if male < 0 else 0.0,
        legs=_normal(rng, 1.0 + 0.03 * slim, 0.018), arms=_normal(rng, 1.0, 0.02),
        head=_normal(rng, 1.0 - 0.02 * slim, 0.03),
    )  # fmt: skip


def sample_look(rng: np.random.Generator, male: float) -> Look:
    """Draw skin, face and hair."""
    skin = float(rng.beta(1.1, 1.3))
    tone = np.array([np.interp(skin * (len(_SKINS) - 1), np.arange(len(_SKINS)), c) for c in _SKINS.T])
    tone = tone + rng.normal(0, 0.012, 3)
    hair = np.array(_between(rng, _HAIRS[: 6 if skin < 0.35 else 3], 0.01))
    if rng.random() < 0.08:
        hair = np.array([0.62, 0.61, 0.60]) + rng.normal(0, 0.05)
    elif rng.random() < 0.05:
        hair = np.array([0.46, 0.19, 0.09]) + rng.normal(0, 0.02, 3)
    men = (0.07, 0.12, 0.42, 0.16, 0.08, 0.03, 0.02, 0.02, 0.02, 0.03, 0.03)
    women = (0.005, 0.010, 0.06, 0.03, 0.06, 0.035, 0.11, 0.15, 0.23, 0.30, 0.01)
    style = str(rng.choice(HAIR_STYLES, p=men if male > 0 else women))
    lip = (
        tone * np.array([0.86, 0.60, 0.62])
        if male > 0
        else _between(rng, np.array([(0.70, 0.36, 0.35), (0.72, 0.16, 0.20)]), 0.03)
    )
    beard = (
        float(rng.choice([0.0, rng.uniform(0.2, 0.5), rng.uniform(0.7, 1.0)], p=(0.55, 0.25, 0.2))) if male > 0 else 0.0
    )
    return Look(
        _triple(tone), _triple(hair), _triple(np.array(_IRISES[rng.integers(len(_IRISES) if skin < 0.4 else 2)])),
        _triple(np.asarray(lip)), _triple(hair * 0.8), style, float(rng.uniform(0, 26)) * (style != "bob"), beard,
        bool(rng.random() < 0.14), tuple(float(v) for v in np.clip(rng.normal(0, 0.9, 6), -2, 2)),
        int(rng.integers(1 << 30)),
    )  # fmt: skip


def sample_cloth(rng: np.random.Generator, table: Array | None = None, plain: float = 0.45) -> Cloth:
    """Draw a cloth; ``plain`` is the chance of a single colour."""
    colour = _pick(rng, _CLOTHS if table is None else table)
    second, third = _pick(rng, _CLOTHS), _pick(rng, _CLOTHS)
    # A pattern that nobody sees is no pattern.
    if np.abs(np.array(second) - np.array(colour)).sum() < 0.5:
        second = _triple(np.array(colour) + (0.45 if sum(colour) < 1.4 else -0.45))
    choice = str(
        rng.choice(["stripes", "pinstripes", "gingham", "plaid", "dots", "floral", "knit", "block", "mottled"])
    )
    scales = {"stripes": (3, 9), "pinstripes": (2.5, 5), "gingham": (3, 7), "plaid": (7, 14), "dots": (3.5, 7),
              "floral": (5, 14), "knit": (2, 3), "block": (-6, 10), "mottled": (5, 12)}  # fmt: skip
    scale = float(rng.uniform(*scales[choice]))
    return Cloth(
        colour, second, third, "plain" if rng.random() < plain else choice, scale, 0.05, int(rng.integers(1 << 30))
    )


def sample_dress(rng: np.random.Generator, male: float, kind: str = "casual") -> Dress:
    """Draw clothes; ``kind`` is one of :data:`DRESSES`."""
    top, jacket, odds = sample_cloth(rng), sample_cloth(rng, plain=0.75), rng.random(12)
    bottom = replace(sample_cloth(rng, _TROUSERS, 0.8), third=(0.9, 0.9, 0.9))
    if bottom.pattern not in ("plain", "pinstripes", "plaid", "gingham") and kind != "fashion":
        bottom = replace(bottom, pattern="plain")
    if bottom.pattern == "plain" and odds[0] < 0.6 and bottom.colour[2] > bottom.colour[0] + 0.05:
        bottom = replace(bottom, pattern="denim", second=_triple(np.array(bottom.colour) + 0.25))
    if top.pattern == "plain" and odds[1] < 0.3 and kind in ("casual", "sport"):
        top = replace(top, pattern="graphic", scale=float(rng.uniform(3, 8)))
    sleeve = float(rng.choice([0.0, rng.uniform(0.3, 0.75), rng.uniform(1.1, 1.6), 1.95], p=(0.08, 0.47, 0.08, 0.37)))
    loose = float(np.clip(np.exp(rng.normal(0.3, 0.5)), 0.4, 4.5))
    neckline = str(rng.choice(["round", "v", "collar", "high", "boat"], p=(0.42, 0.16, 0.24, 0.1, 0.08)))
    if sleeve < 0.1:
        neckline = "straps" if odds[2] < 0.6 else "round"
    hem = 0.604 if odds[3] < 0.3 else float(rng.uniform(0.495, 0.57))
    dress = Dress(
        top, sleeve, loose, neckline, hem, bottom, "trousers", float(rng.choice([1.97, 1.7, 1.97])),
        float(np.clip(np.exp(rng.normal(0.25, 0.6)), 0.1, 4.0)), 0.0, None, None, float(rng.uniform(0.48, 0.56)),
        float(rng.uniform(10, 32)), _pick(rng, _SHOES), (0.9, 0.9, 0.88) if odds[4] < 0.6 else (0.1, 0.09, 0.09),
    )  # fmt: skip
    if odds[5] < 0.12 or (kind == "sport" and odds[5] < 0.35):
        dress = replace(dress, kind="shorts", leg=float(rng.uniform(0.55, 0.95)), width=float(rng.uniform(1.0, 3.0)))
    if hem > 0.6 and odds[6] < 0.6:
        dress = replace(dress, belt=_pick(rng, _SHOES[:4]))
    if odds[7] < (0.22 if kind == "casual" else 0.35 if kind == "fashion" else 0.9 if kind == "formal" else 0.0):
        dress = replace(dress, jacket=jacket, sleeve=1.95, loose=min(loose, 1.6))
    if male < 0 and kind in ("casual", "fashion", "formal") and odds[8] < (0.55 if kind == "fashion" else 0.2):
        dress = _skirted(rng, dress)
    elif kind == "formal":
        dress = replace(dress, neckline="collar", hem=0.604)
    if male < 0 and kind == "fashion":
        if odds[9] < 0.5:
            dress = replace(dress, heel=float(rng.uniform(3, 9)), sole=(0.1, 0.09, 0.09))
        elif odds[9] < 0.65:
            dress = replace(dress, boot=float(rng.uniform(0.25, 0.95)), sole=(0.1, 0.09, 0.09))
    return dress


def _skirted(rng: np.random.Generator, dress: Dress) -> Dress:
    """The same with a skirt, or as a dress of one cloth."""
    whole = rng.random() < 0.6
    leg = float(
        rng.choice([rng.uniform(0.45, 0.85), rng.uniform(0.9, 1.25), rng.uniform(1.4, 1.85)], p=(0.45, 0.35, 0.2))
    )
    cloth = dress.top if whole else sample_cloth(rng, plain=0.5)
    flare = float(rng.choice([rng.uniform(0, 2), rng.uniform(4, 12)]))
    hem = 0.604
    return replace(
        dress,
        kind="skirt",
        leg=leg,
        bottom=cloth,
        flare=flare,
        hem=hem,
        loose=min(dress.loose, 1.3),
        jacket_hem=max(dress.jacket_hem, 0.55),
    )


def sample_body(rng: np.random.Generator, kind: str = "casual") -> Body:
    """Draw a person.

    Args:
        rng: Source of everything.
        kind: How they are dressed, one of :data:`DRESSES`.

    Returns:
        The body; who it is does not depend on ``kind`` except that fashion models are taller and slimmer.
    """
    male = float(rng.uniform(0.5, 1.0) * rng.choice([-1, 1]))
    figure = sample_figure(rng, male, 1.0 if kind == "fashion" else 0.0)
    return Body(figure, sample_look(rng, male), sample_dress(rng, male, kind))
