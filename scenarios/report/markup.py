"""HTML that cannot be broken by what is put into it: all text is escaped, but for what is markup already."""

from html import escape


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


_EMPTY_TAGS = ("br", "meta")


def tag(name: str, /, *children: str, **attributes: str) -> Markup:
    """An element. Text in `children` is escaped unless it is Markup; `class_` stands for `class`."""
    given = "".join(f' {key.rstrip("_")}="{escape(value)}"' for key, value in attributes.items())
    opened = f"<{name}{given}>"
    return Markup(opened if name in _EMPTY_TAGS else f"{opened}{joined(*children)}</{name}>")


def joined(*children: str) -> Markup:
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children))


def items(children: list[Markup], name: str = "ul", **attributes: str) -> Markup:
    """A list of what is markup already; nothing if there is nothing to list."""
    return tag(name, *(tag("li", child) for child in children), **attributes) if children else Markup()


def table(heads: list[str], rows: list[list[str]], **attributes: str) -> Markup:
    head = tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in heads)))
    body = tag("tbody", *(tag("tr", *(tag("td", cell) for cell in row)) for row in rows))
    return tag("div", tag("table", head, body, **attributes), class_="scroll")
