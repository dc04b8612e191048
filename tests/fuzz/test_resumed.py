"""Stop `mgm embed` and `mgm predict`, damage their files, and resume.

The result equals that of an uninterrupted call, or the call ends with one line.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic
from mgm.errors import UserError
from mgm.models import build_classifier, save_weights
from mgm.spec import ApplyOptions, Clips, Data, Finetune, Model, PredictOptions
from mgm.stages import apply as applied
from mgm.stages import windows as windowed
from mgm.stages.embed import embed
from mgm.stages.predict import predict

pytestmark = pytest.mark.slow
SPEC = Finetune(
    data=Data(dataset="folder"),
    clips=Clips(frames=4, size=24, stride=2),
    model=Model(width=16, depth=1, heads=2, patch=8),
)
WHOLE, LONG = ApplyOptions(), ApplyOptions(every=0.2)
CALLS = {
    "embed": lambda out: embed(Path("videos"), Path("run"), out / "x.npy", WHOLE, "clip"),
    "embed windows": lambda out: embed(Path("videos"), Path("run"), out / "x.parquet", LONG),
    "predict": lambda out: predict(
        Path("videos"), Path("run"), out, None, PredictOptions(temporal=2, spatial=1)
    ),
    "predict windows": lambda out: predict(
        Path("videos"), Path("run"), out, None, PredictOptions(every=0.2)
    ),
}


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """Folder with a fine-tuning run, four videos, and another video to replace one with."""
    place = tmp_path_factory.mktemp("resumed")
    params = Synthetic(classes=2, train_per_class=2, test_per_class=1, size=32, frames=16)
    for number, video in enumerate(generate(params, place / "set").videos[:5]):
        kept = place / ("videos" if number < 4 else "other")
        kept.mkdir(exist_ok=True)
        shutil.copy(video.path, kept / f"{number}.mp4")
    (place / "run").mkdir()
    (place / "run" / "spec.json").write_text(SPEC.model_dump_json())
    save_weights(build_classifier(SPEC, 2), place / "run" / "weights.safetensors")
    return place


def stop(monkeypatch, call, out: Path, after: int) -> None:
    """Start a call, and stop it after `after` saved parts."""

    class StoppedError(BaseException):
        pass

    count = iter(range(after))

    def counted(original):
        def one(*args, **options):
            if next(count, None) is None:
                raise StoppedError
            return original(*args, **options)

        return one

    with monkeypatch.context() as patch:
        patch.setattr(applied.Parts, "save", counted(applied.Parts.save))
        with pytest.raises(StoppedError):
            call(out)


def outputs(out: Path) -> dict[str, object]:
    found = {}
    for path in sorted(out.iterdir()):
        if path.suffix == ".npy":
            found[path.name] = np.load(path).tolist()
        elif path.suffix == ".parquet":
            found[path.name] = pd.read_parquet(path).to_json()
        elif path.is_file():
            found[path.name] = path.read_bytes()
        else:
            pytest.fail(f"{path} is left")
    return found


DAMAGES = st.lists(
    st.one_of(
        st.tuples(st.just("remove"), st.integers(0, 9)),
        st.tuples(st.just("cut"), st.integers(0, 9), st.floats(0, 1)),
        st.tuples(st.just("flip"), st.integers(0, 9), st.floats(0, 0.999), st.integers(1, 255)),
        st.tuples(st.just("swap"), st.integers(0, 9), st.integers(0, 9)),
        st.tuples(st.just("replace"), st.integers(0, 3)),
        st.tuples(st.just("vanish"), st.integers(0, 2)),
    ),
    min_size=1,
    max_size=3,
)


def damage(folder: Path, what: tuple) -> None:
    kind, which, *more = what
    if kind == "replace":
        shutil.copy("other/4.mp4", f"videos/{which}.mp4")
        return
    if kind == "vanish":
        Path(f"videos/{which}.mp4").unlink(missing_ok=True)
        return
    found = sorted(folder.iterdir())
    if not found:
        return
    path = found[which % len(found)]
    content = path.read_bytes()
    if kind == "remove":
        path.unlink()
    elif kind == "cut":
        path.write_bytes(content[: int(more[0] * len(content))])
    elif kind == "flip" and content:
        at = int(more[0] * len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ more[1]]) + content[at + 1 :])
    elif kind == "swap":
        other = found[more[0] % len(found)]
        first, second = path.read_bytes(), other.read_bytes()
        path.write_bytes(second)
        other.write_bytes(first)


@pytest.mark.parametrize("name", CALLS)
def test_resumed_after_damage(origin, tmp_path_factory, monkeypatch, name):
    monkeypatch.setattr(applied, "PART", 1)
    monkeypatch.setattr(windowed, "PART", 2)

    @settings(
        max_examples=12,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        phases=[Phase.explicit, Phase.generate],
    )
    @example(4, [("swap", 0, 1), ("swap", 2, 3)])
    @example(4, [("swap", 1, 2)])
    @given(st.integers(1, 3), DAMAGES)
    def check(after, damages):
        place = tmp_path_factory.mktemp("once")
        shutil.copytree(origin, place, dirs_exist_ok=True)
        os.chdir(place)
        out, wanted = place / "out", place / "wanted"
        out.mkdir()
        # Without windows there are only four parts, one per video.
        stop(monkeypatch, CALLS[name], out, after if "windows" in name else min(after, 3))
        (folder,) = out.glob("*.parts")
        for what in damages:
            if folder.exists():
                damage(folder, what)
        said = ""
        try:
            CALLS[name](out)
        except UserError as error:
            said = str(error)
        if said:
            assert said.isprintable()
            assert str(folder) in said
            return
        CALLS[name](wanted)
        assert outputs(out) == outputs(wanted)

    here = Path.cwd()
    try:
        check()
    finally:
        os.chdir(here)
