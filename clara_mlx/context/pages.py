"""Pages of an original: exact lines, long ones in parts, or all places that contain something."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from clara_mlx.compressors.ranking import lines_sharing_words
from clara_mlx.context.lines import Numbering, Passage
from clara_mlx.context.outline import outline
from clara_mlx.memory import Memory

#: The most lines that one page of an original has: as many as agents' own tools read of a file.
PAGE_LINES = 2_000

#: The most characters that it has if nobody says how many there is room for.
PAGE_CHARACTERS = 12_000

# The share of a first page that tells what stands further on, if there is more.
_OUTLINE = 1 / 8

# The most characters of that.
_OUTLINE_CHARACTERS = 4_000

# Lines shown before and after a match.
_LINES_AROUND = 2

# The number of lines shown if nothing matches.
_NEAREST = 20

# Characters of a line above which only the parts around matches are shown, so that several matches
# fit on a page.
_LONG_LINE = PAGE_CHARACTERS // 8

# Characters shown before and after a match in such a line.
_AROUND = 200

# Characters of what was looked for that are repeated.
_FIND_CHARACTERS = 200

# Characters of a text up to which it is looked through as a reader sees it.
_SEEN_WHOLE = 4_000_000


def expand(
    memory: Memory,
    handle: str,
    start_line: int = 1,
    lines: int = PAGE_LINES,
    find: str | None = None,
    start_character: int = 1,
    characters: int = PAGE_CHARACTERS,
) -> str:
    """A page of an original: exact lines, and how to get the next page.

    Nothing in the lines is changed, not even what looks like a block of ours: an agent edits files
    by them. The page is a tool's result, and its first line says whose text follows. If the first
    page is full and there is more, that line also says what stands where in the rest.

    Args:
        memory: The memory that keeps the original.
        handle: Its handle.
        start_line: The first line of the page, from 1.
        lines: The number of lines; at most `PAGE_LINES`.
        find: Show only what contains this, and what is around it.
        start_character: Where in the first line the page begins, from 1; a very long line has
            several pages. With ``find``, matches before that place are passed over.
        characters: Characters that a page may have; with ``find`` at most `PAGE_CHARACTERS`.

    Raises:
        ClaraError: No memory has that handle.
    """
    text = memory.text(handle)
    if find is not None:
        room = min(characters, PAGE_CHARACTERS)
        return _find(handle, text, find, max(1, start_line), max(1, start_character), room)
    all_lines = text.split("\n")
    first = max(1, start_line)
    if first > len(all_lines):
        return (
            f"[{handle}: line {first} is past the end; it has {len(all_lines)} lines; "
            f"the last ones: start_line={max(1, len(all_lines) - PAGE_LINES + 1)}]"
        )
    skipped = max(1, start_character) - 1
    length = len(all_lines[first - 1])
    if skipped and skipped >= length:
        more = f"; next: start_line={first + 1}" if first < len(all_lines) else ""
        return (
            f"[{handle}: character {skipped + 1} is past the end of line {first}, which has "
            f"{length} characters{more}]"
        )
    # A first page leaves room for the outline, if there is more than it holds.
    is_first = first == 1 and not skipped
    outlined = 0
    if is_first and len(text) > characters:
        outlined = min(_OUTLINE_CHARACTERS, int(characters * _OUTLINE))
    room = characters - outlined
    if length - skipped > room or skipped:
        end = min(skipped + room, length)
        more = outline(text, end, outlined)
        return _part_of_line(handle, all_lines, first, skipped, end, more)
    wanted = min(max(1, lines), PAGE_LINES)
    page: list[str] = []
    for line in all_lines[first - 1 : first - 1 + wanted]:
        if len(line) > room and page:
            break
        page.append(line)
        room -= len(line) + 1
    last = first + len(page) - 1
    more = ""
    if last < len(all_lines):
        if len(page) < wanted or wanted == PAGE_LINES:  # it is full
            more = outline(text, sum(map(len, page)) + len(page), outlined)
        more += f"; next: start_line={last + 1}"
    return "\n".join([f"[{handle} lines {first}-{last} of {len(all_lines)}{more}]", *page])


def _part_of_line(
    handle: str, lines: list[str], number: int, skipped: int, end: int, more: str
) -> str:
    """A part of a long line, and where the next page begins."""
    line = lines[number - 1]
    if end < len(line):
        more += f"; next: start_line={number}, start_character={end + 1}"
    elif number < len(lines):
        more += f"; next: start_line={number + 1}"
    place = f"characters {skipped + 1}-{end} of {len(line)}"
    heading = f"[{handle} lines {number}-{number} of {len(lines)}, {place}{more}]"
    return f"{heading}\n{line[skipped:end]}"


def _find(
    handle: str, text: str, find: str, start_line: int, start_character: int, room: int
) -> str:
    """The places that contain a text, with what is around them; if none does, the nearest lines."""
    lines = text.split("\n")
    starts = list(accumulate((len(line) + 1 for line in lines), initial=0))
    places = _places(text, find)
    asked = repr(find if len(find) <= _FIND_CHARACTERS else f"{find[:_FIND_CHARACTERS]}...")
    if not places:
        return _nearest(handle, text, find, asked, room)
    numbers = [bisect_right(starts, place) - 1 for place in places]
    having = len(set(numbers))
    head = f"{having} of {len(lines)} lines contain {asked}"
    if len(places) > having:
        head += f", {len(places)} times in all"
    past = 0
    if (start_line, start_character) > (1, 1):
        begin = starts[min(start_line, len(lines)) - 1] + start_character - 1
        past = sum(place < begin for place in places)
        head += f"; {past} are before this page"
    shown: dict[tuple[int, int], str] = {}
    done = past
    for place, number in zip(places[past:], numbers[past:], strict=True):
        new = {
            key: told
            for key, told in _around(lines, number, place - starts[number], len(find)).items()
            if key not in shown
        }
        taken = sum(map(len, new.values())) + len(new)
        if taken > room and done > past:
            break
        room -= taken
        shown.update(new)
        done += 1
    if done < len(places):
        next_line = numbers[done] + 1
        next_character = places[done] - starts[numbers[done]] + 1
        head += (
            f"; {done - past} are shown; next: start_line={next_line}"
            f", start_character={next_character}, and the same find"
        )
    return "\n".join([f"[{handle}: {head}]", *(shown[key] for key in sorted(shown))])


def _places(text: str, find: str) -> list[int]:
    """Where a text contains another one; what overlaps counts once."""
    places: list[int] = []
    place = text.find(find)
    while place >= 0:
        places.append(place)
        place = text.find(find, place + max(1, len(find)))
    return places


def _around(lines: list[str], number: int, before: int, size: int) -> dict[tuple[int, int], str]:
    """What is shown for a match, by line and place in it.

    Args:
        lines: All lines.
        number: The index of the line in which the match begins.
        before: The characters of that line before it.
        size: The length of the match.
    """
    line = lines[number]
    if len(line) > _LONG_LINE:
        # In steps, so that matches that are close to one another are shown once.
        start = max(0, before // _AROUND - 1) * _AROUND
        end = before + size + _AROUND
        end = min(end - end % -_AROUND, start + PAGE_CHARACTERS)
        cut = "..." if end < len(line) else ""
        return {
            (number, start): f"{number + 1}, from character {start + 1}: {line[start:end]}{cut}"
        }
    near = range(max(0, number - _LINES_AROUND), min(len(lines), number + _LINES_AROUND + 1))
    return {
        (i, 0): f"{i + 1}: {lines[i]}" for i in near if i == number or len(lines[i]) <= _LONG_LINE
    }


def _nearest(handle: str, text: str, find: str, asked: str, room: int) -> str:
    """Lines that contain a text as a reader sees them; if none does, those that share its words."""
    numbering = Numbering(text)
    head = f"none of {numbering.count} lines contains {asked}"
    if len(text) > _SEEN_WHOLE:
        return f"[{handle}: {head}]"
    passage = Passage(text)
    seen = passage.lines.texts
    best = [index for index, line in enumerate(seen) if find in line]
    if best:
        head += f"; without codes and escapes, {len(best)} do"
    else:
        best = lines_sharing_words(seen, find)[:_NEAREST]  # a model often quotes inexactly
        head += f"; these {len(best)} share most of its words" if best else ""
    told: list[str] = []
    for index in sorted(best[:_NEAREST]):
        told.append(f"{passage.label(index, numbering)}: {seen[index]}")
        room -= len(told[-1]) + 1
        if room < 0:
            told.pop()
            break
    return "\n".join([f"[{handle}: {head}]", *told])
