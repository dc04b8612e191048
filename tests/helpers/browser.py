"""A real browser."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def chromium() -> Iterator:
    """Start Chromium, without its sandbox if the user is root."""
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=options
        ) as browser,
    ):
        yield browser
