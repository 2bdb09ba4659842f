"""A small, safe subset of Markdown as HTML: headings, lists, emphasis, code and paragraphs."""

from __future__ import annotations

import html
import re

_INLINE = (
    (re.compile(r"`([^`]+)`"), r"<code>\1</code>"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"(?<![\w*])[*_]([^*_]+)[*_](?![\w*])"), r"<em>\1</em>"),
)
_HEADING = re.compile(r"(#{1,4})\s+(.*)")
_BULLET = re.compile(r"[-*+]\s+(.*)")
_NUMBER = re.compile(r"\d+[.)]\s+(.*)")


def to_html(source: str) -> str:
    r"""Returns HTML in which nothing of the source is markup but what this subset knows.

    Headings begin at level 3, below those of the page.

    >>> to_html("# Dogs\n- bark <loud>")
    '<h3>Dogs</h3>\n<ul>\n<li>bark &lt;loud&gt;</li>\n</ul>'
    """
    out: list[str] = []
    for block in re.split(r"\n\s*\n", source.strip()):
        out.extend(_block(block.splitlines()))
    return "\n".join(out)


def _block(lines: list[str]) -> list[str]:
    out: list[str] = []
    paragraph: list[str] = []
    open_list = ""
    for raw in (*lines, ""):
        line = raw.strip()
        tag, made = _line(line)
        if paragraph and (made or not line):
            out.append(f"<p>{' '.join(paragraph)}</p>")
            paragraph = []
        if open_list and tag != open_list:
            out.append(f"</{open_list}>")
            open_list = ""
        if tag and not open_list:
            out.append(f"<{tag}>")
            open_list = tag
        if made:
            out.append(made)
        elif line:
            paragraph.append(_inline(line))
    return out


def _line(line: str) -> tuple[str, str]:
    """Returns the list that a line belongs to and its HTML; both empty for plain text."""
    heading = _HEADING.fullmatch(line)
    if heading:
        level = min(len(heading[1]) + 2, 6)
        return "", f"<h{level}>{_inline(heading[2])}</h{level}>"
    for tag, pattern in (("ul", _BULLET), ("ol", _NUMBER)):
        found = pattern.fullmatch(line)
        if found:
            return tag, f"<li>{_inline(found[1])}</li>"
    return "", ""


def _inline(text: str) -> str:
    escaped = html.escape(text, quote=True)
    for pattern, replacement in _INLINE:
        escaped = pattern.sub(replacement, escaped)
    return escaped
