"""The version of this package."""

__version__ = "0.1.0"
# The format of a store's files: tracks and mp4 files. Others are written anew.
STORE = 2
