"""The masks by name, without torch: what specs, tables and figures must know of them. `mgm.masking` says what each hides.

A mask of your own is a file mgm/masking/NAME.py with a function NAME, and a line here (a hyphen in the name is an underscore there).
"""

from typing import NamedTuple


class Listed(NamedTuple):
    """One mask."""

    row: str = ""  # its row in Table 4e; empty: none
    dense: bool = False  # the function returns boxes, and the patches nearest to them are hidden; otherwise what is hidden itself
    guided: bool = False  # needs motion


MASKS = {
    "agnostic": Listed(),
    "tube": Listed("Random Tube"),
    "block": Listed("Random Block", dense=True),
    "smm-sparse": Listed("SMM (Sparse)"),
    "smm": Listed("SMM (Dense)", dense=True),
    "mgm-sparse": Listed("MGM (Sparse)", guided=True),
    "mgm": Listed("MGM (Dense)", dense=True, guided=True),
}
