"""Captions of procedural scenes: what a picture shows, part by part, in a small vocabulary.

A caption is made from the random draw of the scene itself: the generator of the sample is replayed through the scene's
own sampling functions, up to where everything named is known, and nothing is rendered. So a caption says what is drawn,
and the scenes' files, whose text decides the data sets' fingerprints, stay as they are. What a part's own side hides
(a beard seen from behind) is left out; what lies in front of it (a leaf, an arm) or beyond the crop is not looked at.

Each part has its own colour or kind ('red hair', 'black beak', 'looking left'): a text encoder and a U-Net that learn
from such captions must find the parts, which is what the landmarks of the later chapters live on. Left and right are
those of the image, as in :class:`ulm.datasets.base.Dataset`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ulm.datasets import (
    birds,
    bodies,
    cats,
    faces,
    house_numbers,
    painted,
    people,
    procedural,
    signers,
    simple,
    talking_faces,
    tinted,
    toys,
)
from ulm.datasets.base import Dataset, Subset
from ulm.datasets.cache import CachedDataset, cache_folder
from ulm.datasets.folder import FolderDataset
from ulm.datasets.hashing import digest
from ulm.datasets.procedural import ProceduralDataset
from ulm.errors import InputError
from ulm.runs import atomic_write

MOST_WORDS = 57
"""With the tokens that begin and end a text, a caption stays below 60 tokens."""

RGB = tuple[float, float, float]
Palette = tuple[tuple[str, RGB], ...]

# ---------------------------------------------------------------------------------------------- colours

COLOURS: Palette = (
    ("black", (0.07, 0.07, 0.08)), ("grey", (0.23, 0.23, 0.24)), ("grey", (0.40, 0.40, 0.40)),
    ("grey", (0.56, 0.56, 0.57)), ("grey", (0.71, 0.71, 0.71)), ("white", (0.86, 0.86, 0.86)),
    ("white", (0.96, 0.96, 0.94)), ("red", (0.78, 0.12, 0.12)), ("red", (0.60, 0.13, 0.14)),
    ("red", (0.40, 0.08, 0.09)), ("red", (0.60, 0.31, 0.24)), ("orange", (0.92, 0.50, 0.15)),
    ("orange", (0.80, 0.36, 0.14)),
    ("yellow", (0.94, 0.80, 0.15)), ("yellow", (0.85, 0.70, 0.28)), ("green", (0.14, 0.33, 0.20)),
    ("green", (0.33, 0.62, 0.25)), ("green", (0.42, 0.45, 0.27)), ("green", (0.33, 0.58, 0.48)),
    ("blue", (0.12, 0.17, 0.36)), ("blue", (0.18, 0.36, 0.70)), ("blue", (0.45, 0.62, 0.82)),
    ("blue", (0.10, 0.45, 0.62)), ("purple", (0.44, 0.21, 0.46)), ("purple", (0.66, 0.55, 0.78)),
    ("pink", (0.90, 0.62, 0.67)), ("pink", (0.83, 0.40, 0.50)), ("brown", (0.20, 0.13, 0.10)),
    ("brown", (0.32, 0.21, 0.14)), ("brown", (0.45, 0.30, 0.20)), ("brown", (0.58, 0.43, 0.29)),
    ("beige", (0.74, 0.63, 0.47)), ("beige", (0.92, 0.87, 0.75)),
)  # fmt: skip
HAIRS: Palette = (
    ("black", (0.08, 0.065, 0.06)), ("brown", (0.22, 0.14, 0.09)), ("brown", (0.38, 0.25, 0.14)),
    ("blond", (0.62, 0.46, 0.27)), ("blond", (0.85, 0.71, 0.47)), ("red", (0.50, 0.20, 0.09)),
    ("grey", (0.48, 0.45, 0.43)), ("grey", (0.68, 0.67, 0.66)), ("pink", (0.60, 0.20, 0.40)),
    ("blue", (0.20, 0.35, 0.60)), ("green", (0.25, 0.50, 0.40)),
)  # fmt: skip
EYES: Palette = (
    ("brown", (0.22, 0.13, 0.07)), ("brown", (0.30, 0.19, 0.09)), ("hazel", (0.42, 0.33, 0.16)),
    ("green", (0.33, 0.45, 0.30)), ("blue", (0.35, 0.50, 0.62)),
)  # fmt: skip
SKINS: Palette = (
    ("light", (0.91, 0.74, 0.65)), ("tan", (0.76, 0.55, 0.42)), ("brown", (0.55, 0.37, 0.27)),
    ("dark", (0.37, 0.24, 0.18)),
)  # fmt: skip
LIPS: Palette = (
    ("pink", (0.78, 0.42, 0.40)), ("pink", (0.80, 0.32, 0.38)), ("red", (0.70, 0.12, 0.16)),
    ("purple", (0.52, 0.14, 0.25)), ("brown", (0.58, 0.30, 0.27)), ("brown", (0.38, 0.21, 0.19)),
)  # fmt: skip
FURS: Palette = (
    ("black", (0.085, 0.08, 0.085)), ("grey", (0.42, 0.44, 0.48)), ("silver", (0.68, 0.68, 0.67)),
    ("orange", (0.83, 0.53, 0.27)), ("cream", (0.90, 0.79, 0.63)), ("brown", (0.50, 0.40, 0.30)),
    ("brown", (0.27, 0.18, 0.14)), ("white", (0.94, 0.93, 0.91)),
)  # fmt: skip
CAT_EYES: Palette = (
    ("green", (0.50, 0.72, 0.30)), ("yellow", (0.86, 0.78, 0.28)), ("amber", (0.90, 0.60, 0.18)),
    ("copper", (0.78, 0.42, 0.13)), ("blue", (0.42, 0.66, 0.92)),
)  # fmt: skip
NOSES: Palette = (("pink", (0.83, 0.52, 0.50)), ("black", (0.16, 0.12, 0.12)))


def perceptual(colour: Any) -> np.ndarray:
    """Display RGB in [0, 1] to OKLab, ``(..., 3)``: distances there are about those that people see.

    B. Ottosson, A perceptual color space for image processing (2020).
    """
    rgb = np.clip(np.asarray(colour, np.float64), 0, 1)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(linear @ _CONES.T)
    return np.asarray(cones @ _LAB.T)


_CONES = np.array([
    (0.4122214708, 0.5363325363, 0.0514459929), (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
])  # fmt: skip
_LAB = np.array([
    (0.2104542553, 0.7936177850, -0.0040720468), (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
])  # fmt: skip


@cache
def _lab(palette: Palette) -> np.ndarray:
    return perceptual([colour for _, colour in palette])


def colour_name(colour: Any, palette: Palette = COLOURS) -> str:
    """Name of the nearest colour of a palette.

    Args:
        colour: Display RGB in [0, 1], ``(3,)``.
        palette: Pairs of name and display RGB; a name may occur more than once.
    """
    apart = np.linalg.norm(_lab(palette) - perceptual(colour), axis=1)
    return palette[int(apart.argmin())][0]


# ---------------------------------------------------------------------------------------------- words


def words(text: str) -> list[str]:
    """The tokens of a caption: words, digits one by one, commas. Case and all other signs are ignored."""
    return re.findall(r"[a-z]+|[0-9]|,", text.lower())


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _join(what: str, parts: list[str], *ends: str) -> str:
    """'a face with red hair, green eyes, looking left'."""
    shown, ends_ = [p for p in parts if p], [e for e in ends if e]
    return ", ".join([f"{what} with {shown[0]}" if shown else what, *shown[1:], *ends_])


def _looking(yaw: float, pitch: float = 0.0, verb: str = "looking", least: float = 10.0) -> str:
    """Where a head turns: yaw positive to the image's right, pitch positive up, in degrees."""
    side = "right" if yaw > least else "left" if yaw < -least else ""
    height = "up" if pitch > least else "down" if pitch < -least else ""
    return f"{verb} {' and '.join(w for w in (side, height) if w) or 'ahead'}"


