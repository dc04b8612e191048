"""Controls: what classifies videos without a trained model.

`mgm measure controls` measures them.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Control:
    """A set of features. `name` is the metric of a run.

    `says` begins the warning if the features predict the class.
    """

    name: str
    title: str
    kind: Literal["file", "picture", "motion", "model"]
    says: str = ""


CONTROLS = (
    Control("frames", "Number of frames", "file", "the number of frames"),
    Control("duration", "Duration", "file", "the duration"),
    Control("bytes", "File size", "file", "the file size"),
    Control("picture_size", "Picture size", "file", "the picture size"),
    Control("file_facts", "File facts", "file", "what the file says of itself"),
    Control("middle_frame", "Middle frame, 12 x 12", "picture"),
    Control("mean_frame", "Mean frame, 12 x 12", "picture"),
    Control("frame_difference", "Frame differences, 12 x 12", "picture"),
    Control("vector_mean", "Mean motion vector, 2 numbers", "motion"),
    Control("vector_four", "Motion in four directions, 4 numbers", "motion"),
    Control("vector_trajectory", "Trajectory of the largest motion", "motion"),
    Control("vector_histogram", "Histogram of motion vectors, 81 numbers", "motion"),
    Control("vector_quadrants", "Histogram by quadrant, 324 numbers", "motion"),
    Control("random_weights", "Random weights", "model"),
)
