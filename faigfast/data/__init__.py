"""Photographs, degradations, and folders of images."""

from faigfast.data.degradations import Degradation
from faigfast.data.folders import DegradedFolder, PairedFolders
from faigfast.data.images import read_image, write_image
from faigfast.data.photographs import KEPT_OUT, TRAINING, photograph, photographs

__all__ = [
    "KEPT_OUT",
    "TRAINING",
    "Degradation",
    "DegradedFolder",
    "PairedFolders",
    "photograph",
    "photographs",
    "read_image",
    "write_image",
]