def _facing(yaw: float, noun: str = "seen") -> str:
    """Where a body faces that may turn all the way round, by its yaw in degrees."""
    yaw = (yaw + 180) % 360 - 180
    if abs(yaw) < 30:
        return f"{noun} from the front"
    return f"{noun} from behind" if abs(yaw) > 145 else f"facing {'right' if yaw > 0 else 'left'}"


# ---------------------------------------------------------------------------------------------- faces

_STYLES = {"buzz": "cropped", "short": "short", "quiff": "tall", "bob": "bobbed", "long": "long", "curly": "curly",
           "afro": "afro", "bun": "tied", "tail": "tied"}  # fmt: skip
_BEARDS = {"full": "beard", "moustache": "moustache", "goatee": "goatee", "stubble": "stubble"}


def _face_parts(face: faces.Face) -> list[str]:
    """Everything of a face that has a colour or a kind of its own, except where it looks."""
    look, now = face.look, face.expression
    parts = [_hair(look), _eyes(face)]
    if look.beard > 0:
        beard = f"{colour_name(look.brow, HAIRS)} {_BEARDS[look.beard_shape]}"
        parts.append(beard if look.beard_shape == "stubble" else _a(beard))
    if look.glasses == "clear":
        parts.append(f"{_frames(look)} {colour_name(look.frame)} glasses")
    parts.append(f"{colour_name(look.skin, SKINS)} skin")
    parts.append(f"{colour_name(look.lip, LIPS)} lips")
    parts.append(_a(f"{colour_name(look.cloth)} {'patterned ' if look.pattern in (1, 2, 3) else ''}shirt"))
    return [*parts, "smiling" if now.smile > 0.5 else "frowning" if now.frown > 0.4 else ""]


