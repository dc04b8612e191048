import re

from mgm.report.page.deviations import FILE, deviations


def test_nothing_of_the_file_is_lost():
    """Every word of its sections is in the HTML, none of its marks."""
    plain = {title: re.sub(r"<[^>]+>", " ", str(content)) for title, content in deviations()}
    assert "The masks" in plain
    for part in FILE.read_text().split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        assert [word for word in re.findall(r"[A-Za-z]{3,}", body) if word not in plain[title]] == []
        assert "`" not in plain[title]
        assert "---" not in plain[title]
