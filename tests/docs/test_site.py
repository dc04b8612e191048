"""Tests of the documentation site.

It builds strictly and offline. Its links work, it shows every command, and its examples run.
"""

import html
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import click
import numpy as np
import pytest
import torch
import typer
from tests.docs.test_additions import PAGES as ADDITIONS
from typer.testing import CliRunner

from mgm.cli import app
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic
from mgm.masking import Grid, make_boxes
from tests.helpers.browser import chromium

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
# Examples of these pages run in other tests.
ELSEWHERE = {
    "use-our-masks.md": "tests/stages/test_use_our_masks.py",
}


def blocks(text: str, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [code for of, code in fenced if of == language]


CODE = {page.name: code for page in PAGES if (code := blocks(page.read_text(), "python"))}


class Page(HTMLParser):
    """The links of a page, the files that it loads, and its anchors."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.loads, self.anchors = list[str](), list[str](), set[str]()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if given.get("id"):
            self.anchors.add(given["id"])
        if tag == "a" or given.get("rel") in ("canonical", "prev", "next"):
            self.links += [given["href"]] if given.get("href") else []
        else:
            self.loads += [
                given[name]
                for name in ("src", "href", "data", "poster", "srcset")
                if given.get(name)
            ]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> dict[Path, Page]:
    """Build the site and return its pages by path. A dead proxy blocks all downloads."""
    out = tmp_path_factory.mktemp("site").resolve()
    nowhere = dict.fromkeys(
        ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, **nowhere, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # 404.html is for servers only.
    pages = {
        path: Page(path.read_text())
        for path in sorted(out.rglob("*.html"))
        if path.name != "404.html"
    }
    assert len(pages) > 20
    return pages


def test_every_link_and_anchor_resolves(site):
    broken = []
    for path, page in site.items():
        for link in page.links + page.loads:
            if re.match(r"(https?|mailto|data|javascript):", link):
                continue
            target, anchor = urldefrag(link)
            file = (path.parent / unquote(target)).resolve() if target else path
            if not file.is_file() or (
                anchor and file.suffix == ".html" and unquote(anchor) not in site[file].anchors
            ):
                broken.append(f"{path.name}: {link}")
    assert not broken


@pytest.mark.chromium
def test_every_page_is_clean_in_a_narrow_browser_and_search_works_from_disk(site):
    faults: list[tuple[str, str]] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.on(
            "request",
            lambda request: (
                request.url.startswith(("file:", "data:", "about:"))
                or faults.append((page.url, request.url))
            ),
        )
        page.on(
            "console",
            lambda message: message.type != "error" or faults.append((page.url, message.text)),
        )
        page.on("pageerror", lambda error: faults.append((page.url, str(error))))
        for path in site:
            page.goto(path.as_uri())
            if (wide := page.evaluate("document.scrollingElement.scrollWidth")) > 390:
                faults.append((path.name, f"is {wide} pixels wide"))
        page.set_viewport_size({"width": 1280, "height": 900})
        cut = """[...document.querySelectorAll(".md-typeset__scrollwrap")]
            .some(table => table.scrollWidth > table.clientWidth)"""
        for path in site:
            page.goto(path.as_uri())
            if page.evaluate(cut):
                faults.append((path.name, "has a table that is cut"))
        page.goto(next(path for path in site if path.name == "index.html").as_uri())
        page.click("input.md-search__input")
        page.keyboard.type("accumulate")
        page.wait_for_selector('.md-search-result__item a[href*="faq.html"]', timeout=20_000)
    assert not faults


def verbs(group=None, words=("mgm",)):
    """Yield the words and the Click command of each verb."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        yield (*words, name), command
        if hasattr(command, "commands"):
            yield from verbs(command, (*words, name))


def test_every_verb_has_a_section_with_its_options(site):
    (commands,) = (path for path in site if path.name == "commands.html")
    text = commands.read_text()
    for words, command in verbs():
        start = text.index(f'id="{"-".join(words)}"')
        section = text[start : text.find("<h", start + 10)]
        assert html.escape(command.help.splitlines()[0], quote=False) in section.replace(
            "&quot;", '"'
        ), words
        assert all(
            parameter.opts[0] in section
            for parameter in command.params
            if parameter.param_type_name == "option"
        ), words


def test_every_command_on_a_page_is_one_that_mgm_takes():
    """Every `mgm ...` line of a block is parsed by the program itself. None is run."""
    known, seen = dict(verbs()), 0
    for page in (*PAGES, ROOT / "README.md"):
        for line in "\n".join(blocks(page.read_text(), "")).splitlines():
            if not line.startswith("mgm ") or (words := shlex.split(line, comments=True)) == [
                "mgm",
                "--help",
            ]:
                continue
            verb = max(
                (given for given in known if given == tuple(words[: len(given)])),
                key=len,
                default=None,
            )
            assert verb, f"{page.name}: {line}"
            try:
                known[verb].make_context(" ".join(verb), words[len(verb) :])
            except click.ClickException as error:
                raise AssertionError(f"{page.name}: {line}: {error.format_message()}") from None
            seen += 1
    assert seen > 30


def test_every_example_is_run_by_a_test():
    here, added = Path(__file__).read_text(), {f"add-a-{page}.md" for page in ADDITIONS}
    for name in CODE.keys() - ELSEWHERE.keys() - added:
        assert re.search(rf'[(\[]"{name}"[)\]]', here), name
    assert all(name in (ROOT / test).read_text() for name, test in ELSEWHERE.items())


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Temporary current folder with two videos."""
    index = generate(
        Synthetic(classes=2, train_per_class=1, test_per_class=1, size=64), tmp_path / "drawn"
    )
    for video, name in zip(index.videos, ("video.mp4", "other.mp4")):
        (tmp_path / name).write_bytes(Path(video.path).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(name: str) -> dict:
    """Run a page's examples one after another, and return their variables."""
    variables: dict = {}
    for code in CODE[name]:
        exec(compile(code, name, "exec"), variables)
    return variables


def test_quick_start(folder, capsys):
    masked_SP = run("quick-start.md")["masked_BL"].view(8, 196)
    assert (masked_SP.sum(1) == 147).all()
    assert "147, 147" in capsys.readouterr().out


def test_motion_vectors(folder, capsys):
    variables = run("motion-vectors.md")
    assert variables["clip"].has_motion_T.any()
    assert variables["vectors"].index_N.tolist() == [
        int(line.split()[0]) for line in capsys.readouterr().out.splitlines()
    ]


def test_attention(folder):
    (folder / "weights").symlink_to(ROOT / "weights")
    attention_SHW = run("attention.md")["attention_SHW"]
    assert attention_SHW.shape == (4, 6, 6)
    assert attention_SHW.sum() == pytest.approx(1, rel=1e-5)
    assert (folder / "attention.png").read_bytes().startswith(b"\x89PNG")


def test_guidance_from_a_detector(folder):
    """From slot 1, the box is centred on the best detection of its two frames, within 8 pixels."""
    variables = run("guidance.md")
    boxes = make_boxes("mgm", Grid(8, 14, 14), variables["motion"], torch.tensor([0]))
    detections = variables["detections"]
    assert sum(map(len, detections)) > 15
    for slot in range(1, 8):
        left, top, right, bottom, _ = max(
            detections[2 * slot] + detections[2 * slot + 1], key=lambda box: box[4]
        )
        centre = 16 * boxes.x_BS[0, slot].item(), 16 * boxes.y_BS[0, slot].item()
        np.testing.assert_allclose(centre, ((left + right) / 2, (top + bottom) / 2), atol=8)
    assert (variables["masked_BL"].view(8, 196).sum(1) == 147).all()


def test_a_dataset_from_a_list(folder, capsys):
    index = run("add-a-dataset.md")["index"]
    assert [(video.split, video.codec, video.frames) for video in index.videos] == [
        ("train", "h264", 24),
        ("test", "h264", 24),
    ]
    assert index.digest in capsys.readouterr().out


def test_a_table_of_ones_own():
    registry = run("add-a-table-row.md")["registry"]
    table, known = registry.tables["4_ratio"], registry.tables["4e"]
    assert table.rows == ["Tube, 0.9", "Tube, 0.75", "MGM, 0.75"]
    assert table.cell("Tube, 0.9", "SSv2").runs == known.cell("Random Tube", "SSv2").runs[:1]
    assert table.cell("MGM, 0.75", "SSv2").runs == known.cell("MGM (Dense)", "SSv2").runs[:1]
    assert (
        sorted(run.stage for run in registry.runs_of("table4_ratio"))
        == ["finetune"] * 3 + ["pretrain"] * 3
    )


def test_a_figure_of_ones_own(folder):
    """The figure shows the finished runs."""
    from mgm.dag.workflow import Workflow
    from tests.helpers.fake_results import finish

    probes = [
        run
        for cell in Workflow({}).registry.tables["4_edge"].cells
        if cell.column.endswith("probe")
        for run in cell.runs
    ]
    for probe in probes:
        finish(Path("results/smoke"), probe, top1=50.0, steps=2)
    svg = run("add-a-figure.md")["svg"]
    assert svg.read_text().count("<svg") == 1
    assert (np.load(svg.with_suffix(".npz"))["ours_P"] == 50).all()


def test_your_own_analysis(folder):
    from tests.helpers.fake_results import finish_all, registry

    known, results = registry(seeds=(0,)), Path("results/smoke")
    finish_all(results, known, steps=2)
    (results / "scale.json").write_text(known.scale.model_dump_json())
    variables = run("your-own-analysis.md")
    assert set(variables["runs"].run_id) == set(known.specs)
    assert (variables["table"].status == "run").any()


@pytest.mark.slow
def test_small_data(folder):
    """Run the page's commands on its specs, with two steps.

    They start from the weights of the page's pretraining.
    """
    text = (ROOT / "docs/small-data.md").read_text()
    specs = {spec["stage"]: spec for spec in map(json.loads, blocks(text, "json"))}
    shown = {key: specs["finetune"][key] for key in ("clips", "model")}
    specs["pretrain"]["optim"]["steps"] = specs["finetune"]["optim"]["steps"] = 2
    specs["pretrain"]["data"] = specs["probe"]["data"]
    # The page's probe is of ViT-B.
    specs["probe"] |= shown
    for verb, name in (("pretrain", "pretrain"), ("probe", "probe"), ("finetune", "gentle")):
        Path(f"{name}.json").write_text(json.dumps(specs[verb]))
    index = generate(
        Synthetic(classes=2, train_per_class=8, test_per_class=2, size=64), folder / "more"
    )
    Path("mine.csv").write_text(
        "path,label,split\n"
        + "".join(f"{video.path},{video.label},{video.split}\n" for video in index.videos)
    )
    prepare, probe, finetune = (
        line for line in "\n".join(blocks(text, "")).splitlines() if line.startswith("mgm ")
    )
    for command in (
        prepare,
        "mgm pretrain pretrain.json --data mine=data/mine --out results",
        probe,
        finetune,
    ):
        done = CliRunner().invoke(app, shlex.split(command)[1:])
        assert done.exit_code == 0, (command, done.output, done.exception)
        for weights in Path("results").glob("pretrain-*/weights.safetensors"):
            shutil.copy(weights, "weights.pth")
    assert len([*Path("results").glob("*/predictions.csv")]) == 2


def test_links_of_the_docs_work_in_the_repository_too():
    """GitHub shows the files themselves, without the pages that the site adds."""
    broken = []
    for path in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
            if "://" not in target and not (path.parent / target).exists():
                broken.append(f"{path.name}: {target}")
    assert broken == []
