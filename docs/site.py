"""A hook of MkDocs: the first page is README, and the pages of `mgm report` are on the site."""

import re
import shutil
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
WRITTEN = re.compile(r"Written by `mgm report ([\w-]+)`")
# Not a Markdown link, since MkDocs refuses those to files that are copied after it.
LINK = '<a href="reports/{}/index.html">{}</a>'
linked = {"smoke"}


def on_files(files, config):
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    if (ROOT / "reports/smoke/index.html").is_file():
        link = LINK.format("smoke", "Every table and figure at toy size")
        text = text.replace("\n## Map\n", f"\n{link}\n\n## Map\n")
    # Files that the site lacks.
    text = re.sub(r"\[([^\]]+)\]\((?:DEVIATIONS\.md|CITATION\.cff)\)", r"\1", text)
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown, **_):
    """Link a study's page to its report. Keep the words of links to files outside of docs."""
    markdown = WRITTEN.sub(_with_report, markdown)
    # Python-Markdown ends a list at a comment.
    markdown = re.sub("<!--.*?-->", "", markdown)
    return re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", markdown)


def _with_report(written):
    if not (ROOT / "reports" / written[1] / "index.html").is_file():
        return written[0]
    linked.add(written[1])
    link = LINK.format(written[1], "Each number with its runs, their specs and commits")
    return f"{link}. {written[0]}"


def on_post_build(config):
    """Copy the reports, and what their numbers link to."""
    site = Path(config.site_dir)
    for name in linked:
        if (ROOT / "reports" / name).is_dir():
            shutil.copytree(ROOT / "reports" / name, site / "reports" / name, dirs_exist_ok=True)
            shutil.copytree(
                ROOT / "results" / name, site / "results" / name, ignore=_others, dirs_exist_ok=True
            )


def _others(folder, names):
    """Return what is neither a spec nor a result of a run."""
    kept = {"spec.json", "result.json"}
    return [
        name for name in names if name not in kept and not Path(folder, name, "spec.json").is_file()
    ]
