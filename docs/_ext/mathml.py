"""Formulas without JavaScript: LaTeX becomes MathML when the site is built, and browsers draw it themselves."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

log = logging.getLogger(__name__)
THIN = '<mspace width="0.167em" />'
FUNCTION = re.compile(r"(</(?:mi|mn|msub|msup|msqrt|mfrac)>|)<mi>(log|exp|sin|cos|max|min)</mi>(<(?:mi|mn|msub|msup|msqrt|mfrac)\b|)")


class FormulaError(ValueError):
    """A formula that would reach the page as LaTeX."""


def mathml(latex: str, display: str) -> str:
    """The `<math>` element of a formula; `display` is `inline` or `block`.

    Raises:
        FormulaError: LaTeX that the converter does not read, or of which something is left over.
    """
    # the converter knows `align*` but not `aligned`, and takes `\\b` for a command `\b` unless a space comes between
    text = latex.replace("{aligned}", "{align*}").replace("\\\\", "\\\\ ")
    try:
        made = convert(text, display=display)
    except Exception as e:  # it raises bare exceptions of many kinds
        raise FormulaError(f"cannot read the formula {latex!r} ({type(e).__name__})") from e
    left = re.search(r">\s*(\\[A-Za-z]*|&|\$)\s*<", made)
    if left:
        raise FormulaError(f"{left.group(1)!r} is left over in the formula {latex!r}")
    return FUNCTION.sub(_spaced, made)


def _spaced(found: re.Match[str]) -> str:
    """A thin space between a function's name and what it touches, unless that is a bracket or an operator."""
    before, name, after = found.groups()
    return f"{before}{THIN if before else ''}<mi>{name}</mi>{THIN if after else ''}{after}"


def _inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(_or_warn(node, "inline"))
    raise nodes.SkipNode


def _block(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(f'<div class="formula">{_or_warn(node, "block")}</div>\n')
    raise nodes.SkipNode


def _or_warn(node: nodes.Element, display: str) -> str:
    try:
        return mathml(node.astext(), display)
    except FormulaError as e:
        log.warning("%s", e, location=node, type="mathml")
        return f"<code>{nodes.unescape(node.astext())}</code>"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer; `html_math_renderer = "mathml"` chooses it."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
