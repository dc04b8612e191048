"""Options of how a command computes: threads, workers and so on. No option changes a result."""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from mgm.errors import MOST_PROCESSES
from mgm.spec.values import Clips, FrozenModel, Views


class ReadOptions(FrozenModel):
    """Options of commands that read videos."""

    threads: int = Field(1, ge=1, le=MOST_PROCESSES, description="Threads per process.")
    workers: int | None = Field(
        None,
        ge=0,
        le=MOST_PROCESSES,
        description="Worker processes that decode videos, per training process; 0: none. "
        "Default: on a GPU all cores but one, otherwise 0.",
    )


class LoadOptions(ReadOptions):
    """Options of stages that read a dataset."""

    cache_mb: int = Field(
        0, ge=0, description="Memory for decoded videos (MB), useful for small datasets."
    )


class RunOptions(LoadOptions):
    """Options of training runs. They do not change a result, so they are no part of a run's id.

    The command line, the files of scales and clusters, and the training loop share this value.
    To add an option, add a field here and the line that reads it.
    """

    accumulate: int = Field(
        1, ge=1, description="Micro-batches per step and process; more of them save memory."
    )
    checkpoint_s: float = Field(300, ge=0, description="Seconds between checkpoints.")
    recompute: bool = Field(
        False, description="Recompute activations in the backward pass, to save memory."
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="Use torch.compile for the model and its loss; auto: only on a GPU."
    )

    def changed(self, by: "RunOptions") -> "RunOptions":
        """Return these options, updated by the fields that `by` sets."""
        names = RunOptions.model_fields.keys() & by.model_fields_set
        return self.model_copy(update={name: getattr(by, name) for name in names})

    def words(self, names: Iterable[str]) -> list[str]:
        """Return the words of the command line for the options in `names`, without defaults."""
        words: list[str] = []
        for name in names:
            value = getattr(self, name)
            if value != RunOptions.model_fields[name].default:
                text = f"{value:g}" if isinstance(value, float) else str(value)
                words += [f"--{name.replace('_', '-')}", *([] if value is True else [text])]
        return words


class ApplyOptions(ReadOptions):
    """Options of `mgm embed`: how videos are cut into clips and read."""

    temporal: int = Field(2, ge=1, description="Clips per video, evenly spaced.")
    spatial: int = Field(1, description="Crops per clip, 1 or 3.")
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

    def clips(self, frames: int = 16, size: int = 224, stride: int = 4) -> Clips:
        """Return the clips for weights that come without a run. Options replace the arguments."""
        frames, size, stride = self.frames or frames, self.size or size, self.stride or stride
        return Clips(frames=frames, size=size, stride=stride, sampling="window")

    def views(self) -> Views:
        """Return the views per video."""
        return Views(temporal=self.temporal, spatial=self.spatial)  # type: ignore[arg-type]


class PredictOptions(ApplyOptions):
    """Options of `mgm predict`."""

    split: Literal["train", "test"] | None = Field(
        None, description="Index: only videos of this split; print their top-1."
    )
