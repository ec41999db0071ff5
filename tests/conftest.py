"""What every test shares: one thread a process, so that tests run side by side and give the same figures everywhere."""

import html.parser
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; subprocesses inherit it

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


class Structure(html.parser.HTMLParser):
    """Tags opened and not closed, and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs) -> None:
        pass


@pytest.fixture(scope="session")
def structure_of():
    """``structure_of(text)``: what of an HTML page is open at its end, and what it refers to."""

    def parse(text: str) -> Structure:
        structure = Structure()
        structure.feed(text)
        return structure

    return parse
