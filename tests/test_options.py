"""Each field of RunOptions is also an option of the command line, of clusters and of scales."""

from typing import get_args

import typer

from mgm.cli import app
from mgm.dag.cluster import JobResources
from mgm.spec import LoadOptions, RunOptions
from mgm.study.scales import Scale


def other(field) -> object:
    """Return a valid value that is not the field's default."""
    if field.annotation is bool:
        return not field.default
    choices = get_args(field.annotation)
    if choices == (int, type(None)):
        return 3
    return next(x for x in choices if x != field.default) if choices else field.default + 1


CHANGED = RunOptions(**{name: other(field) for name, field in RunOptions.model_fields.items()})


def parsed(stage: str, words: list[str]) -> dict[str, object]:
    command = typer.main.get_command(app).commands[stage]  # type: ignore[attr-defined]
    words = ["spec.json", "--out", "results", "--data", "a=b", *words]
    return command.make_context(stage, words).params


def test_the_command_line_takes_what_the_options_write():
    for options in (RunOptions(), CHANGED):
        for stage, kind in (
            ("pretrain", RunOptions),
            ("finetune", RunOptions),
            ("probe", LoadOptions),
        ):
            given = parsed(stage, options.words(kind.model_fields))
            assert {name: given[name] for name in kind.model_fields} == {
                name: getattr(options, name) for name in kind.model_fields
            }
    assert RunOptions().words(RunOptions.model_fields) == []
    default = {name: field.default for name, field in RunOptions.model_fields.items()}
    assert all(getattr(CHANGED, name) != value for name, value in default.items())


def test_scales_and_clusters_have_every_option():
    assert Scale.model_fields["execution"].annotation is RunOptions
    assert issubclass(JobResources, RunOptions)
    job = JobResources(nodes=1, gpus=0, cpus=1, mem_gb=1, hours=1, accumulate=4, compile="auto")
    assert CHANGED.changed(job) == CHANGED.model_copy(update={"accumulate": 4, "compile": "auto"})
