"""A hook of MkDocs: the first page is README, and pages of studies are on the site.

`make docs` adds the page of every study in results/*.csv.xz, and of every folder in reports/.
"""

import re
import shutil
from pathlib import Path

from mkdocs.structure.files import File

from mgm.report.page import Report
from mgm.results.frame import load

ROOT = Path(__file__).parents[1]
PACKED = sorted(path.name.removesuffix(".csv.xz") for path in (ROOT / "results").glob("*.csv.xz"))
WRITTEN = sorted(page.parent.name for page in (ROOT / "reports").glob("*/index.html"))
# Not Markdown links, since MkDocs refuses those to files that are copied after it.
LINKS = ", ".join(
    f'<a href="reports/{name}/index.html">{name}</a>' for name in sorted({*PACKED, *WRITTEN})
)
RESULT = re.compile(r'<a href="[./]*/results/[^"]*">(.*?)</a>')


def on_files(files, config):
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    text = text.replace("\n## Map\n", f"\nReports: {LINKS}.\n\n## Map\n")
    # Badges are pictures of another site.
    text = re.sub(r"^\[!\[.*\n", "", text, flags=re.MULTILINE)
    text = _words(text, r"DEVIATIONS\.md|CITATION\.cff")
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown, page, **_):
    if page.file.src_uri == "results.md":
        markdown = markdown.replace("\n**Next**", f"\nReports: {LINKS}.\n\n**Next**")
    return _words(markdown, r"\.\./[^)]+")


def on_post_build(config):
    for name in sorted({*PACKED, *WRITTEN}):
        folder = Path(config.site_dir) / "reports" / name
        if name in WRITTEN:
            shutil.copytree(ROOT / "reports" / name, folder, dirs_exist_ok=True)
        else:
            Report(load(name, ROOT / "results"), folder).write()
        # The site has no result files: a study has thousands.
        page = folder / "index.html"
        page.write_text(RESULT.sub(r"\1", page.read_text(encoding="utf-8")), encoding="utf-8")


def _words(text, targets):
    """Keep only the words of links to files outside of docs."""
    return re.sub(rf"\[([^\]]+)\]\((?:{targets})\)", r"\1", text)
