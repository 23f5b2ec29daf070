"""Lists of images and their classes: CSV with a heading, or JSON lines."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from ...errors import DataError

LISTS = (".csv", ".tsv", ".jsonl", ".ndjson")
"""The endings of the files that are lists."""

# What people call the two columns.
_PATHS = ("path", "file", "filename", "file_name", "image", "image_path")
_LABELS = ("label", "class", "class_name", "target", "category")


def read_list(path: Path) -> Iterator[tuple[Path, str]]:
    """Give the images of a list with the names of their classes, in its order.

    Args:
        path: A CSV or TSV file whose first line names the columns, or a file with a JSON object a line. One column is
            the image's path, relative to the list's folder unless absolute, one its class; see docs/data.md
            for what they may be called.

    Raises:
        DataError: The file cannot be read, or a line of it lacks a path or a class; the line is named.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"the list {path} is no text in UTF-8 ({error}); save it as such") from error
    except OSError as error:
        raise DataError(f"the list {path} cannot be read ({error.strerror}); check the path") from error
    rows = _json_rows(text, path) if path.suffix.lower() in (".jsonl", ".ndjson") else _csv_rows(text, path)
    empty = True
    for number, row in rows:
        empty = False
        image, label = _pick(row, _PATHS), _pick(row, _LABELS)
        if image is None or label is None:
            lacking, names = ("path", _PATHS) if image is None else ("class", _LABELS)
            raise DataError(
                f"line {number} of {path} names no {lacking}; give it under {names[0]!r} (or {', '.join(names[1:])})"
            )
        yield path.parent / image, label
    if empty:
        raise DataError(f"the list {path} names no image; write one a line")


def _csv_rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(text.splitlines(), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    columns = [str(name).strip().lower() for name in reader.fieldnames or ()]
    for what, names in (("path", _PATHS), ("label", _LABELS)):
        if not set(names) & set(columns):
            raise DataError(
                f"the first line of {path} names no column {what!r} (or {', '.join(names[1:])}), only "
                f"{', '.join(map(repr, columns)) or 'nothing'}; begin the list with a line such as path,label"
            )
    reader.fieldnames = columns
    try:
        for row in reader:
            yield reader.line_num, {key: value for key, value in row.items() if isinstance(value, str)}
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} of {path} is no CSV ({error}); mend it") from error


def _json_rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"line {number} of {path} is no JSON ({error}); mend it") from error
        if not isinstance(row, dict):
            raise DataError(f"expected line {number} of {path} to be a JSON object, got {type(row).__name__}")
        # A class may be a number.
        yield (
            number,
            {
                key.lower(): str(value)
                for key, value in row.items()
                if isinstance(value, str | int) and not isinstance(value, bool)
            },
        )


def _pick(row: dict[str, str], names: tuple[str, ...]) -> str | None:
    return next((row[name].strip() for name in names if row.get(name, "").strip()), None)
