"""XML without a document type: no entities, so nothing small unfolds into gigabytes and nothing refers to another file."""

from __future__ import annotations

import dataclasses
from typing import Any
from xml.parsers import expat

MAX_BYTES = 4 << 20
_DEEPEST = 64


@dataclasses.dataclass
class Element:
    """An element: its tag, the text directly in it, and the elements in it."""

    tag: str
    text: str = ""
    children: list[Element] = dataclasses.field(default_factory=list)

    def all(self, tag: str) -> list[Element]:
        """Return the elements of that tag directly in this one."""
        return [child for child in self.children if child.tag == tag]

    def find(self, path: str) -> str:
        """Return the stripped text at "a/b", each the first of its tag.

        Raises:
            ValueError: there is none.
        """
        found = self
        for tag in path.split("/"):
            held = found.all(tag)
            if not held:
                raise ValueError(f"it has no <{path}> in <{self.tag}>")
            found = held[0]
        return found.text.strip()


def parse_xml(content: bytes) -> Element:
    """Parse a document and return its outermost element.

    Raises:
        ValueError: it is no XML, too large or too deep, or declares a document type.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"{len(content):,} bytes are over the limit of {MAX_BYTES:,}")
    around = [Element("")]

    def start(tag: str, attributes: dict[str, str]) -> None:
        if len(around) > _DEEPEST:
            raise ValueError(f"elements lie in one another deeper than {_DEEPEST}")
        around.append(Element(tag))
        around[-2].children.append(around[-1])

    def end(tag: str) -> None:
        around.pop()

    def text(data: str) -> None:
        around[-1].text += data

    def refuse(*declaration: Any) -> None:
        raise ValueError("it declares a document type (DTD), whose entities are not read: remove the declaration")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise ValueError(f"it is no XML: {error}") from error
    return around[0].children[0]
