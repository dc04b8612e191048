"""The version of this package."""

__version__ = "0.1.0"
# The format of prepared folders: their indices, tracks and mp4 files. Others are prepared anew.
STORE = 2
