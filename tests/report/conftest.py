import matplotlib as mpl
import pytest


@pytest.fixture(autouse=True, scope="session")
def _no_fonts_in_pdfs():
    """Embed no fonts, which would take half of the time of a figure."""
    with mpl.rc_context({"pdf.use14corefonts": True}):
        yield
