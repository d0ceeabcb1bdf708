"""Landmarks without labels: discovering object landmarks without supervision."""
