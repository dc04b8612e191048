"""The version of this package."""

__version__ = "0.1.0"
# The format of a store's files: tracks and mp4 files. Others are written anew.
STORE = 2
# How the vectors of H.264 are read: 2 finds their references by fit. Sets of H.264 that were read
# otherwise have other digests.
VECTORS = 2
