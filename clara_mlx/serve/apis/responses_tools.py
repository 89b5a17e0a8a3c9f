"""The tools of a Responses request as functions, and the way back from a function's name.

Free-form tools take one argument, tools of a namespace get its name before their own, and those
that OpenAI's servers run are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clara_mlx.serve.apis.checks import MOST_TOOLS
from clara_mlx.serve.errors import invalid_field
from clara_mlx.serve.reply import Object

#: The argument that a free-form tool takes.
INPUT = "input"

# Between the name of a namespace and that of a tool in it.
_GAP = "__"


@dataclass
class Tools:
    """The tools of a request.

    Attributes:
        sent: The functions that the reasoner gets, by name.
        custom: The names of those that are free-form tools.
        namespaced: By the name that the reasoner gets, the namespace of a tool and its name there.
    """

    sent: list[Object] = field(default_factory=list)
    custom: list[str] = field(default_factory=list)
    namespaced: dict[str, list[str]] = field(default_factory=dict)

    def sent_name(self, namespace: Any, name: str) -> str:
        """The name that the reasoner gets for a tool, also for one that is offered no more."""
        if not isinstance(namespace, str) or not namespace:
            return name
        known = (sent for sent, pair in self.namespaced.items() if pair == [namespace, name])
        return next(known, _joined(namespace, name))


def read_tools(given: Any) -> Tools:
    """The tools that a request offers.

    Raises:
        ApiError: It is no list of tools with names.
    """
    if not isinstance(given, list):
        raise invalid_field("tools", "must be a list")
    tools = Tools()
    taken: set[str] = set()
    for namespace, tool in _flattened(given):
        if len(tools.sent) >= MOST_TOOLS:
            raise invalid_field("tools", f"must be a list of at most {MOST_TOOLS:,} tools")
        # Some clients write a function as chat completions have it.
        nested = tool.get("function")
        tool = {**tool, **nested} if isinstance(nested, dict) else tool
        name = tool.get("name")
        if not isinstance(name, str) or not name:
            raise invalid_field("tools", f"has a {tool['type']} without a name")
        sent = _joined(namespace, name) if namespace else name
        while sent in taken:
            sent += "_"
        taken.add(sent)
        if namespace:
            tools.namespaced[sent] = [namespace, name]
        if tool["type"] == "custom":
            tools.custom.append(sent)
        tools.sent.append({"type": "function", "function": _function(sent, tool)})
    tools.sent.sort(key=lambda one: str(one["function"]["name"]))
    return tools


def read_choice(choice: Any, tools: Tools) -> Any:
    """A ``tool_choice`` in the form of chat completions; one of a tool that is left out is "auto".

    A choice of some tools leaves the others out of ``tools``.
    """
    if choice in ("none", "required"):
        return choice if tools.sent else None
    if not isinstance(choice, Mapping) or not tools.sent:
        return None
    if choice.get("type") == "allowed_tools":
        return _allow(choice, tools)
    nested = choice.get("function")
    named = nested if isinstance(nested, Mapping) else choice
    name = tools.sent_name(choice.get("namespace"), str(named.get("name")))
    if any(one["function"]["name"] == name for one in tools.sent):
        return {"type": "function", "function": {"name": name}}
    return None


def _allow(choice: Mapping[str, Any], tools: Tools) -> str | None:
    given = choice.get("tools")
    allowed = {
        tools.sent_name(one.get("namespace"), str(one.get("name")))
        for one in (given if isinstance(given, list) else ())
        if isinstance(one, Mapping)
    }
    kept = [one for one in tools.sent if one["function"]["name"] in allowed]
    if not kept:
        return None
    tools.sent = kept
    return "required" if choice.get("mode") == "required" else None


def _flattened(given: Sequence[Any], namespace: str = "") -> Iterator[tuple[str, Object]]:
    """The functions and free-form tools of a list, each with its namespace."""
    for tool in given:
        if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
            raise invalid_field("tools", "must be a list of objects with a type")
        if tool["type"] in ("function", "custom"):
            yield namespace, tool
        elif tool["type"] == "namespace" and not namespace:
            inner = tool.get("tools")
            if not isinstance(inner, list) or not isinstance(tool.get("name"), str):
                raise invalid_field("tools", "has a namespace without a name or a list of tools")
            yield from _flattened(inner, tool["name"])


def _function(name: str, tool: Object) -> Object:
    function: Object = {"name": name}
    description = tool.get("description")
    if isinstance(description, str):
        function["description"] = description
    if tool["type"] == "custom":
        function["description"] = _description_of_custom(function.get("description", ""), tool)
        function["parameters"] = {
            "type": "object",
            "properties": {INPUT: {"type": "string", "description": "The whole input, as text."}},
            "required": [INPUT],
        }
        return function
    parameters = tool.get("parameters")
    empty: Object = {"type": "object", "properties": {}}
    function["parameters"] = parameters if isinstance(parameters, dict) else empty
    if tool.get("strict") is True:  # that it is not need not be read by a reasoner
        function["strict"] = True
    return function


def _description_of_custom(description: str, tool: Object) -> str:
    """What a free-form tool is for, with the grammar that its input must follow."""
    lines = [description] if description else []
    form = tool.get("format")
    if isinstance(form, dict) and isinstance(form.get("definition"), str):
        syntax = str(form.get("syntax") or "formal")
        lines.append(f"The input must follow this {syntax} grammar:\n{form['definition']}")
    # Whatever else it says of JSON: it was written for models that call it without.
    return "\n\n".join([*lines, f"Here the input is the argument {INPUT}."])


def _joined(namespace: str, name: str) -> str:
    return namespace + name if namespace.endswith(_GAP) else namespace + _GAP + name