def _hair(look: faces.Look) -> str:
    if look.style in ("beanie", "scarf"):
        return _a(f"{colour_name(look.cloth2)} {'hat' if look.style == 'beanie' else 'scarf'}")
    return "no hair" if look.style == "bald" else f"{_STYLES[look.style]} {colour_name(look.hair, HAIRS)} hair"


def _eyes(face: faces.Face) -> str:
    if face.look.glasses == "sun":
        return "sunglasses"
    now = face.expression
    return "closed eyes" if max(now.eye_left, now.eye_right) < 0.25 else f"{colour_name(face.look.iris, EYES)} eyes"


def _frames(look: faces.Look) -> str:
    half, tall, square = look.frame_size
    return "square" if square > 3.2 else "round" if tall > 0.78 * half else "oval"


def _mouth(gap: float) -> str:
    return "mouth open" if gap > 6 else ""


def _face(scene: str, split: str, index: int) -> str:
    rng = procedural.generator(scene, split, index)
    face = faces.sample_face(rng)
    pose = _face_scene(scene)._pose(rng)
    mouth = _mouth(face.expression.gap)
    return _join("a face", _face_parts(face), mouth, _looking(pose.yaw, pose.pitch))


@cache
def _face_scene(scene: str) -> faces.FaceScene:
    return faces.FaceScene(scene)


def _talking_face(scene: str, split: str, index: int) -> str:
    video, frame = divmod(index, talking_faces.FRAMES)
    rng = procedural.generator(scene, split, video)
    talk = talking_faces.sample_talk(rng)
    microphone = talking_faces.Microphone.sample(rng, talk)
    face, pose = talk.face_at(frame), talk.pose_at(frame)
    held = "" if microphone is None else "a microphone"
    mouth = _mouth(face.expression.gap)
    return _join("a face", _face_parts(face), mouth, held, _looking(pose.yaw, pose.pitch))


