"""The report shows the results that exist; it works offline, and without any results."""

import re

import pytest

from mgm.errors import UserError
from mgm.report.build import build_report
from mgm.report.page.sections import DEVIATIONS, deviations
from mgm.study.suite import make_registry
from tests.helpers.fake_results import BOTH, draw_arrays, finish, finish_all, registry, write_log


@pytest.fixture
def places(tmp_path):
    return tmp_path / "results/smoke", tmp_path / "reports/smoke"


def without_plots(known):
    """Return the registry without the plots of cells, which take most of a page's time."""
    known.plots.clear()
    return known


def test_with_nothing_there_the_page_says_so(places):
    known = registry()
    path = build_report(known, *places)
    text = path.read_text()
    assert path == places[1] / "index.html"
    assert f"0 of {len(known.specs)} finished" in text
    assert known.figures["5"].run.run_id in text
    cells = [cell for table in known.tables.values() for cell in table.cells]
    assert text.count('<span class="status is-not-run">not run</span>') == len(cells) + len(
        known.specs
    )
    assert not places[0].exists()


def test_a_full_page_is_self_contained(places):
    known = registry()
    finish_all(places[0], known)
    draw_arrays(places[0], known)
    text = build_report(known, *places).read_text()
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(known.specs) <= set(ids)  # test_page_chromium.py follows every link
    assert not re.search(r"https?://(?!www\.w3\.org)", text)
    assert known.scale.caveat.split(";")[-1].strip() in text
    assert f"{len(known.specs)} of {len(known.specs)} finished" in text
    for cell in known.tables["4e"].cells:
        for run in cell.runs:
            assert f'href="#{run.run_id}"' in text
    drawn = {path.name for path in (places[1] / "figures").iterdir()}
    assert drawn == {
        f"figure{name}.{ending}"
        for name in (*known.plots, "5")
        for ending in ("svg", "pdf", "png", "npz")
    }


def test_a_foreign_log_does_not_break_the_page(places):
    known = without_plots(registry(seeds=(0,)))
    for spec, text in zip(
        known.specs.values(),
        ('{"step": 1}\n{"step": 2}\n', '{"step": 1, "loss": NaN}\n' * 3, "[1]\nhello\n"),
    ):
        finish(places[0], spec)
        (places[0] / spec.run_id / "log.jsonl").write_text(text)
    assert "No run has written a log yet" in build_report(known, *places).read_text()


def test_what_is_missing_is_named_with_its_reason(places):
    known = without_plots(registry())
    finish_all(places[0], known, steps=3)
    failed, altered, running = [
        run_id for run_id, spec in known.specs.items() if spec.stage == "finetune"
    ][3:6]
    for run_id in (failed, running):
        for path in (places[0] / run_id).iterdir():
            path.unlink()
    (places[0] / failed / "error.txt").write_text("the loss is <nan> at step 7")
    (places[0] / altered / "result.json").write_text("{}")
    write_log(places[0] / running, 2, 3)
    text = build_report(known, *places).read_text()
    overview = text[text.index("Missing runs") :].split("</ul>")[0]
    for run_id, words in (
        (failed, "the loss is &lt;nan&gt; at step 7"),
        (altered, "changed since it was written"),
        (running, "step 2 of 3"),
    ):
        assert re.search(rf"{run_id}</code></a> · [^<]*{words}", overview), run_id
    # The page contains no path of this machine.
    assert str(places[0].parent) not in text


def test_a_figure_whose_run_is_gone_is_removed(places):
    known = without_plots(registry(seeds=(0,)))
    draw_arrays(places[0], known)
    build_report(known, *places)
    assert (places[1] / "figures/figure5.svg").exists()
    (places[0] / known.figures["5"].run.run_id / "result.json").unlink()
    assert 'alt="Figure 5:' not in build_report(known, *places).read_text()
    assert not list((places[1] / "figures").glob("figure5*"))


def test_only_one_table_or_figure(places):
    known = without_plots(registry(seeds=(0,)))
    assert build_report(known, *places, only="table4e") == places[1] / "tables/table4e.csv"
    assert not (places[1] / "index.html").exists()
    with pytest.raises(UserError, match="figure 5: .*visualise-figure5"):
        build_report(known, *places, only="figure5")
    draw_arrays(places[0], known)
    assert build_report(known, *places, only="figure5").exists()
    assert build_report(known, *places, only="figures") == places[1] / "figures"
    assert build_report(known, *places, only="tables") == places[1] / "tables"
    assert not (places[1] / "index.html").exists()
    both = registry(seeds=(0,), datasets=BOTH)
    assert build_report(both, *places, only="table1") == places[1] / "tables/table1.csv"
    # Without runs, figure 1 draws the paper's numbers.
    assert build_report(both, *places, only="figure1").exists()
    with pytest.raises(UserError, match="table9: "):
        build_report(known, *places, only="table9")


def test_a_user_s_own_videos_have_no_quoted_numbers(places):
    scale = registry().scale
    own = {"folder": next(iter(scale.datasets.values()))}
    known = without_plots(make_registry(scale.model_copy(update={"datasets": own})))
    finish_all(places[0], known, steps=3)
    text = build_report(known, *places).read_text()
    assert "Own videos (smoke), top-1 accuracy" in text
    assert "<h1>Own videos: smoke</h1>" in text
    for word in ("to paper", "Paper</th>", "s number</span>"):
        assert word not in text
    lines = (places[1] / "tables/table4e.csv").read_text().splitlines()
    assert all(line.split(",")[2] == "" for line in lines[1:] if '"' not in line)


def test_nothing_of_deviations_is_lost():
    """The HTML has every word of the sections of DEVIATIONS.md, and no Markdown marks."""
    plain = {title: re.sub(r"<[^>]+>", " ", str(content)) for title, content in deviations()}
    assert list(plain) == ["The paper is silent", "We differ", "The paper contradicts itself"]
    for part in DEVIATIONS.read_text().split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        assert [
            word for word in re.findall(r"[A-Za-z]{3,}", body) if word not in plain[title]
        ] == []
        assert "`" not in plain[title]
        assert "---" not in plain[title]
