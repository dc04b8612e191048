"""The code in docs/use-our-masks.md runs as it stands, on a video file."""

import re
from pathlib import Path

import torch

from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic

PAGE = Path(__file__).parents[2] / "docs" / "use-our-masks.md"


def test_the_documents_example_trains_hugging_faces_model_on_our_mask(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(code.splitlines()) < 40
    index = generate(
        Synthetic(classes=2, train_per_class=1, test_per_class=1, size=64), tmp_path / "drawn"
    )
    Path(index.videos[0].path).rename(tmp_path / "video.mp4")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    found: dict = {}
    exec(compile(code, str(PAGE), "exec"), found)

    masked_BSP = found["masked_BL"].view(1, 8, 196)
    assert (masked_BSP.sum(2) == int(0.75 * 196)).all()
    motion_SP = torch.nn.functional.adaptive_avg_pool2d(
        torch.from_numpy(found["motion_SHW"]), (14, 14)
    ).flatten(1)
    covered = (motion_SP * masked_BSP[0]).sum() / motion_SP.sum()
    assert covered > 0.75  # a mask that ignored motion would cover 0.75
    assert 0 < found["loss"].item() < 10
    gradients = [parameter.grad for parameter in found["model"].parameters()]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
