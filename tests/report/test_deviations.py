import re

from mgm.report.page.deviations import FILE, deviations, sections

TEXT = """# Title

Before.

## One

| what | why |
|---|---|
| `a` < b | c & "d" |
| short |

## Two

A paragraph
of two lines.

- an item: `x_1`
  that goes on
- another
"""


def test_tables_lists_and_paragraphs():
    (one, table), (two, text) = sections(TEXT)
    assert (one, two) == ("One", "Two")
    assert '<th scope="row"><code>a</code> &lt; b</th><td>c &amp; &#34;d&#34;</td>' in table
    assert '<th scope="row">short</th><td></td>' in table
    assert text == "<p>A paragraph of two lines.</p>\n<ul><li>an item: <code>x_1</code> that goes on</li><li>another</li></ul>"


def test_nothing_of_the_file_is_lost():
    """Every word of its sections is in the HTML, none of its marks."""
    plain = {title: re.sub(r"<[^>]+>", " ", str(content)) for title, content in deviations()}
    assert "The masks" in plain
    for part in FILE.read_text().split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        words = re.findall(r"[A-Za-z]{3,}", body)
        assert [word for word in words if word not in plain[title]] == []
        assert "`" not in plain[title]
        assert "---" not in plain[title]
