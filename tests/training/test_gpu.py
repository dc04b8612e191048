"""What a GPU needs of the loop and the loader. Without one, stand-ins count what it would wait for."""

import time
from contextlib import closing, contextmanager, nullcontext
from itertools import islice
from typing import ClassVar

import pytest
import torch

from mgm.dag.workflow import Workflow
from mgm.data import loader
from mgm.data.clips import PLANES, Training
from mgm.data.index import read_index
from mgm.data.loader import Reading, on_device, training_batches
from mgm.models import build_classifier, build_mae
from mgm.rng import generator
from mgm.spec import Clips, Finetune, Pretrain, RunOptions
from mgm.spec.compute import gpu_bytes
from mgm.stages.run import readers
from mgm.training.loop import micro_batches, train
from mgm.training.mixing import mix
from mgm.training.optim import build_optimiser
from mgm.video.planes import frames_of, no_planes
from tests.helpers.small_runs import FINETUNE, PRETRAIN

B = 4


class Logged(Exception):
    pass


@pytest.fixture
def device(monkeypatch):
    """Yield a device on which it is an error to read a number, or to copy one from a list.

    Tensors of the device "meta" have no content.
    """
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode("error")
        yield torch.device("cuda")
        torch.cuda.set_sync_debug_mode("default")
        return
    real = torch.tensor

    def tensor(*values, device=None, **how):
        assert torch.device(device or "cpu").type == "cpu", f"{values} are copied"
        return real(*values, **how)

    def unfused(*how):
        optimiser = build_optimiser(*how)
        for group in optimiser.param_groups:
            group.update(fused=False, foreach=True)
        return optimiser

    monkeypatch.setattr("torch.tensor", tensor)
    monkeypatch.setattr("mgm.training.loop.build_optimiser", unfused)
    yield torch.device("meta")


def planes(clips: Clips) -> list[torch.Tensor]:
    """Return planes of `B` clips."""
    arrays = no_planes(clips, 40)
    return [torch.from_numpy(arrays[name].repeat(B, 0)) for name in PLANES]


@pytest.mark.parametrize("spec", [PRETRAIN, FINETUNE], ids=["pretrain", "finetune"])
def test_a_step_waits_for_nothing(device, spec, tmp_path, monkeypatch):
    """Conversion of planes, mixing, forward, backward and update. Only a logged step reads."""
    spec = spec.model_copy(update={"optim": spec.optim.model_copy(update={"steps": 300})})
    pretrains, steps = spec.stage == "pretrain", list[int]()
    model = (build_mae(spec) if pretrains else build_classifier(spec, 3)).to(device)
    weight_B, label_B = torch.ones(B), torch.zeros(B, dtype=torch.int64).to(device)
    masked_BL = torch.zeros(B, 18, dtype=torch.bool)
    masked_BL[:, : model.hidden if pretrains else 9] = True
    there = [x.to(device) for x in (masked_BL, weight_B, *planes(spec.clips))]

    def batches(first, reading):
        for step in range(first, 300):
            steps.append(step)
            masked_BL, weights, *own = there
            frames_BTHWC = frames_of(24, *own)
            if pretrains:
                yield (frames_BTHWC, masked_BL, weights), {}
            else:
                drawn = generator(step, "augment")
                mixed = mix(frames_BTHWC, label_B, weight_B, 3, 0.8, 1.0, drawn)
                yield (*mixed, weights), {}

    def logged(*numbers):
        raise Logged

    monkeypatch.setattr("mgm.training.loop._means", logged)
    videos = [str(number) for number in range(100)]
    with pytest.raises(Logged):
        train(spec, model, videos, batches, tmp_path, RunOptions(accumulate=2, compile="off"))
    # 300 steps have 100 lines.
    assert steps == [0, 1, 2]


class Stream:
    """A stand-in of CUDA's streams. It says when the host waits."""

    said: ClassVar = list[str]()

    def __init__(self, *_):
        pass

    def wait_stream(self, other):
        self.said.append("queued")

    def synchronize(self):
        self.said.append("waited")


@pytest.fixture
def stand_in(monkeypatch) -> list[str]:
    """Let tensors of the CPU pass for a GPU's. Return what is said of copies."""

    @contextmanager
    def on(stream):
        yield

    def to(tensor, *how, **options):
        if not isinstance(how[0], torch.device):
            return real(tensor, *how, **options)
        assert options["non_blocking"]
        Stream.said.append("copied")
        return tensor.clone()

    real = torch.Tensor.to
    Stream.said.clear()
    monkeypatch.setattr("torch.cuda.Stream", Stream)
    monkeypatch.setattr("torch.cuda.stream", on)
    monkeypatch.setattr("torch.cuda.current_stream", Stream)
    monkeypatch.setattr("torch.Tensor.to", to)
    monkeypatch.setattr("torch.Tensor.record_stream", lambda *_: None)
    return Stream.said


@pytest.mark.parametrize("ends", ["used", "closed", "error in a step", "error in a copy"])
def test_memory_is_given_back_after_its_copies_however_a_batch_ends(stand_in, ends, monkeypatch):
    cuda, given = torch.device("cuda"), {"weight_B": torch.ones(B)}

    def batches():
        for number in range(3):
            stand_in.append(f"batch {number}")
            yield given

    if ends == "error in a copy":
        monkeypatch.setattr("torch.Tensor.record_stream", lambda *_: 1 / 0)
    with (
        pytest.raises(ZeroDivisionError) if "error" in ends else nullcontext(),
        closing(on_device(batches(), 24, cuda)) as made,
    ):
        for own, host in made:
            assert host is given
            assert torch.equal(own["weight_B"], given["weight_B"])
            if ends == "closed":
                break
            if ends == "error in a step":
                raise ZeroDivisionError
    one = ["copied", "queued", "waited"]
    used = [word for number in range(3) for word in (f"batch {number}", *one)]
    assert stand_in == (used if ends == "used" else used[:4])


