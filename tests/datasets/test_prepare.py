import pytest
from typer.testing import CliRunner

from mgm.cli import app
from mgm.datasets.prepare import prepare_synthetic, read_params, summary
from mgm.datasets.synthetic.params import Synthetic
from mgm.errors import UserError


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no such file"),
        ("{", "not JSON"),
        ("[]", "the file: Input should be a valid dictionary"),
        ('{"sprites": 2}', "sprites: Extra inputs are not permitted"),
        ('{"kind": "ucf11"}', "kind: Input should be 'ssv2', 'k400', 'ucf101', 'hmdb51' or 'diving48' (got 'ucf11')"),
        ('{"classes": 13}', "classes: kind ssv2 has at most 12 (got 13)"),
        ('{"kind": "hmdb51", "classes": 15}', "classes: kind hmdb51 has at most 14 (got 15)"),
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


def test_a_kind_has_all_its_classes_by_default(tmp_path):
    (tmp_path / "params.json").write_text('{"kind": "hmdb51"}')
    assert read_params(tmp_path / "params.json").classes == 14


def test_parameters_from_a_file_make_the_set_and_its_summary(tmp_path):
    (tmp_path / "params.json").write_text('{"classes": 2, "train_per_class": 2, "test_per_class": 1, "size": 32, "frames": 4}')
    index = prepare_synthetic(tmp_path / "params.json", tmp_path / "set")
    assert index.digest == read_params(tmp_path / "params.json").digest
    first, second, head, left, right = summary(index).splitlines()
    assert first.startswith("6 videos of 2 classes in ")
    assert "seed 0" in second
    assert head.split() == ["train", "test"]
    assert (left.split()[-2:], right.split()[-2:]) == (["2", "1"], ["2", "1"])


def test_derived_indices_are_prepared_from_the_command_line(tmp_path):
    """Their folders are given, or one line says what is wrong."""
    for kind in ("ucf101", "hmdb51"):
        prepare_synthetic(Synthetic(kind=kind, train_per_class=1, test_per_class=1, size=32, frames=2), tmp_path / kind)
    command = ["prepare", "hmdb14-ucf7", "--source", f"{tmp_path}/hmdb51", "--target", f"{tmp_path}/ucf101"]
    result = CliRunner().invoke(app, [*command, "--out", f"{tmp_path}/pda"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("21 videos of 14 classes in ")
    assert (tmp_path / "pda" / "index.json").is_file()
    result = CliRunner().invoke(app, ["prepare", "mini-k200", "--source", f"{tmp_path}/ucf101", "--out", f"{tmp_path}/mini"])
    assert "no file of 28 is named ID_START_END.ext" in str(result.exception)


def test_the_summary_lists_what_was_left_out(generated):
    from dataclasses import replace

    index = generated[1]
    still = tuple(replace(video, codec="vp9", has_vectors=False) for video in index.videos[:3])
    text = summary(replace(index, videos=(*still, *index.videos[3:]), excluded=(("a/x.mp4", "is empty"),)))
    assert "3 videos have no motion vectors (vp9)" in text
    assert text.endswith("1 files left out:\n  a/x.mp4: is empty")