# ---------------------------------------------------------------------------------------------- cats


def _cat(scene: str, split: str, index: int) -> str:
    cat = cats.sample_cat(procedural.generator(scene, split, index))
    yaw, pitch, _ = cat.turn
    parts = [
        *_marks(cat.coat),
        f"{colour_name(cat.coat.iris, CAT_EYES)} eyes",
        _a(f"{colour_name(cat.coat.nose, NOSES)} nose"),
        "folded ears" if cat.shape.fold > 60 else "",
        "long fur" if cat.shape.fur > 0.18 else "",
        "" if cat.collar is None else _a(f"{colour_name(cat.collar)} collar"),
        f"{'white' if cat.whiskers[0] > 0.5 else 'black'} whiskers",
    ]
    return _join(_coat(cat.coat), parts, "mouth open" if cat.mood.mouth > 0.3 else "", _looking(yaw, pitch))


def _coat(coat: cats.Coat) -> str:
    base = colour_name(coat.base, FURS)
    kinds = {"tabby": f"{base} tabby", "tuxedo": f"{base} and white", "calico": "calico", "patched": "white"}
    return _a(f"{kinds.get(coat.pattern, base)} cat")


def _marks(coat: cats.Coat) -> list[str]:
    """The second colours of a coat."""
    dark = colour_name(coat.dark, FURS)
    marks = {"calico": ["orange patches", f"{dark} patches"], "points": [_a(f"{dark} face")],
             "patched": [f"{dark} patches"], "tabby": [f"{dark} stripes"]}  # fmt: skip
    return marks.get(coat.pattern, [])


# ---------------------------------------------------------------------------------------------- birds

_PLACES = {"branch": "on a branch", "ground": "on the ground", "water": "on the water", "flight": "flying",
           "trunk": "on a trunk"}  # fmt: skip


def _bird(scene: str, split: str, index: int) -> str:
    rng = procedural.generator(scene, split, index)
    aligned = scene == "birds-aligned"
    bird = birds.sample_bird(rng, _bird_scene(scene)._kind(rng), aligned)
    yaw = float(birds._heading(rng, bird, aligned)[0])
    zones = [("cap", "crown"), ("bib", "throat"), ("breast", "breast"), ("belly", "belly"), ("wing", "wings"),
             ("tail", "tail"), ("beak", "beak"), ("leg", "legs")]  # fmt: skip
    if bird.place in ("water", "flight"):
        zones.pop()
    facing = _facing(yaw)
    hidden = ("throat", "breast", "belly", "beak") if "behind" in facing else ()
    parts = [f"{colour_name(bird.zones[zone])} {part}" for zone, part in zones if part not in hidden]
    back = "looking back" if abs(bird.head_yaw) > 60 else ""
    wings = "wings raised" if bird.lifted else ""
    return _join(f"a bird, {_a(bird.kind.name)}", parts, wings, facing, back, _PLACES[bird.place])


@cache
def _bird_scene(scene: str) -> birds.BirdScene:
    return birds.BirdScene(scene)


# ---------------------------------------------------------------------------------------------- people

_PATTERNS = {"stripes": "striped", "pinstripes": "striped", "gingham": "checked", "plaid": "checked",
             "dots": "dotted", "floral": "floral", "graphic": "printed", "block": "striped"}  # fmt: skip


def _cloth(cloth: bodies.Cloth, noun: str) -> str:
    pattern = _PATTERNS.get(cloth.pattern, "")
    return _a(" ".join(w for w in (colour_name(cloth.colour), pattern, noun) if w))


