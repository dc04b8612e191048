"""Options of how a command computes: threads, workers and so on. Those of a run change its result
by rounding alone; those of embed and predict choose clips.

The table of controls stands here too, since studies, measures and reports share it.
"""

from typing import Literal, NamedTuple

from pydantic import Field

from mgm.spec.masks import FrozenModel

MOST_PROCESSES = 1024  # also the most threads per process


class ReadOptions(FrozenModel):
    """Options of commands that read videos."""

    threads: int = Field(1, ge=1, le=MOST_PROCESSES, description="Threads per process.")
    workers: int | None = Field(
        None,
        ge=0,
        le=MOST_PROCESSES,
        description="Worker processes that read videos, per training process; 0: none. "
        "Default: on a GPU its share of the cores but one, otherwise 0.",
    )


class RunOptions(ReadOptions):
    """Options of runs. They change a result by rounding alone, so a run's id has none of them.

    The command line, the files of scales, and the training loop share this value.
    To add an option, add a field here and the line that reads it.
    """

    accumulate: int | None = Field(
        None,
        ge=1,
        description="Micro-batches per step and process; more of them save memory. Default: on a "
        "GPU as few as fit, by an estimate, otherwise 1.",
    )
    checkpoint_s: float = Field(300, ge=0, description="Seconds between checkpoints.")
    recompute: bool = Field(
        False, description="Recompute activations in the backward pass, to save memory."
    )
    bf16_gradients: bool = Field(
        False,
        description="Exchange gradients between processes as bfloat16, which halves what a slow "
        "network carries.",
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="Use torch.compile for the model and its loss; auto: only on a GPU."
    )

    def compiles(self, device: str) -> bool:
        """Return whether a run on this type of device uses torch.compile."""
        return self.compile == "on" or (self.compile == "auto" and device == "cuda")

    @property
    def of_training(self) -> list[str]:
        """The words of the options that only training reads."""
        return RunOptions(**self.model_dump(exclude=set(ReadOptions.model_fields))).words()

    def words(self, stage: str = "pretrain") -> list[str]:
        """Return the words of the command line for the options that differ from the defaults.

        Args:
            stage: of the runs. Options that they do not read are left out.
        """
        read = RunOptions if stage in ("pretrain", "finetune") else ReadOptions
        words: list[str] = []
        fields = self.model_dump(exclude_defaults=True, include={*read.model_fields})
        for name, value in fields.items():
            text = f"{value:g}" if isinstance(value, float) else str(value)
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [text])]
        return words


class ApplyOptions(ReadOptions):
    """Options of `mgm embed`: how videos are cut into clips and read."""

    temporal: int = Field(2, ge=1, description="Clips per video, evenly spaced.")
    spatial: Literal[1, 3] = Field(1, description="Crops per clip, 1 or 3.")
    frames: int | None = Field(
        None,
        ge=1,
        description="Weights without a run: frames per clip; default: config.json's, 16.",
    )
    size: int | None = Field(
        None,
        ge=8,
        description="Weights without a run: side of a clip; default: config.json's, 224.",
    )
    stride: int | None = Field(
        None,
        ge=1,
        description="Weights without a run: every how many frames of the video; default: that of "
        "an export's config.json, 4.",
    )
    force: bool = Field(False, description="Replace an existing file.")


class PredictOptions(ApplyOptions):
    """Options of `mgm predict`."""

    split: Literal["train", "test"] | None = Field(
        None, description="Index: only videos of this split; print their top-1."
    )


class Control(NamedTuple):
    """A set of features that classifies videos without a trained model.

    `name` is a metric of a run of `Measure(name="controls")`.
    """

    name: str
    title: str
    kind: Literal["file", "picture", "motion", "model"]


CONTROLS = (
    Control("frames", "Number of frames", "file"),
    Control("duration", "Duration", "file"),
    Control("bytes", "File size", "file"),
    Control("picture_size", "Picture size", "file"),
    Control("file_facts", "File facts", "file"),
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
