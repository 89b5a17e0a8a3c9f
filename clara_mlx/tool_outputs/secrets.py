"""Finds secrets in any text, and masks them before the text is written anywhere.

The rules are our own because detect-secrets and gitleaks scan files for review: they report hashes
of findings, not spans that can be masked, and bring a program or a tree of plugins along. As in
`identifiers`, every repetition is possessive or bounded, an expression begins with characters, and
the comment above it is a text that it matches.
"""

from __future__ import annotations

from dataclasses import dataclass

from clara_mlx.tool_outputs.pieces import cut_into_pieces
from clara_mlx.tool_outputs.secret_blocks import private_keys
from clara_mlx.tool_outputs.secret_calls import call_secrets
from clara_mlx.tool_outputs.secret_commands import command_secrets
from clara_mlx.tool_outputs.secret_names import named_secrets
from clara_mlx.tool_outputs.secret_places import file_secrets, header_secrets, url_secrets
from clara_mlx.tool_outputs.secret_tokens import vendor_tokens
from clara_mlx.tool_outputs.undress import undress


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret and its place in the text that was searched."""

    kind: str
    start: int
    end: int


def mask(text: str) -> tuple[str, list[Secret]]:
    """The text with every secret replaced with ``[masked: KIND]``, and where the secrets were.

    The replacement reveals neither length nor characters of the secret, and masking a masked text
    changes nothing. Places are those in the given text.
    """
    found = secrets(text)
    parts: list[str] = []
    last = 0
    for secret in found:
        parts += (text[last : secret.start], f"[masked: {secret.kind}]")
        last = secret.end
    return "".join(parts) + text[last:], found


def secrets(text: str) -> list[Secret]:
    """The secrets of ``text`` in their order.

    They are looked for in the text as it is, as a reader sees it, and without what stands before
    its lines, so that no colour, number or time hides one. Secrets that overlap are given as one,
    of the kind of the rule that comes first.
    """
    found = _found(text)
    view = undress(text)
    worn = {text}
    for seen in (view, view.bare):
        if seen.text not in worn:
            worn.add(seen.text)
            for start, end, rank, kind in _found(seen.text):
                found.append((*seen.original_span(start, end), rank, kind))
    found.sort()
    kept: list[Secret] = []
    named_by = 0  # rank of the rule that names the last secret
    for start, end, rank, kind in found:
        if kept and start < kept[-1].end:
            before = kept[-1]
            name = kind if rank < named_by else before.kind
            kept[-1] = Secret(name, before.start, max(before.end, end))
            named_by = min(rank, named_by)
        else:
            kept.append(Secret(kind, start, end))
            named_by = rank
    return kept


# Characters around a place that can matter to what is found there: three parts of a token.
_CONTEXT = 32_768

# If two rules find the same secret, the one whose rank is lower says its kind; the rank of private
# keys, which are longer than a piece's context, is 1.
_RULES = {
    0: vendor_tokens,
    2: url_secrets,
    3: header_secrets,
    4: named_secrets,
    5: command_secrets,
    6: call_secrets,
    7: file_secrets,
}


def _found(text: str) -> list[tuple[int, int, int, str]]:
    """Start, end, rank and kind of all that the rules find."""
    found = [(start, end, 1, "private key") for start, end in private_keys(text)]
    for words, offset, first, end_of_piece in cut_into_pieces(text, _CONTEXT):
        for rank, rule in _RULES.items():
            found += [
                (start + offset, end + offset, rank, kind)
                for start, end, kind in rule(words)
                if first <= start < end_of_piece
                # What is masked already is no secret; a vendor's token is never in a mask.
                and (rule is vendor_tokens or "[masked:" not in words[start:end])
            ]
    return found