def _dress_parts(dress: bodies.Dress) -> list[str]:
    """What is worn, from the top down."""
    whole = dress.kind == "skirt" and dress.bottom == dress.top
    parts = [] if dress.jacket is None else [_cloth(dress.jacket, "jacket")]
    parts.append(_cloth(dress.top, "dress" if whole else "shirt"))
    if dress.jacket is None:
        parts.append("bare arms" if dress.sleeve < 0.1 else "short sleeves" if dress.sleeve < 1 else "long sleeves")
    if dress.sash is not None:
        parts.append(_a(f"{colour_name(dress.sash)} sash"))
    if dress.kind == "skirt":
        parts += [] if whole else [_cloth(dress.bottom, "skirt")]
    else:
        denim = dress.bottom.pattern == "denim"
        kind = "shorts" if dress.kind == "shorts" else "jeans" if denim else "trousers"
        parts.append(f"{colour_name(dress.bottom.colour)} {kind}")
    return [*parts, f"{colour_name(dress.shoe)} {'boots' if dress.boot > 0 else 'shoes'}"]


def _head_parts(look: bodies.Look, behind: bool = False) -> list[str]:
    style = _STYLES.get(look.style, "")
    hair = f"{style} {colour_name(look.hair, HAIRS)} hair"
    parts = ["no hair" if look.style == "bald" else "a cap" if look.style == "cap" else hair]
    if look.beard > 0.6 and not behind:
        parts.append(_a(f"{colour_name(look.brow, HAIRS)} beard"))
    return [*parts, "glasses" if look.glasses and not behind else "", f"{colour_name(look.skin, SKINS)} skin"]


def _arms(pose: bodies.Pose) -> str:
    """How high the upper arms are: 0 degrees hangs, 90 is level."""
    lifted = sum(arm.lift > 65 for arm in (pose.left_arm, pose.right_arm))
    return ("arms down", "one arm raised", "both arms raised")[lifted]


def _person(scene: str, split: str, index: int) -> str:
    """Replays :meth:`ulm.datasets.people.PeopleScene._shot` up to the motion."""
    video, frame = divmod(index, people.FRAMES)
    rng, t = procedural.generator(scene, split, video), frame / (people.FRAMES - 1)
    turn = people._u(rng, -180, 180)
    if scene == "exercise":
        body = people._exercise_clothes(rng, bodies.sample_body(rng, "sport"))
        turn = float(np.clip(rng.normal(0, 55), -180, 180))
        pose, doing = people._solve(body, people._along(people._forms(rng), t), turn), "exercising"
    else:
        body = bodies.sample_body(rng, "casual")
        action = people.ACTIONS[int(rng.integers(len(people.ACTIONS)))]
        walks = action == "walking"
        motion = people._walk(rng, turn) if walks else people._gesture(rng, body, action, turn)
        pose, doing = motion(t), "walking" if walks else "standing"
    return _describe("a person", body, pose, doing)


def _describe(what: str, body: bodies.Body, pose: bodies.Pose, doing: str) -> str:
    facing = _facing(pose.turn)
    parts = [*_dress_parts(body.dress), *_head_parts(body.look, "behind" in facing)]
    return _join(what, parts, doing, "" if doing == "walking" else _arms(pose), facing)


def _model(scene: str, split: str, index: int) -> str:
    rng = procedural.generator(scene, split, index)
    body = bodies.sample_body(rng, "fashion")
    return _describe("a fashion model", body, people._fashion_pose(rng, body), "standing")


def _signer(scene: str, split: str, index: int) -> str:
    video, frame = divmod(index, signers.FRAMES)
    signer = signers.sample_signer(procedural.generator(scene, split, video))
    high = int((signer.signs.at(frame)[:, 1] > -22).sum())
    hands = ("hands low", "one hand raised", "both hands raised")[high]
    parts = [_cloth(signer.body.dress.top, "shirt"), *_head_parts(signer.body.look)]
    side = "on the right" if signer.side > 0 else "on the left"
    return _join("a signer", parts, hands, side)


# ---------------------------------------------------------------------------------------------- things

