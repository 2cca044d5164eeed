"""Checks of files and names: each file from somewhere, no name there twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from skerry.spec.model import FileSpec
from skerry.spec.problems import Problem


def check_files(path: str, files: tuple[FileSpec, ...]) -> Iterator[Problem]:
    """Yield what is wrong with files that are laid out in one directory."""
    yield from check_unique(path, "file", (file.path for file in files))
    paths = {file.path for file in files}
    for index, file in enumerate(files):
        yield from check_file(f"{path}[{index}]", file)
        parents = file.path.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            if "/".join(parents[:depth]) in paths:
                yield Problem(
                    f"{path}[{index}].path", f"{'/'.join(parents[:depth])} is a file and a directory"
                )


def check_file(path: str, file: FileSpec) -> Iterator[Problem]:
    """Yield a problem when it is not clear where a file comes from."""
    if bool(file.source) == bool(file.digest):
        yield Problem(path, "needs a source, or a digest with size_bytes", "write source: FILE")


def check_unique(path: str, what: str, names: Iterable[str]) -> Iterator[Problem]:
    """Yield a problem for each name that is there more than once."""
    for name, count in Counter(names).items():
        if count > 1:
            yield Problem(path, f"{what} {name} is there {count} times")


def known_words(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the words that can stand there, the one that `word` resembles first."""
    # Only documents that are wrong need it: most processes never do.
    import difflib

    names = list(known)
    near = difflib.get_close_matches(word.lower(), names, n=1) or difflib.get_close_matches(word, names, n=1)
    nearest = f"did you mean {near[0]}? " if near else ""
    return f"{nearest}known here: {', '.join(names)}"
