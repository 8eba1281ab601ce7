"""Pages from templates: one HTML file each, with everything inside it."""

from __future__ import annotations

from typing import Any


def rendered(template: str, **content: Any) -> str:
    """A page of this room's ``template`` with its ``content``, escaped; what the template lacks is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=PackageLoader("ebmzoo.report", "."))
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment.get_template(template).render(**content)