def test_planes_are_converted_in_parts(stand_in, monkeypatch):
    """Each of them like the whole."""
    clips = Clips(frames=2, size=16)
    arrays = dict(zip(PLANES, planes(clips)))
    for name in PLANES[:2]:
        arrays[name].random_(0, 256)
    whole = frames_of(16, *arrays.values())
    monkeypatch.setattr(loader, "CONVERTED", 3)
    [(own, _)] = on_device(iter([arrays]), 16, torch.device("cuda"))
    assert own.keys() == {"frames_BTHWC"}
    assert torch.equal(own["frames_BTHWC"], whole)


def test_planes_are_converted_by_one_graph():
    clips = Clips(frames=2, size=16)
    one = torch.compile(frames_of, dynamic=False, fullgraph=True, backend="eager")
    assert torch.equal(one(16, *planes(clips)), frames_of(16, *planes(clips)))


@pytest.mark.parametrize("workers", [0, 1])
def test_waiting_is_time_without_a_batch(data, workers, monkeypatch):
    """A slow reader is waited for. With a worker, a slow step waits for nothing."""
    videos, real = read_index(data).train, Training.write
    for reads_s, computes_s in ((0.05, 0.0), (0.0, 0.05)):
        reading = Reading()

        def slow(*how, reads_s=reads_s):
            time.sleep(reads_s)
            return real(*how)

        monkeypatch.setattr(Training, "write", slow)
        made = training_batches(videos, PRETRAIN.clips, 0, 2, workers=workers, reading=reading)
        next(made)
        reading.waited_s = 0.0
        began = time.monotonic()
        for _ in islice(made, 8):
            time.sleep(computes_s)
        share = reading.waited_s / (time.monotonic() - began)
        made.close()
        assert (share > 0.8) == bool(reads_s)
        assert (share < 0.2) == bool(computes_s)


@pytest.mark.parametrize("refused_at", [0, 2, None])
def test_memory_that_cannot_be_pinned_is_used_as_it_is(data, refused_at, monkeypatch, capsys):
    """What was pinned before is given back. The error does not show up in the next kernel."""
    pinned, asked, raised = list[int](), list[int](), list[str]()

    class Cudart:
        def cudaHostRegister(self, address, size, flags):
            asked.append(address)
            if len(asked) - 1 == refused_at:
                return 2
            pinned.append(address)
            return 0

        def cudaHostUnregister(self, address):
            pinned.remove(address)

    def zeros(*shape, **how):
        raised.append(how["device"])
        raise RuntimeError("CUDA error: out of memory")

    videos = read_index(data).train
    whole = [{**batch} for batch in islice(training_batches(videos, PRETRAIN.clips, 0, 2), 1)]
    monkeypatch.setattr("torch.cuda.cudart", Cudart)
    monkeypatch.setattr("torch.zeros", zeros)
    made = training_batches(videos, PRETRAIN.clips, 0, 2, pin=True)
    first = next(made)
    assert all(torch.equal(first[name], whole[0][name]) for name in first)
    count = len(asked)
    assert len(pinned) == (count if refused_at is None else refused_at)
    next(made)
    assert len(asked) == count
    made.close()
    assert not pinned
    assert raised == ([] if refused_at is None else ["cuda"])
    assert ("pins no memory (error 2)" in capsys.readouterr().err) == (refused_at is not None)


@pytest.mark.parametrize(
    ("environment", "workers"),
    [
        ({}, 95),
        ({"LOCAL_WORLD_SIZE": "8"}, 11),
        ({"MGM_GPUS": "0,1,2,3"}, 23),
        ({"MGM_GPUS": ""}, 95),
        ({"MGM_GPUS": "0,1", "LOCAL_WORLD_SIZE": "96"}, 0),
    ],
)
def test_a_gpu_has_its_share_of_the_cores(environment, workers, monkeypatch):
    """With one run on all GPUs, and with one run on each."""
    for name in ("LOCAL_WORLD_SIZE", "MGM_GPUS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("mgm.stages.run.cores", lambda: 96)
    monkeypatch.setattr("mgm.stages.run.best_device", lambda: torch.device("cuda"))
    assert readers(RunOptions()) == workers
    assert readers(RunOptions(workers=3)) == 3
    monkeypatch.setattr("mgm.stages.run.best_device", lambda: torch.device("cpu"))
    assert readers(RunOptions()) == 0


def test_each_run_of_the_paper_fits_a_gpu_of_80_gb(monkeypatch):
    """Alone on it: in as few micro-batches as fit, which divide the step's videos."""
    free = 79 * 10**9
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free, free))
    cuda, chosen = torch.device("cuda"), set[int]()
    for spec in Workflow({"study": "paper"}).specs.values():
        if isinstance(spec, Pretrain | Finetune):
            videos = spec.optim.batch
            parts = micro_batches(spec, videos, cuda, RunOptions())
            repeats = spec.augment.repeats if isinstance(spec, Finetune) else spec.repeats
            assert videos % parts == 0
            assert gpu_bytes(spec, videos * repeats, parts, 400) < 0.9 * free
            assert parts == 1 or gpu_bytes(spec, videos * repeats, parts // 2, 400) > 0.7 * free
            assert micro_batches(spec, videos // 16, cuda, RunOptions()) == 1
            chosen.add(parts)
    assert {1, 2} <= chosen
    assert micro_batches(spec, videos, torch.device("cpu"), RunOptions()) == 1
