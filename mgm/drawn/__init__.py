"""Generated videos whose classes are motions."""
