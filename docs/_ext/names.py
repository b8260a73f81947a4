"""Names in code style become links to the reference, on every page: `sample.reference`, `Sampler`, `fit_program(...)`.

A bare name is linked if it is that of one public thing and cannot be mistaken for a variable: it has a capital letter, an underscore, or
is called.
"""

from __future__ import annotations

import re
from typing import Any

import reference
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

LEFT_ALONE = (nodes.reference, nodes.title, nodes.term, addnodes.desc_signature)
NAME = re.compile(r"(?:sfumato\.)?((?:[a-z_]+\.)*)([A-Za-z_]\w*)(\(.*\))?", re.DOTALL)


def targets() -> dict[str, str]:
    """`Sampler`, `sample.Sampler` and so on, to `sample#sfumato.sample.Sampler`; a bare name that two things have is left out."""
    found: dict[str, str] = {}
    things: dict[str, set[int]] = {}
    for room in reference.rooms():
        for entry in room.entries:
            place = f"{room.name}#{entry.module}.{entry.name}"
            things.setdefault(entry.name, set()).add(id(entry.thing))
            found.setdefault(entry.name, place)
            found[f"{entry.module}.{entry.name}".removeprefix("sfumato.")] = place
            found.setdefault(f"{room.name}.{entry.name}", place)
    for room in reference.rooms():
        for entry in room.also:
            found[f"{room.name}.{entry.name}"] = found[f"{entry.module}.{entry.name}".removeprefix("sfumato.")]
    return {name: place for name, place in found.items() if "." in name or len(things[name]) == 1}


class LinkNames(SphinxPostTransform):
    """Wraps code that is a public name, and types in signatures, in links; before Sphinx looks through all names for each."""

    default_priority = 5

    def run(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(addnodes.pending_xref)):
            if node.get("refdomain") == "py":
                place = self.app._sfumato_names.get(node["reftarget"].removeprefix("sfumato."))  # type: ignore[attr-defined]
                node.replace_self(node.children if place is None else self._link(place, node.children))
        for node in list(self.document.findall(nodes.literal)):
            place = None if _inside(node, *LEFT_ALONE) else self._place(node.astext())
            if place is not None and not _own_entry(node, place):
                node.replace_self(self._link(place, [node.deepcopy()]))

    def _place(self, text: str) -> str | None:
        found = NAME.fullmatch(text)
        if found is None:
            return None
        qualifier, name, called = found.groups()
        clear = qualifier or called or any(c.isupper() or c == "_" for c in name)
        return self.app._sfumato_names.get(qualifier + name) if clear and len(name) > 2 else None  # type: ignore[attr-defined]

    def _link(self, place: str, content: list[nodes.Node]) -> nodes.reference:
        docname, anchor = place.split("#")
        uri = self.app.builder.get_relative_uri(self.env.current_document.docname, f"reference/{docname}")
        return nodes.reference("", "", *content, internal=True, refuri=f"{uri}#{anchor}")


def _inside(node: nodes.Node, *kinds: type[nodes.Node]) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def _own_entry(node: nodes.Node, place: str) -> bool:
    """Whether it stands in the very entry that it would lead to."""
    while node.parent is not None:
        node = node.parent
        if isinstance(node, addnodes.desc) and any(place.endswith("#" + i) for i in node[0].get("ids", ())):
            return True
    return False


def _remember(app: Sphinx) -> None:
    app._sfumato_names = targets()  # type: ignore[attr-defined]


def setup(app: Sphinx) -> dict[str, Any]:
    """Link code on pages, and types in signatures."""
    app.connect("builder-inited", _remember)
    app.add_post_transform(LinkNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
