"""The docstrings' section "Example:" is Google's "Examples:" to the generator of the API pages."""

from typing import Any

from griffe import Extension, Object


class Examples(Extension):
    """Renames the section in what has been read."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
