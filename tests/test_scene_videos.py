"""Talking faces and signers: the contract, the same video at every size, smooth motion, variety and visibility."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ulm.datasets import bodies, procedural, shapes, signers, talking_faces
from ulm.datasets.bodies import Body, Pose, pose_body, reach_arm
from ulm.datasets.faces import FaceScene, pose_face
from ulm.datasets.real import bbcpose
from ulm.datasets.rendering import Camera

SCENES = {
    "talking-faces": talking_faces.TalkingFaceScene("talking-faces"),
    "signers": signers.SignerScene("signers"),
}
LANDMARKS = {"talking-faces": 68, "signers": 7}


def generator(scene: str, index: int) -> np.random.Generator:
    return procedural.generator(scene, "train", index)


def draw(scene: str, index: int, frame: float, size: int) -> dict:
    return SCENES[scene].draw_frame(generator(scene, index), frame, size)


def face_places(index: int, frames: list[float]) -> np.ndarray:
    """The 68 landmarks in picture sides, without drawing, ``(F, 68, 2)``."""
    talk = talking_faces.sample_talk(generator("talking-faces", index))
    posed = [pose_face(talk.face_at(f), talk.pose_at(f)).landmarks for f in frames]
    return np.stack([talk.camera_at(f)[0].project(p, 1.0) for f, p in zip(frames, posed, strict=True)])


def signer_places(index: int, frames: list[float]) -> np.ndarray:
    """The seven joints in picture sides, without drawing, ``(F, 7, 2)``."""
    signer = signers.sample_signer(generator("signers", index))
    posed = [signer.posed_at(f) for f in frames]
    return np.stack([signer.camera.project(p.places(signers.JOINTS), 1.0) for p in posed])


PLACES = {"talking-faces": face_places, "signers": signer_places}


@pytest.mark.parametrize("scene", SCENES)
def test_item_keeps_the_contract(scene: str) -> None:
    item = draw(scene, 1, 3, 48)
    assert item["image"].shape == (3, 48, 48)
    assert item["image"].dtype == torch.float32
    assert 0 <= item["image"].min() < item["image"].max() <= 1
    assert item["landmarks"].shape == (LANDMARKS[scene], 2)
    assert item["landmarks"].dtype == torch.float32
    assert item["visible"].shape == (LANDMARKS[scene],)
    assert item["visible"].dtype == torch.bool
    assert item["mask"].shape == (48, 48)
    assert item["mask"].dtype == torch.bool
    assert 0.05 < item["mask"].float().mean() < 0.9
    assert item["box"].shape == (4,)
    assert ("yaw" in item) == (scene == "talking-faces")
    assert "parts" not in item
    assert SCENES[scene].frames == 16


@pytest.mark.parametrize("scene", SCENES)
def test_the_same_generator_gives_the_same_frame(scene: str) -> None:
    first, again = (draw(scene, 2, 5, 32) for _ in range(2))
    assert all(torch.equal(torch.as_tensor(first[key]), torch.as_tensor(again[key])) for key in first)
    assert not torch.equal(first["image"], draw(scene, 2, 11, 32)["image"])
    assert not torch.equal(first["image"], draw(scene, 3, 5, 32)["image"])


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize(("index", "frame"), [(0, 0), (5, 9)])
def test_size_changes_the_resolution_only(scene: str, index: int, frame: int) -> None:
    small, large = (draw(scene, index, frame, size) for size in (48, 96))
    assert torch.allclose(large["landmarks"], 2 * small["landmarks"], atol=1e-3)
    assert torch.equal(small["visible"], large["visible"])
    assert (torch.nn.functional.avg_pool2d(large["image"], 2) - small["image"]).abs().mean() < 0.02
    covered = torch.nn.functional.avg_pool2d(large["mask"][None].float(), 2)[0] > 0.5
    assert (covered ^ small["mask"]).float().mean() < 0.02


@pytest.mark.parametrize("scene", SCENES)
def test_visible_points_lie_on_the_mask(scene: str) -> None:
    inside = []
    for index in range(4):
        item = draw(scene, index, 4 * index, 64)
        mask = torch.nn.functional.max_pool2d(item["mask"][None].float(), 5, 1, 2)[0]
        x, y = item["landmarks"][item["visible"]].long().T
        inside.append(mask[y, x])
    assert torch.cat(inside).mean() > 0.97


@pytest.mark.parametrize(("scene", "longest"), [("talking-faces", 0.12), ("signers", 0.30)])
def test_videos_move_smoothly(scene: str, longest: float) -> None:
    steps, jumps = [], []
    for index in range(5):
        places = PLACES[scene](index, list(range(16)))
        steps.append(np.linalg.norm(np.diff(places, axis=0), axis=-1))
        # Between two frames nothing jumps: a hundredth of a frame moves less than a fiftieth of the longest step.
        near = PLACES[scene](index, [7.0, 7.01])
        jumps.append(np.linalg.norm(near[1] - near[0], axis=-1))
    assert np.max(steps) < longest
    assert np.max(jumps) < longest / 50
    # And they do move.
    assert np.mean([s.max() for s in steps]) > 0.015


# Measured over 300 videos: 6.3 % and 14.7 % of the side; over 25 the estimate is a tenth off at most.
@pytest.mark.parametrize(("scene", "bound"), [("talking-faces", 0.05), ("signers", 0.11)])
def test_videos_have_variety(scene: str, bound: float) -> None:
    places = np.concatenate([PLACES[scene](index, [7 * index % 16]) for index in range(25)])
    assert np.linalg.norm(places - places.mean(0), axis=-1).mean() > bound


@pytest.mark.parametrize("scene", SCENES)
def test_annotation_is_that_of_the_real_data(scene: str) -> None:
    info = SCENES[scene].info
    assert info.name == f"procedural:{scene}"
    if scene == "signers":
        assert info.landmark_names == bbcpose.LANDMARK_NAMES
        assert set(info.flip_pairs) == set(bbcpose.FLIP_PAIRS)
    else:
        assert replace(info, name="procedural:faces") == FaceScene("faces").info
    named = [index for pair in info.flip_pairs for index in pair]
    assert len(named) == len(set(named))
    for left, right in info.flip_pairs if scene == "signers" else ():
        assert info.landmark_names[left] == info.landmark_names[right].replace("right", "left")
        assert info.landmark_names[left].startswith("left")


# ---------------------------------------------------------------------------------------------- talking faces


def test_mouths_talk_eyes_blink_heads_turn() -> None:
    talks = [talking_faces.sample_talk(generator("talking-faces", index)) for index in range(30)]
    faces = [[talk.face_at(f).expression for f in range(16)] for talk in talks]
    gaps = np.array([[e.gap for e in video] for video in faces])
    eyes = np.array([[e.eye_left for e in video] for video in faces])
    turns = np.array([[talk.pose_at(f).yaw for f in range(16)] for talk in talks])
    # Most talk and close their mouths between words, some listen.
    assert (np.ptp(gaps, 1) > 3).mean() > 0.7
    assert (gaps.min(1) < 1).mean() > 0.5
    assert np.abs(np.diff(gaps, axis=1)).max() < 14
    assert (eyes.min(1) < 0.35).any()
    assert np.median(eyes) > 0.8
    assert 4 < np.median(np.ptp(turns, 1)) < 40
    assert np.abs(turns).max() <= 60
    # Identity does not move.
    assert all(talk.face_at(2).look == talk.face_at(13).look for talk in talks)


def test_a_microphone_hides_what_is_behind_it() -> None:
    talk = talking_faces.sample_talk(generator("talking-faces", 0))
    held = [talking_faces.Microphone.sample(np.random.default_rng(k), talk) for k in range(30)]
    microphone = next(m for m in held if m is not None)
    assert 1 <= sum(m is not None for m in held) <= 15
    sample = {
        "image": torch.ones(3, 64, 64),
        "landmarks": torch.tensor(np.stack([microphone.tip, [0.02, 0.02]]) * 64, dtype=torch.float32),
        "visible": torch.tensor([True, True]),
        "mask": torch.ones(64, 64, dtype=torch.bool),
    }
    drawn = talking_faces._hold(sample, microphone, 64)
    assert drawn["visible"].tolist() == [False, True]
    column, row = (microphone.tip * 64).astype(int)
    assert not drawn["mask"][row, column]
    assert drawn["image"][:, row, column].mean() < 0.8
    assert drawn["mask"][0, 0]


def test_panning_moves_a_picture() -> None:
    size = 64
    wide = round(talking_faces.MARGIN * size)
    ramp = np.broadcast_to(np.arange(wide, dtype=np.float32)[None, :, None] + 0.5, (wide, wide, 3))
    still, moved, closer = (
        talking_faces.pan(ramp, size, np.array(m)) for m in ([0, 0, 0], [0.05, 0.02, 0], [0, 0, 0.1])
    )
    centre = np.arange(size) + 0.5 + (wide - size) / 2
    assert np.allclose(still[5, :, 0], centre, atol=1e-3)
    assert np.allclose(moved[5, :, 0], centre + 0.05 * size, atol=1e-3)
    assert np.ptp(closer[5, :, 0]) == pytest.approx(np.exp(-0.1) * (size - 1), abs=1e-2)


# ---------------------------------------------------------------------------------------------- signers


def test_hands_move_in_signing_space() -> None:
    hands = np.stack(
        [[signers.sample_signs(generator("signs", index)).at(f) for f in range(16)] for index in range(40)]
    )
    wrists = hands[..., :3]
    speed = np.linalg.norm(np.diff(wrists, axis=1), axis=-1)
    assert speed.max() < 18
    # In front of the body, from the waist to the forehead, right hands mostly to the right of left ones.
    assert wrists[..., 2].min() > 5
    assert -60 < wrists[..., 1].min() < wrists[..., 1].max() < 30
    assert (wrists[..., 0, 0] < wrists[..., 1, 0]).mean() > 0.75
    assert (wrists[..., 0, 0] > wrists[..., 1, 0] + 5).any()


def test_right_is_the_signers_own_right() -> None:
    places = np.concatenate([signer_places(index, [0.0]) for index in range(12)])
    assert (places[:, 5, 0] < places[:, 6, 0]).all()
    assert (places[:, 0, 1] < places[:, 5, 1]).all()


def seen(wrists: dict[str, tuple[float, float, float]], turn: float = 0.0) -> dict[str, bool]:
    """Which joints of a plain body are seen with its wrists at places of signing space."""
    body, pose = Body(), Pose(turn=turn)
    for side, place in wrists.items():
        pose = reach_arm(body, pose, side, np.array(place))
    posed = pose_body(body, pose).moved(np.eye(3), (0, -135, 0))
    surfaces = signers._cropped(posed.surfaces, -60.0)
    visible = signers._sees(surfaces, posed, Camera(1 / 110, (0.5, 0.5), 400.0))
    return dict(zip(signers.LANDMARK_NAMES, visible.tolist(), strict=True))


def test_visibility_of_arms() -> None:
    apart = seen({"right": (-30, -15, 25), "left": (30, -15, 25)})
    assert all(apart.values())
    crossed = seen({"right": (2, -16, 38), "left": (2, -16, 16)})
    assert crossed["right wrist"]
    assert not crossed["left wrist"]
    # A wrist straight before the middle of the head.
    assert not seen({"right": (0, 14, 32), "left": (30, -15, 25)})["head"]
    # A forearm that points at the viewer does not hide its own elbow.
    assert seen({"right": (-19, -30, 40), "left": (30, -15, 25)})["right elbow"]
    # Hands behind the back.
    assert not seen({"right": (-6, -40, -22), "left": (30, -15, 25)})["right wrist"]


def test_cropping_leaves_what_is_seen() -> None:
    posed = bodies.pose_body(Body(), Pose())
    cropped = signers._cropped(posed.surfaces, 90.0)
    assert len(cropped) < len(posed.surfaces)
    assert min(s.points[..., 1].min() for s in cropped) >= 90
    assert all(isinstance(s, shapes.Surface) and s.rest is not None for s in cropped)
