import pytest

from mgm.datasets.prepare import prepare_synthetic, read_params, summary
from mgm.errors import UserError


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no such file"),
        ("{", "not JSON"),
        ("[]", "the file: Input should be a valid dictionary"),
        ('{"sprites": 2}', "sprites: Extra inputs are not permitted"),
        ('{"classes": 13}', "classes: Input should be less than or equal to 12 (got 13)"),
        ('{"size": 40}', "size: Input should be a multiple of 16 (got 40)"),
    ],
)
def test_bad_parameters_name_file_and_field(tmp_path, text, says):
    path = tmp_path / "params.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as error:
        read_params(path)
    assert str(error.value).startswith(f"{path}: ")
    assert says in str(error.value)


def test_parameters_from_a_file_make_the_set_and_its_summary(tmp_path):
    (tmp_path / "params.json").write_text('{"classes": 2, "train_per_class": 2, "test_per_class": 1, "size": 32, "frames": 4}')
    index = prepare_synthetic(tmp_path / "params.json", tmp_path / "set")
    assert index.digest == read_params(tmp_path / "params.json").digest
    first, second, head, left, right = summary(index).splitlines()
    assert first.startswith("6 videos of 2 classes in ")
    assert "seed 0" in second
    assert head.split() == ["train", "test"]
    assert (left.split()[-2:], right.split()[-2:]) == (["2", "1"], ["2", "1"])


def test_the_summary_lists_what_was_left_out(generated):
    from dataclasses import replace

    index = generated[1]
    still = tuple(replace(video, codec="vp9", has_vectors=False) for video in index.videos[:3])
    text = summary(replace(index, videos=(*still, *index.videos[3:]), excluded=(("a/x.mp4", "is empty"),)))
    assert "3 videos have no motion vectors (vp9)" in text
    assert text.endswith("1 files left out:\n  a/x.mp4: is empty")
