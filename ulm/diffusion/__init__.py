"""Diffusion pipelines in Stable Diffusion's layout: loading, latents, attention and feature taps, inversion."""

from ulm.diffusion.inversion import invert
from ulm.diffusion.pipelines import CONFIGS, Pipeline, build, load
from ulm.diffusion.taps import attention_maps, resnet_features

__all__ = ["CONFIGS", "Pipeline", "attention_maps", "build", "invert", "load", "resnet_features"]
