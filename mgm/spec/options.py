"""How a command computes: threads, workers and so on. None of it may change a result."""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from mgm.errors import MOST_PROCESSES
from mgm.spec.values import Clips, FrozenModel, Views


class ReadOptions(FrozenModel):
    """How videos are read."""

    threads: int = Field(1, ge=1, le=MOST_PROCESSES, description="Threads per process.")
    workers: int = Field(
        0,
        ge=0,
        le=MOST_PROCESSES,
        description="Worker processes that decode videos, per computing process; 0: none.",
    )


class LoadOptions(ReadOptions):
    """How a stage that reads a dataset is computed."""

    cache_mb: int = Field(
        0, ge=0, description="Memory for decoded videos (MB), for small datasets."
    )


class RunOptions(LoadOptions):
    """How a run is computed. A run's id has none of it, since none of it may change a result.

    The command line, the files of scales and clusters, and the training loop share this one value.
    A new option is a field here and the line that reads it.
    """

    accumulate: int = Field(
        1, ge=1, description="Micro-batches per step and process; more save memory."
    )
    checkpoint_s: float = Field(300, ge=0, description="Seconds between checkpoints.")
    recompute: bool = Field(
        False, description="Recompute activations in the backward pass, to save memory."
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="Use torch.compile for a model's blocks; auto: on a GPU."
    )
    bf16_gradients: bool = Field(
        False, description="Exchange gradients between processes in bf16: half the traffic."
    )

    def changed(self, by: "RunOptions") -> "RunOptions":
        """Return these options, with those that `by` was given in their place."""
        names = RunOptions.model_fields.keys() & by.model_fields_set
        return self.model_copy(update={name: getattr(by, name) for name in names})

    def words(self, names: Iterable[str]) -> list[str]:
        """Return the command line of those options of `names` that differ from their defaults."""
        words: list[str] = []
        for name in names:
            value = getattr(self, name)
            if value != RunOptions.model_fields[name].default:
                text = f"{value:g}" if isinstance(value, float) else str(value)
                words += [f"--{name.replace('_', '-')}", *([] if value is True else [text])]
        return words


class ApplyOptions(ReadOptions):
    """How `mgm embed` cuts videos into clips, and how it reads them."""

    temporal: int = Field(1, ge=1, description="Clips per video, evenly spaced.")
    spatial: int = Field(1, description="Crops per clip, 1 or 3.")
    frames: int = Field(16, ge=1, description="Weights without a run: frames per clip.")
    size: int = Field(224, ge=8, description="Weights without a run: side of a clip (pixels).")
    stride: int = Field(
        4, ge=1, description="Weights without a run: video frames from one clip frame to the next."
    )
    every: float | None = Field(
        None, ge=0.01, description="Long videos: seconds from one window to the next."
    )
    window: float = Field(
        0.0, ge=0, description="Long videos: seconds per window; 0: the clip's frames and stride."
    )

    def clips(self) -> Clips:
        """Return the clips that weights without a run are given."""
        return Clips(frames=self.frames, size=self.size, stride=self.stride, sampling="window")

    def views(self) -> Views:
        """Return the views per video."""
        return Views(temporal=self.temporal, spatial=self.spatial)  # type: ignore[arg-type]


class PredictOptions(ApplyOptions):
    """The same for `mgm predict`, which takes more views by default."""

    temporal: int = Field(5, ge=1, description="Clips per video, evenly spaced.")
    spatial: int = Field(3, description="Crops per clip, 1 or 3.")