_TOYS = (
    ("horse", "cow", "elephant", "lion", "deer", "dog", "rhino", "giraffe", "camel", "pig"),
    ("soldier", "cowboy", "dancer", "runner", "guard", "knight", "worker", "wizard", "gentleman", "batter"),
    ("airliner", "biplane", "delta jet", "glider", "jumbo jet", "low wing plane", "fighter", "business jet",
     "propeller plane", "seaplane"),
    ("box truck", "dump truck", "tank truck", "ladder truck", "log truck", "canvas truck", "mixer truck",
     "trailer truck", "pickup truck", "crane truck"),
    ("sedan", "sports car", "beetle", "jeep", "station wagon", "roadster", "racing car", "hatchback", "limousine",
     "finned car"),
)  # fmt: skip
_CATEGORIES = ("animal", "human", "airplane", "truck", "car")
_LIGHTS = ("left", "right", "left", "right", "above", "behind")


def _toy(scene: str, split: str, index: int) -> str:
    category, instance, elevation, azimuth, lighting = (int(factor) for factor in toys._order(split)[index])
    high = "seen from above" if toys.ELEVATIONS[elevation] >= 55 else "seen from the side"
    light = _LIGHTS[lighting]
    lit = f"lit from {light}" if light in ("above", "behind") else f"lit from the {light}"
    what = f"a grey toy {_CATEGORIES[category]}, {_a(_TOYS[category][instance])}"
    yaw = (toys.AZIMUTHS[azimuth] + 180) % 360 - 180
    way = "ahead" if abs(yaw) < 30 else "away" if abs(yaw) > 150 else "right" if yaw > 0 else "left"
    return _join(what, [], f"facing {way}", high, lit)


_WALLS = {"brick": "brick wall", "planks": "wooden wall", "stucco": "plaster wall", "paint": "painted wall",
          "stone": "stone wall", "door": "door"}  # fmt: skip
_PLATES = {"box": "plate", "oval": "oval plate", "tiles": "tiles"}


def _house_number(scene: str, split: str, index: int) -> str:
    """Replays :meth:`ulm.datasets.house_numbers.HouseNumberScene.draw_frame` up to the style."""
    pair, frame = divmod(index, house_numbers.FRAMES)
    rng = procedural.generator(scene, split, pair)
    if scene == "house-numbers":
        number = house_numbers.sample_number(rng)
        own = np.random.default_rng(rng.integers(2**63, size=house_numbers.FRAMES)[frame])
        return _sign(f"the house number {number}", house_numbers.sample_style(own))
    number, style = house_numbers.sample_number(rng, least=2, alike=False), house_numbers.sample_style(rng)
    first, *others = (int(k) for k in rng.permutation(len(number)))
    which = first if frame == 0 else next(k for k in others if number[k] != number[first])
    return _sign(f"the digit {number[which]}", style)


def _sign(what: str, style: house_numbers.Style) -> str:
    plate = ""
    if style.plate != "none":
        noun = f"{colour_name(style.plate_colour)} {_PLATES[style.plate]}"
        plate = f"on {noun if style.plate == 'tiles' else _a(noun)}"
    wall = f"on {_a(f'{colour_name(style.wall_colours[0])} {_WALLS[style.wall]}')}"
    ink = f"{colour_name(style.ink)} {'metal ' if style.metal else ''}ink"
    return _join(what, [ink], plate, wall)


# ---------------------------------------------------------------------------------------------- paintings


def _painted_face(scene: str, split: str, index: int) -> str:
    face = painted.sample_painted_face(procedural.generator(scene, split, index))
    parts = [f"{colour} {part}" for part, colour in face.names.items() if part != "background"]
    return ", ".join(["a painted face", *parts, *_ground(face.names), _looking(face.pose.yaw, face.pose.pitch)])


