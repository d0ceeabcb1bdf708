"""The drawing code of every figure: one style, one palette, opaque white ground, no title inside the picture.

A function takes arrays and returns a closed ``Figure``, which a notebook shows as the last expression of a cell; its
caption and its text for those who do not see it are in the cell's metadata. Images are ``(B, 3, H, W)`` in [0, 1],
points ``(B, K, 2)`` in pixels of them, with the centre of the first pixel at (0.5, 0.5); NaN points are not drawn.

A discovered landmark has a colour and a shape by its index. Ground truth is an empty circle, what a regressor predicts
a dark cross: they differ in shape, not in colour alone.
"""

from ulm.figures.attention import *  # noqa: F403
from ulm.figures.base import *  # noqa: F403
from ulm.figures.beyond_faces import *  # noqa: F403
from ulm.figures.duld import *  # noqa: F403
from ulm.figures.generation import *  # noqa: F403
from ulm.figures.subjects import *  # noqa: F403
