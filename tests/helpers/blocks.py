"""The blocks of code in Markdown pages, and the outputs that pages show."""

from __future__ import annotations

import ast
import math
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace

CODE = ("python", "bash")
OUTPUT = ("", "text", "json")  # languages of blocks that show what a program prints
FENCE = re.compile(r"( *)(`{3,}|~{3,})\s*([^`]*)")
# A paragraph or block that begins like this is a command, which has to be in a block that runs.
COMMAND = re.compile(
    r"\s*(?:\$ |>>> |(?:apt-get|brew|conda|curl|docker|export|flip-sklearn|git|hf|make|mpirun|pip|python3?|"
    r"sbatch|srun|ssh|torchrun|wget|zcat)\s|from [\w.]+ import |import \w)"
)
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w]|\.\d)")


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is the number of lines above its first line, ``output`` what it must print."""

    line: int
    language: str
    source: str
    output: str | None = None


def code_blocks(text: str) -> list[Block]:
    """Return the blocks of Python and Bash, in the order of the page, with the outputs that follow them."""
    blocks: list[Block] = []
    lines = text.splitlines()
    last_end = None  # of a block of code without an output
    for block, end in fenced_blocks(lines):
        if block.language in CODE:
            blocks.append(block)
            last_end = end
            continue
        if block.language not in OUTPUT:
            names = ", ".join((*CODE, *OUTPUT[1:]))
            raise ValueError(f"line {block.line}: {block.language!r} is no language of a block; use {names}")
        if COMMAND.match(block.source) or is_python(block.source):
            raise ValueError(f"line {block.line}: code is marked as text")
        if last_end is not None and not "".join(lines[last_end : block.line - 1]).strip():
            blocks[-1] = replace(blocks[-1], output=block.source)
        last_end = None
    return blocks


def fenced_blocks(lines: list[str], start: int = 0) -> Iterator[tuple[Block, int]]:
    """Yield each block, and the number of the line below it; also those inside of MyST's directives."""
    i = 0
    while i < len(lines):
        opened = FENCE.fullmatch(lines[i])
        i += 1
        if not opened:
            continue
        _, fence, info = opened.groups()
        first = i
        while i < len(lines) and not re.fullmatch(rf" *{fence[0]}{{{len(fence)},}} *", lines[i]):
            i += 1
        content = lines[first:i]
        i += 1
        directive = re.fullmatch(r"\{([\w:-]+)\}\s*(.*)", info.strip())
        if directive and directive[1] not in ("code", "code-block"):
            yield from fenced_blocks(content, start + first)
            continue
        language = directive[2] if directive else info.partition(" ")[0]
        while directive and content and (content[0].startswith(":") or not content[0].strip()):
            content, first = content[1:], first + 1  # options of the directive
        source = textwrap.dedent("".join(f"{line}\n" for line in content))
        yield Block(start + first, language.strip(), source), start + i


def is_python(source: str) -> bool:
    """Whether a block is a program that imports, defines or assigns something."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return False
    return any(isinstance(part, (ast.Import, ast.ImportFrom, ast.Assign, ast.FunctionDef)) for part in body)


def loose_commands(text: str) -> list[str]:
    """Return the commands that stand in an indented paragraph instead of a block."""
    fenced: set[int] = set()
    lines = text.splitlines()
    for block, end in fenced_blocks(lines):
        fenced |= set(range(block.line - 1, end))
    return [
        line
        for i, line in enumerate(lines)
        if i not in fenced and line.startswith("    ") and COMMAND.match(line)
    ]


def inline_commands(text: str) -> list[str]:
    """Return the commands in sentences that name an example, a benchmark, an extra or a target."""
    outside = re.sub(r"^( *)(```+).*?^\1\2`* *$", "", text, flags=re.DOTALL | re.MULTILINE)
    spans = (" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", outside))
    return [
        span
        for span in spans
        if re.match(r"(python (-m benchmarks\.\w|examples/)|pip install|make) ?\w", span)
    ]


def prints(expected: str, printed: str) -> bool:
    """Whether an output is the expected one: "..." is any text, and fractions may differ by a twentieth.

    White space is compared as in a sentence. Whole numbers are equal.
    """
    pattern, place, numbers = "", 0, []
    expected = " ".join(expected.split())
    for found in re.finditer(rf"\.\.\.|{NUMBER.pattern}", expected):
        pattern += re.escape(expected[place : found.start()])
        place = found.end()
        if found[0] == "...":
            pattern += ".*?"
        else:
            numbers.append(found[0])
            pattern += f"({NUMBER.pattern})"
    match = re.fullmatch(pattern + re.escape(expected[place:]), " ".join(printed.split()))
    return match is not None and all(
        math.isclose(float(x), float(y), rel_tol=0.05, abs_tol=0.05) if re.search(r"[.e]", x) else x == y
        for x, y in zip(numbers, match.groups(), strict=True)
    )
