"""The controls of a dataset: what can be classified without a trained model."""

from dataclasses import dataclass
from typing import Literal

FILE_FACTS = "file_facts"


@dataclass(frozen=True)
class Control:
    """One set of features. `says` begins the warning of a file fact that predicts the class."""

    name: str
    title: str
    kind: Literal["file", "picture", "motion", "model"]
    says: str = ""


CONTROLS = (
    Control("frames", "Number of frames", "file", "the number of frames"),
    Control("duration", "Duration", "file", "the duration"),
    Control("bytes", "File size", "file", "the file size"),
    Control("picture_size", "Picture size", "file", "the picture size"),
    Control(FILE_FACTS, "All file facts", "file", "what the file says of itself"),
    Control("middle_frame", "Middle frame, 12 x 12", "picture"),
    Control("mean_frame", "Mean frame, 12 x 12", "picture"),
    Control("frame_difference", "Mean |frame difference|, 12 x 12", "picture"),
    Control("vector_mean", "Mean motion vector, 2 numbers", "motion"),
    Control("vector_four", "Motion in four directions, 4 numbers", "motion"),
    Control("vector_histogram", "Motion-vector histogram, 9 x 9", "motion"),
    Control("vector_quadrants", "Motion-vector histogram by quadrant", "motion"),
    Control("vector_trajectory", "Trajectory of the largest motion", "motion"),
    Control("random_weights", "Random weights", "model"),
)
