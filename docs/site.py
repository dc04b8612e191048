"""A hook of MkDocs: the first page is README, and the page of `make reproduce` is on the site."""

import re
import shutil
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "reports" / "smoke"
LINK = '\n<a href="smoke/index.html">Every table and figure at toy size</a>\n'


def on_files(files, config):
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    if (SMOKE / "index.html").is_file():
        text = text.replace("\n## Map\n", f"{LINK}\n## Map\n")
    # Files that the site lacks.
    text = re.sub(r"\[([^\]]+)\]\((?:DEVIATIONS\.md|CITATION\.cff)\)", r"\1", text)
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown, **_):
    """Keep the words of links to files outside of docs."""
    return re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", markdown)


def on_post_build(config):
    if (SMOKE / "index.html").is_file():
        shutil.copytree(SMOKE, Path(config.site_dir, "smoke"), dirs_exist_ok=True)