def _painted_bird(scene: str, split: str, index: int) -> str:
    bird = painted.sample_painted_bird(procedural.generator(scene, split, index))
    facing = _facing(float(bird.heading[0]))
    hidden = {"seen from behind": ("throat", "breast", "belly", "beak"), "seen from the front": ("back",)}
    out = {"background", *hidden.get(facing, ()), *(("legs",) if bird.bird.place == "flight" else ())}
    parts = [f"{colour} {part}" for part, colour in bird.names.items() if part not in out]
    return ", ".join(["a painted bird", *parts, *_ground(bird.names), facing])


def _simple(scene: str, split: str, index: int) -> str:
    what = simple.sample_simple(procedural.generator(scene, split, index), scene)
    noun = scene.removeprefix("simple-").removesuffix("s")
    parts = [f"{colour} {part}" for part, colour in what.names.items() if part != simple.GROUND]
    return ", ".join([f"a simple {noun}", *parts, *_ground(what.names), f"looking {what.drawing.looking}"])


def _tinted(scene: str, split: str, index: int) -> str:
    names = tinted.sample_tint(procedural.generator(scene, split, index), scene)
    parts = [f"{colour} {part}" for part, colour in names.items()]
    return ", ".join([f"a tinted {tinted.TINTINGS[scene].noun}", *parts])


def _ground(names: dict[str, str]) -> list[str]:
    """The background's colour, where it has one."""
    return [f"{names['background']} background"] if "background" in names else []


# ---------------------------------------------------------------------------------------------- vocabulary

_PHRASES = """
a an and with from on the , 0 1 2 3 4 5 6 7 8 9
face hair no eyes closed sunglasses glasses square round oval skin lips shirt patterned smiling frowning hat scarf
mouth open microphone looking left right up down ahead back seen front behind facing
cat tabby calico white patches stripes nose folded ears long fur collar whiskers black orange
bird crown throat breast belly wings tail beak legs raised
person fashion model jacket dress bare arms short sleeves sash skirt shorts jeans trousers boots shoes cap beard one
arm both standing walking exercising signer hands hand low
grey toy away above side lit house number digit metal ink plate tiles
painted tinted simple body wing eye
"""
_TABLES: tuple[Any, ...] = (
    [name for palette in (COLOURS, HAIRS, EYES, SKINS, LIPS, FURS, CAT_EYES, NOSES) for name, _ in palette],
    *(table.values() for table in (_STYLES, _BEARDS, _PLACES, _PATTERNS, _WALLS, _PLATES)),
    *_TOYS, _CATEGORIES, _LIGHTS, [kind.name for kind in birds.KINDS], painted.FACE_PARTS, painted.BIRD_PARTS,
    painted.PAINTS, *(tinting.names for tinting in tinted.TINTINGS.values()),
)  # fmt: skip
VOCABULARY: tuple[str, ...] = tuple(sorted({*words(_PHRASES), *words(" ".join(w for t in _TABLES for w in t))}))
"""All tokens that captions of procedural scenes are made of; a tokeniser of whole words needs no others."""


# ---------------------------------------------------------------------------------------------- all scenes

_WRITERS: dict[str, Callable[[str, str, int], str]] = {
    **dict.fromkeys(("faces", "faces-posed", "faces-wild"), _face),
    "talking-faces": _talking_face,
    "cats": _cat,
    "signers": _signer,
    **dict.fromkeys(("people", "people-shifted", "exercise"), _person),
    "fashion": _model,
    **dict.fromkeys(birds.SCENES, _bird),
    "toys": _toy,
    **dict.fromkeys(house_numbers.SCENES, _house_number),
    "painted-faces": _painted_face,
    "painted-birds": _painted_bird,
    **dict.fromkeys(tinted.TINTINGS, _tinted),
    **dict.fromkeys(simple.SUBJECTS, _simple),
}


