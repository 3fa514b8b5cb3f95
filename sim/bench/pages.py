"""Sections of figures as Markdown and as self-contained HTML pages."""

from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path

from ..report.page import fill
from ..report.style import themed
from .tables import Table

__all__ = ["Section", "markdown", "write_page"]


@dataclass(frozen=True)
class Section:
    """Figures with the command that measures them; JSON-able (`as_dict`, `of_dict`).

    texts : paragraphs; tables : tables.Table; pictures : SVG files, relative to the folder of the page
    """

    title: str
    command: str = ""
    texts: list = field(default_factory=list)
    tables: list = field(default_factory=list)
    pictures: list = field(default_factory=list)

    def as_dict(self):
        return asdict(self)

    @classmethod
    def of_dict(cls, raw):
        return cls(**(raw | {"tables": [Table(**table) for table in raw["tables"]]}))


def markdown(sections, level="##"):
    """Sections as Markdown, pictures left out."""
    parts = []
    for section in sections:
        parts.append(f"{level} {section.title}\n")
        if section.command:
            parts.append(f"    {section.command}\n")
        parts += [f"{text}\n" for text in section.texts]
        for table in section.tables:
            if table.title:
                parts.append(f"{table.title}:\n")
            parts.append(table.to_markdown())
    return "\n".join(parts)


def write_page(path, title, intro, sections):
    """Write a page that needs no other file; ``intro``: paragraphs under the title. Returns the path."""
    template = files(__package__).joinpath("templates/bench.html.j2").read_text()

    def picture(name):
        return themed(Path(path.parent, name).read_text())

    path.write_text(fill(template, title=title, intro=intro, sections=sections, picture=picture))
    return path
