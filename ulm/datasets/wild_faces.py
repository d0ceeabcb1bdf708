"""Faces as the protocol of CelebA in the wild has them: anywhere in the picture, but never small."""

from __future__ import annotations

import numpy as np

from ulm.datasets import faces
from ulm.datasets.rendering import Array, Camera

HEAD = np.array([1.1, 1.35])
"""Width and height of a head's box, in those of the box of its landmarks."""
LEAST = 0.3
"""Share of the picture that the head's box takes at least; StableKeypoints, section 4, and the methods it compares with
omit images of CelebA with smaller faces."""


class WildFaceScene(faces.FaceScene):
    """The scene ``faces-wild``: heads of any size and place, of which small ones are omitted."""

    def _camera(self, rng: np.random.Generator, landmarks: Array) -> Camera:
        while True:  # about three times
            camera = super()._camera(rng, landmarks)
            if np.prod(HEAD * np.ptp(camera.project(landmarks, 1), axis=0)) >= LEAST:
                return camera
