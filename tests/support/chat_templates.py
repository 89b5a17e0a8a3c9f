"""Chat templates of the main families, see templates/README.md, as `ChatTemplate` uses them."""

from __future__ import annotations

from pathlib import Path

from counting_folders import tokenizer_folder, with_template

from clara_mlx.context import ChatTemplate
from clara_mlx.context.counting import count_prompt
from clara_mlx.context.messages import Message

#: The templates, by name.
TEMPLATES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted((Path(__file__).parent / "templates").glob("*.jinja"))
}


class Counters:
    """A counter for each template, by its name, made when it is first asked for.

    Args:
        path: An empty folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        (path / "tokenizer").mkdir()
        self._folder = tokenizer_folder(path / "tokenizer")
        self._made: dict[str, ChatTemplate] = {}

    def __getitem__(self, name: str) -> ChatTemplate:
        if name not in self._made:
            folder = with_template(self._folder, self._path / name, TEMPLATES[name])
            self._made[name] = ChatTemplate(folder)
        return self._made[name]


def takes(counter: ChatTemplate, messages: list[Message]) -> bool:
    """Whether a template takes messages as the gateway sends them."""
    return not count_prompt(counter, messages, None).refused
