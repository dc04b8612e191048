import os

# A notebook names its own backend here, and Matplotlib refuses one that is not installed.
os.environ.pop("MPLBACKEND", None)
