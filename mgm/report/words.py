"""How the report writes numbers, and what it says of a scale."""

from mgm.study.scales import Scale

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


def number(value: float | None, sign: bool = False, decimals: int = 1) -> str:
    """Format a number with a true minus sign and never as −0.0; None is a dash."""
    if value is None:
        return DASH
    return f"{value:{'+' if sign else ''}z,.{decimals}f}".replace("-", MINUS)


def caveat_of(scale: Scale) -> str:
    """Return the scale's caveat without the scale's name at its start.

    A scale's caveat is about its own datasets, and not about a user's videos.
    """
    if scale.own_videos:
        return "Small models on your own videos. The order of the masks may differ for larger ones."
    text = scale.caveat.strip()
    if text.lower().startswith(f"{scale.name} scale: ".lower()):
        text = text.split(": ", 1)[1]
    return text[:1].upper() + text[1:]


def comparable(scale: Scale) -> bool:
    """Return whether our numbers may be compared with the paper's."""
    return scale.name == "paper" and not scale.own_videos


def paper_note(scale: Scale) -> str:
    """Return a note on the paper's numbers for scales that do not repeat its experiments."""
    if scale.own_videos:
        return "Own videos: the paper has no numbers for them."
    if not comparable(scale):
        return (
            f"Scale {scale.name} does not repeat the paper's experiments: the paper's numbers are "
            "for orientation only."
        )
    return ""
