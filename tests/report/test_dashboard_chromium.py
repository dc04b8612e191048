"""MLflow's pages in Chromium: the list of models, and a model with its probe's metrics."""

import pytest

from mgm.report.mlflow.sync import default_uri, register, sync
from mgm.results.result import read_result, write_result
from mgm.spec import Probe
from tests.helpers.browser import chromium
from tests.helpers.fake_results import DIGEST, finish, registry
from tests.helpers.tracking import Server

pytestmark = [pytest.mark.mlflow, pytest.mark.chromium, pytest.mark.slow]
KNOWN = registry(seeds=(0,))
PROBE = next(spec for spec in KNOWN.specs.values() if isinstance(spec, Probe) and spec.parent)


@pytest.fixture
def pages(tmp_path):
    """Browser context, and address of an MLflow server with a registered model and its probe."""
    place = tmp_path / "results" / "smoke"
    for spec in (KNOWN.specs[PROBE.parent], PROBE):
        finish(place, spec, top1=60)
    write_result(
        place / PROBE.parent, {**read_result(place / PROBE.parent), "weights_sha256": "a" * 64}
    )
    sync(KNOWN, place)
    register(place, default_uri(place), [PROBE.parent])
    server = Server(tmp_path / "server", default_uri(place))
    try:
        with chromium() as browser:
            context = browser.new_context(viewport={"width": 1440, "height": 900})
            context.set_default_timeout(120_000)
            yield context, server.uri
    finally:
        server.kill()


def test_from_the_list_of_models_to_a_model_and_what_tested_it(pages):
    context, uri = pages
    chooser = context.new_page()
    chooser.goto(f"{uri}/#/experiments/1/models")
    chooser.get_by_text("Model training", exact=True).click()
    chooser.wait_for_url("**workflowType=machine_learning**")
    # The first page is still loading the list of runs.
    page = context.new_page()
    page.goto(f"{uri}/#/experiments/1/models")
    page.locator("a[href*='/models/m-']", has_text=PROBE.parent).first.click()
    metric = page.get_by_role("row").filter(has_text="test/top1")
    metric.wait_for()
    assert DIGEST in metric.inner_text()
    assert f"seed {PROBE.seed}, 60.0 %, probe" in metric.inner_text()
