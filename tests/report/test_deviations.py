import re

from mgm.report.page.deviations import FILE, deviations, sections

TEXT = """# Title

Before.

## One & only

| what | why |
|---|---|
| `a` < b | <script>c</script> |
| short |

## Two

A paragraph.
"""


def test_a_table_gets_its_caption_and_its_headings_their_scope():
    (one, table), (two, text) = sections(TEXT)
    assert (one, two) == ("One & only", "Two")
    assert "<caption>One &amp; only</caption>" in table
    assert re.findall(r'<th scope="(\w+)">(.*?)</th>', table) == [
        *(("col", "what"), ("col", "why")),
        *(("row", "<code>a</code> &lt; b"), ("row", "short")),
    ]
    assert re.findall("<td>(.*?)</td>", table) == ["&lt;script&gt;c&lt;/script&gt;", ""]
    assert text.strip() == "<p>A paragraph.</p>"


def test_nothing_of_the_file_is_lost():
    """Every word of its sections is in the HTML, none of its marks."""
    plain = {title: re.sub(r"<[^>]+>", " ", str(content)) for title, content in deviations()}
    assert "The masks" in plain
    for part in FILE.read_text().split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        assert [word for word in re.findall(r"[A-Za-z]{3,}", body) if word not in plain[title]] == []
        assert "`" not in plain[title]
        assert "---" not in plain[title]
