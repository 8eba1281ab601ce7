"""What the generator of the API pages has to be told: a docstring's "Example:", and what a room offers."""

from typing import Any

from griffe import Extension, Module, Object


class Examples(Extension):
    """Changes what has been read."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute: Google's section is "Examples:"."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")

    def on_module(self, *, mod: Module, **kwargs: Any) -> None:
        """Called for every module: a room offers what type checkers alone import, see ebmzoo/lazy.py."""
        offered = [name for name, one in mod.members.items() if one.is_alias and not one.runtime]
        if mod.is_init_module and offered:
            mod.exports = offered