def caption(scene: str, split: str, index: int) -> str:
    """What one procedural picture shows.

    Args:
        scene: A name in :data:`ulm.datasets.procedural.SCENES`.
        split: ``train``, ``val`` or ``test``.
        index: Of the item in the split; of videos, frames count.

    Returns:
        Lower-case words of :data:`VOCABULARY`, parts separated by commas, at most :data:`MOST_WORDS` tokens.

    Raises:
        InputError: An unknown scene or split, or a negative index.

    Example:
        >>> caption("cats", "test", 0) == caption("cats", "test", 0)
        True
    """
    if scene not in _WRITERS:
        raise InputError(f"found procedural scene {scene!r}, expected one of {', '.join(_WRITERS)}")
    if split not in procedural.LENGTHS:
        raise InputError(f"found split {split!r}, expected one of {', '.join(procedural.LENGTHS)}")
    if index < 0:
        raise InputError(f"found index {index}, expected 0 or more")
    return _shorten(_WRITERS[scene](scene, split, index))


def _shorten(text: str) -> str:
    """Leave out parts from the middle, least seen first to go, until at most ``MOST_WORDS`` tokens are left."""
    parts = text.split(", ")
    for dull in ("skin", "whiskers", "lips", "sleeves", "shoes", "boots", "legs", "tail", "shirt", "breast", "throat"):
        if len(words(", ".join(parts))) <= MOST_WORDS:
            break
        parts = [p for i, p in enumerate(parts) if i == 0 or not p.endswith(dull)]
    return ", ".join(parts)


def captions(dataset: Dataset) -> list[str]:
    """One caption an item.

    Procedural scenes are described by :func:`caption`. For a folder of images, a text file beside an image and of the
    same name (``cat.jpg``, ``cat.txt``) holds its caption. Whatever else has none: the empty caption, which trains the
    model without a condition.

    Args:
        dataset: Any data set; subsets and cached data sets too.

    Raises:
        InputError: A text file is not UTF-8, or a cached subset of a procedural data set is given.
    """
    if isinstance(dataset, Subset):
        every = captions(dataset.dataset)
        return [every[i] for i in dataset.indices]
    if isinstance(dataset, CachedDataset):
        return _cached_captions(dataset)
    if isinstance(dataset, ProceduralDataset):
        return _remembered(dataset)
    if isinstance(dataset, FolderDataset):
        return [_beside(path) for path in dataset.files]
    return [""] * len(dataset)


def _remembered(dataset: ProceduralDataset) -> list[str]:
    """Captions from the cache, else made and put there: a resumed training does not wait for them again."""
    place = cache_folder() / "captions" / f"{digest(dataset.fingerprint, Path(__file__).read_text())}.json"
    if place.is_file() and len(known := _read(place)) == len(dataset):
        return known
    made = [caption(dataset.scene.name, *dataset._locate(i)) for i in range(len(dataset))]
    try:
        atomic_write(place, json.dumps(made))
    except OSError:
        return made  # A cache that cannot be written costs time, nothing else.
    return made


def _read(place: Path) -> list[str]:
    try:
        known = json.loads(place.read_text(encoding="utf-8"))
    except ValueError:
        return []
    return known if isinstance(known, list) else []


def _cached_captions(dataset: CachedDataset) -> list[str]:
    kind, _, rest = dataset.info.name.partition(":")
    if kind == "procedural":
        whole = procedural.load(rest, dataset.split, dataset.size, len(dataset))
        if whole.fingerprint != dataset.fingerprint:
            raise InputError(f"found a cached part of {dataset.info.name}; ask for captions of the data set before it")
        return captions(whole)
    names = dataset.column("name")
    if kind != "folder" or not isinstance(names, list):
        return [""] * len(dataset)
    root = Path(rest) if Path(rest).is_dir() else Path(rest).parent
    return [_beside(root / name) for name in names]


def _beside(image: Path) -> str:
    text = image.with_suffix(".txt")
    if not text.is_file():
        return ""
    try:
        return " ".join(text.read_text(encoding="utf-8").split())
    except UnicodeDecodeError as error:
        raise InputError(f"{text}: found text that is not UTF-8; save the caption as UTF-8") from error
