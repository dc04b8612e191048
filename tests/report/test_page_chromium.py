"""The page in Chromium, opened from disk: three widths, light and dark, and print.

Also by keyboard, without JavaScript and for screen readers.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from mgm.report.build import build_report
from mgm.spec import MASKS
from mgm.study.registry import Registry, label_of
from tests.helpers.browser import chromium
from tests.helpers.fake_results import (
    WEIGHTS_SHA256,
    draw_arrays,
    finish_all,
    registry,
    write_log,
)

pytestmark = [pytest.mark.chromium, pytest.mark.slow]

WIDTHS = (390, 1000, 1600)
A4 = 680  # the width between 15 mm margins, in CSS pixels
# If it ran, `visit` would fail the test.
EVIL = "</script><img src=x onerror=alert(1)>"


def until(page, expression, arg=None):
    """Wait until an expression is true. Playwright's own wait needs eval, which pages forbid."""
    for _ in range(200):
        if page.evaluate(expression, arg):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"not true after 10 s: {expression}")


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def visit(browser, tmp_path):
    """Function that opens a page.

    The test fails if a page raises an error, logs anything or loads anything from a network.
    """
    contexts, complaints, loaded = [], [], []

    def go(path: Path, width: int = 1000, height: int = 900, **options):
        context = browser.new_context(
            viewport={"width": width, "height": height}, offline=True, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url[:100]))
        page.on("request", lambda request: loaded.append(request.url[:100]))
        page.goto(path.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert complaints == []
    assert all(url.startswith(("file:", "data:")) for url in loaded)


@dataclass(frozen=True)
class Report:
    path: Path
    known: Registry
    # Run id -> state, for runs that are not done.
    states: dict[str, str]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Report:
    """Page at the paper's scale, so that it shows differences.

    Some of its runs failed, some were edited, some are running and some are missing.
    """
    folder = tmp_path_factory.mktemp("page")
    known, results = registry(seeds=(0, 1), name="paper"), folder / "results/trial"
    finish_all(results, known)
    draw_arrays(results, known)
    cells = {cell.row: cell for cell in known.tables["4e"].cells if cell.column == "SSv2"}
    states = dict(
        zip(
            ("failed", "altered", "running", "not run"),
            ("Random Block", "SMM (Sparse)", "Random Tube", "SMM (Dense)"),
        )
    )
    for state, row in states.items():
        for run in cells[row].runs:
            folder_of_run = results / run.run_id
            if state == "altered":
                (folder_of_run / "result.json").write_text("{}")
                continue
            for path in folder_of_run.iterdir():
                path.unlink()
            if state == "failed":
                (folder_of_run / "error.txt").write_text(f"the loss is {EVIL}")
            if state == "running":
                write_log(folder_of_run, 2, 30)
    (results / cells["MGM (Dense)"].runs[0].run_id / "result.json").unlink()
    named = {run.run_id: state for state, row in states.items() for run in cells[row].runs}
    return Report(build_report(known, results, folder / "reports/trial"), known, named)


def unfold(page):
    """Open everything that is folded. A run's details are drawn when it opens."""
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    until(
        page, "[...document.querySelectorAll('.run .body')].every(body => body.querySelector('dl'))"
    )
    page.evaluate("document.querySelectorAll('.run details').forEach(one => one.open = true)")


def test_every_link_and_picture_resolves_and_no_script_comes_from_the_data(visit, report):
    page = visit(report.path)
    unfold(page)
    failed = next(run_id for run_id, state in report.states.items() if state == "failed")
    assert EVIL in page.locator(f"[id='{failed}'] dl").inner_text()
    assert EVIL in page.inner_text("#overview")
    targets = page.eval_on_selector_all(
        "a", "links => links.map(link => link.getAttribute('href'))"
    )
    ids = set(page.eval_on_selector_all("[id]", "all => all.map(one => one.id)"))
    assert len(targets) > 500
    for target in set(targets):
        exists = (
            target[1:] in ids if target.startswith("#") else (report.path.parent / target).exists()
        )
        assert exists, target
    sizes = page.evaluate("""async () => {
        const films = [...document.querySelectorAll('.film, #gallery')];
        const strips = films.flatMap(film => [...(film.getAttribute('style') ?? '').matchAll(/url\\(([^)]*)\\)/g)].map(found => found[1]));
        const images = [...document.images, ...strips.map(source => Object.assign(new Image(), {src: source}))];
        await Promise.all(images.map(image => image.decode()));
        return images.map(image => [image.naturalWidth, image.naturalHeight, image.alt ?? '']);
    }""")
    assert all(width > 0 and height > 0 for width, height, _ in sizes)
    titles = {label_of(path.stem) for path in (report.path.parent / "figures").glob("*.png")}
    assert "Figure 4a" in titles
    assert {alt.split(":")[0] for *_, alt in sizes} == titles | {
        ""
    }  # films have a label of their own


def test_a_cell_leads_to_its_run_in_two_clicks(visit, report):
    page = visit(report.path)
    cell = next(
        cell
        for cell in report.known.tables["4e"].cells
        if (cell.row, cell.column) == ("MGM (Sparse)", "SSv2")
    )
    run = cell.runs[1]
    page.locator("#cell-4e-mgm-sparse-ssv2").get_by_role("link", name="seed 1").click()
    opened = page.locator(f"[id='{run.run_id}']")
    assert opened.evaluate("one => one.open")
    assert opened.evaluate("one => one.getBoundingClientRect().top < innerHeight")
    told = opened.inner_text()
    for fact in ("d67827d", f"digest {run.data.digest}", f"sha256 {WEIGHTS_SHA256}", "2026"):
        assert fact in told, fact
    for name in ("result.json", "spec.json", "log.jsonl"):
        address = opened.get_by_role("link", name=name).get_attribute("href")
        assert (report.path.parent / address).resolve().parent.name == run.run_id
    opened.get_by_text("Spec", exact=True).click()
    assert f'"parent": "{run.parent}"' in opened.inner_text()
    opened.get_by_role("link", name=run.parent).click()
    assert page.locator(f"[id='{run.parent}']").evaluate("one => one.open")
    opened.get_by_role("link", name="MGM (Sparse), SSv2", exact=False).first.click()
    assert page.url.endswith("#cell-4e-mgm-sparse-ssv2")
    opened.get_by_role("link", name="spec.json").click()
    assert page.url.endswith(f"{run.run_id}/spec.json")


def test_runs_are_filtered_and_columns_hidden(visit, report):
    page = visit(report.path)
    lines = page.locator(".run:visible")
    every = lines.count()
    page.locator("select[name=stage]").select_option("Linear probe")
    assert 0 < lines.count() < every
    assert lines.evaluate_all("all => new Set(all.map(one => one.dataset.stage)).size") == 1
    page.locator("select[name=mask]").select_option("tube")
    page.get_by_label("Text").fill("seed 1")
    few = lines.count()
    assert 0 < few < every
    assert f"{few} of {every} runs" in page.locator(".filters").inner_text()
    seeds = page.locator(".c-seed:visible")
    assert seeds.count() == few
    page.get_by_label("seed", exact=True).uncheck()
    assert seeds.count() == 0
    # A link to a hidden run shows that run.
    hidden = page.locator(".run[hidden]").first.get_attribute("id")
    page.evaluate("id => location.hash = id", hidden)
    until(page, "id => document.getElementById(id).open", arg=hidden)
    assert page.locator(f"[id='{hidden}']").is_visible()


def test_a_table_sorts_by_keyboard(visit, report):
    page = visit(report.path)
    # Each section is sorted separately.
    body = page.locator("#table-4e table").first.locator("tbody").first.locator("tr")

    def names():
        return body.locator("th").all_inner_texts()

    original, head = names(), page.locator("#table-4e thead th", has_text="Ours").first
    head.get_by_role("button").focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    orders = []
    for order in ("ascending", "descending", None):
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == order
        values = [
            float(value)
            for value in body.evaluate_all(
                "rows => rows.map(row => row.cells[2].dataset.sort ?? NaN)"
            )
        ]
        numbers = [value for value in values if value == value]
        assert len(numbers) == 3
        if order:
            assert numbers == sorted(numbers, reverse=order == "descending")
            # Rows without a number stay last.
            assert all(value != value for value in values[3:])
        orders.append(names())
    assert orders[2] == original
    assert orders[0] != original
    page.locator("#table-4e thead th", has_text="Method").first.get_by_role("button").focus()
    page.keyboard.press("Space")
    assert names() == sorted(original, key=str.lower)


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overflows_the_window(visit, report, width):
    page = visit(report.path, width)
    # Wide letters imitate the fonts of other machines.
    page.add_style_tag(content="* { letter-spacing: .1em !important }")
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    loose = page.evaluate("""() => [...document.querySelectorAll('body *')].filter(one => !one.closest('.wide, .film, .skip, svg')
        && one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 80))""")
    assert loose == []


def test_a_box_that_scrolls_is_reached_by_keyboard(visit, report):
    """The box's content is 400 pixels wide with any font."""
    page = visit(report.path, 320)
    page.evaluate(
        "document.querySelector('.wide').innerHTML = '<table style=\"width: 400px\"><caption>Wide</caption></table>'"
    )
    page.set_viewport_size({"width": 330, "height": 900})
    box = page.locator(".wide").first
    until(page, "document.querySelector('.wide').tabIndex === 0")
    assert (box.get_attribute("role"), box.get_attribute("aria-label")) == ("region", "Wide")
    box.focus()
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('.wide').scrollLeft > 0")
    page.set_viewport_size({"width": 1600, "height": 900})
    until(page, "document.querySelector('.wide').tabIndex === -1")


def test_without_javascript_everything_but_a_runs_details_can_be_read(visit, report):
    page = visit(report.path, java_script_enabled=False)
    text = page.inner_text("main")
    for table in report.known.tables.values():
        for name in table.rows:
            assert name in text
    assert page.get_by_role("button").count() == 0
    assert page.locator("td.plot svg").first.is_visible()
    run_id = next(iter(report.known.specs))
    page.locator(f"[id='{run_id}'] > summary").click()
    assert (
        page.locator(f"[id='{run_id}']")
        .get_by_role("link")
        .get_attribute("href")
        .endswith(f"results/trial/{run_id}/")
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(visit, report, scheme):
    """Each text has a contrast of at least 4.5 to 1 with its background (WCAG AA).

    The colours are those of the computed styles.
    """
    page = visit(report.path, color_scheme=scheme)
    unfold(page)
    ground, worst = page.evaluate("""() => {
        const parse = text => text.match(/[\\d.]+/g).map(Number)
            .map((c, i) => text.startsWith('color(srgb') && i < 3 ? 255 * c : c);
        const luminance = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
            .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
        const behind = one => { for (; one; one = one.parentElement) { const c = parse(getComputedStyle(one).backgroundColor);
            if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
        const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walk.nextNode()) {
            const one = walk.currentNode.parentElement, style = getComputedStyle(one);
            if (!walk.currentNode.data.trim() || ['SCRIPT', 'STYLE'].includes(one.tagName)) continue;
            const [a, b] = [luminance(parse(one.closest('svg') ? style.fill : style.color)), luminance(behind(one))].sort((x, y) => y - x);
            found.push([(a + .05) / (b + .05), walk.currentNode.data.trim().slice(0, 40), one.className]);
        }
        return [luminance(behind(document.body)), found.sort((x, y) => x[0] - y[0])[0]];
    }""")
    assert (ground < 0.1) == (scheme == "dark")
    assert worst[0] >= 4.5, worst


def test_a_status_is_told_apart_without_colour(visit, report):
    page = visit(report.path)
    shown = page.locator("#table-4e tr[id] .status, #runs .status").evaluate_all("""all => all.map(one => {
        const {borderStyle, borderRadius, backgroundImage, rotate, display} = getComputedStyle(one, '::before');
        const filled = getComputedStyle(one, '::before').backgroundColor !== 'rgba(0, 0, 0, 0)';
        return [one.textContent.split(',')[0], [borderStyle, borderRadius, backgroundImage.slice(0, 30), rotate, display, filled].join()];
    })""")
    looks = dict(shown)
    assert set(looks) == {"run", "partial", "failed", "altered", "running", "not run"}
    assert len(set(looks.values())) == len(looks)
    assert all(
        page.locator(f"[id='{run_id}'] .status").first.inner_text() == state
        for run_id, state in report.states.items()
    )


def test_it_prints_whole(visit, report):
    page = visit(report.path, A4)
    folded = page.locator("#deviations td").first
    assert not folded.evaluate("one => one.checkVisibility()")
    page.emulate_media(media="print")
    cut = page.evaluate("""() => [...document.querySelectorAll('table, img, .panel')].filter(one => {
        const box = one.getBoundingClientRect();
        return box.width && (box.right > innerWidth + 1 || box.left < 0);
    }).map(one => one.textContent.slice(0, 60))""")
    assert cut == []
    assert not page.locator("nav").is_visible()
    assert folded.evaluate("one => one.checkVisibility()")
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_the_gallery_plays_and_stops_and_rests_where_motion_is_not_wanted(visit, report):
    still = visit(report.path, reduced_motion="reduce")
    page = visit(report.path)
    gallery = page.locator("#gallery")
    slider, button, film = (
        gallery.get_by_role("slider"),
        gallery.get_by_role("button"),
        gallery.locator(".film").nth(2),
    )
    at = "film => getComputedStyle(film).backgroundPosition"
    # The page with reduced motion shows the first slot. The other may have moved on already.
    before = still.locator("#gallery .film").nth(2).evaluate(at)
    until(page, "document.querySelector('#gallery input').value > 1")
    assert button.inner_text() == "Pause"
    button.focus()
    page.keyboard.press("Enter")
    assert button.inner_text() == "Play"
    slider.focus()
    page.keyboard.press("End")
    assert gallery.locator("output").inner_text() == "3 of 3"
    stopped = film.evaluate(at)
    assert stopped != before
    page.wait_for_timeout(700)  # two slots' time
    assert film.evaluate(at) == stopped
    assert still.locator("#gallery input").input_value() == "1"


def test_a_screen_reader_finds_its_way(visit, report):
    page = visit(report.path)
    for role in ("banner", "navigation", "main", "contentinfo"):
        assert page.get_by_role(role).count() == 1, role
    bad = page.evaluate("""() => [
        ...[...document.querySelectorAll('table')].filter(one => !one.caption?.textContent.trim()),
        ...[...document.querySelectorAll('th')].filter(one => !one.scope || !one.textContent.trim()),
        ...[...document.querySelectorAll('tbody tr')].filter(one => !one.querySelector('th')),
        ...[...document.querySelectorAll('a, button, summary')].filter(one => !(one.ariaLabel || one.textContent).trim()),
        ...[...document.images].filter(one => !one.alt),
        ...[...document.querySelectorAll('svg')].filter(one => !one.closest('[aria-hidden=true], [role=img]')),
        ...[...document.querySelectorAll('input')].filter(one => !one.labels.length),
    ].map(one => one.outerHTML.slice(0, 120))""")
    assert bad == []
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the results")
    assert skip.evaluate(
        "one => one === document.activeElement && one.getBoundingClientRect().top >= 0"
    )
    page.keyboard.press("Enter")
    assert page.url.endswith("#overview")
    levels = [
        int(level)
        for level in page.eval_on_selector_all(
            "h1, h2, h3", "all => all.map(one => one.tagName[1])"
        )
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1


@pytest.mark.smoke
def test_the_smoke_page(visit, smoke):
    path = smoke.parents[1] / "reports/smoke/index.html"
    assert path.stat().st_size < 3e6
    page = visit(path, 390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator(".film").count() == 2 + len(MASKS)
    targets = page.eval_on_selector_all(
        "a:not([href^='#'])", "links => links.map(link => link.getAttribute('href'))"
    )
    assert [target for target in targets if not (path.parent / target).exists()] == []
