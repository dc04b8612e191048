"""A hook of MkDocs: the first page is README, and reports of studies are on the site.

`make docs` adds the page, tables and figures of every folder in reports/, after `mgm report NAME`.
"""

import re
import shutil
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
REPORTS = sorted(page.parent.name for page in (ROOT / "reports").glob("*/index.html"))
RESULT = re.compile(r'<a href="\.\./\.\./results/[^"]*">(.*?)</a>')


def on_files(files, config):
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    # Not Markdown links, since MkDocs refuses those to files that are copied after it.
    links = [f'<a href="reports/{name}/index.html">{name}</a>' for name in REPORTS]
    if links:
        text = text.replace("\n## Map\n", f"\nReports: {', '.join(links)}.\n\n## Map\n")
    text = _words(text, r"DEVIATIONS\.md|CITATION\.cff")
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown, **_):
    # Python-Markdown ends a list at a comment.
    return _words(re.sub("<!--.*?-->", "", markdown), r"\.\./[^)]+")


def on_post_build(config):
    for name in REPORTS:
        folder = Path(config.site_dir) / "reports" / name
        shutil.copytree(ROOT / "reports" / name, folder, dirs_exist_ok=True)
        # The site has no result files: a study has thousands.
        page = folder / "index.html"
        page.write_text(RESULT.sub(r"\1", page.read_text(encoding="utf-8")), encoding="utf-8")


def _words(text, targets):
    """Keep only the words of links to files outside of docs."""
    return re.sub(rf"\[([^\]]+)\]\((?:{targets})\)", r"\1", text)
