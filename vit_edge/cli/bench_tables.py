"""How ``vit-edge bench`` prints what it measured."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..bench import Pictures, Report, Row


def tables(report: "Report") -> Iterator[str]:
    """Give the lines: the device, the times of each row, the thread counts, and what fresh processes showed."""
    yield device_line(report.device)
    yield f"{pictures_line(report.pictures)}; times in ms a call, medians but for p90 and p99"
    yield ""
    names = _names(report.rows)
    head = ("decode", "preprocess", "inference", "end to end", "p90", "p99", "spread", "images/s", "ratio")
    yield from _aligned([(*_SETTING, *head), *map(_times, names, report.rows)])
    if report.starts:
        yield ""
        lines = []
        for name, row, start in zip(names, report.rows, report.starts, strict=True):
            first = start.first_answer
            peak = "unknown" if start.peak_mb is None else f"{start.peak_mb:.0f}"
            lines.append((*_setting(name, row), f"{first.p50_ms:.0f}", f"{first.p90_ms:.0f}", peak))
        yield from _aligned([(*_SETTING, "start to answer", "p90", "peak MB"), *lines])
    for sweep in report.sweeps:
        yield ""
        yield f"threads for {sweep.model.name} with {sweep.provider}: {sweep.best} is best; ms of inference an image:"
        yield "  " + ", ".join(f"{threads}: {ms:.2f}" for threads, ms in sweep.ms.items())


def device_line(device: Mapping[str, Any]) -> str:
    """Name the device in a line."""
    processor = device["processor"]
    name = processor.get("name") or processor.get("architecture")
    return f"{name}, {device['cores']} cores, ONNX Runtime {device['onnxruntime']}, OpenCV {device['opencv']}"


def pictures_line(pictures: "Pictures") -> str:
    """Name what was classified in a line."""
    values = pictures.to_dict()
    count, sizes = values["count"], values["sizes"]
    what = f"{count} images of {pictures.name}" if count > 1 else pictures.name
    size = sizes[0] if len(sizes) == 1 else f"{len(sizes)} sizes"
    return f"{what} ({size}, {values['bytes'] / count / 1e3:.0f} kB{' each' if count > 1 else ''})"


_SETTING = ("model", "provider", "threads", "batch", "at once")


def _setting(name: str, row: "Row") -> tuple[str, ...]:
    setting = row.setting
    return name, setting.provider, str(setting.threads), str(setting.batch), str(setting.concurrency)


def _times(name: str, row: "Row") -> tuple[str, ...]:
    whole = row.end_to_end
    times = (row.decode, row.preprocess, row.inference, whole)
    return (
        *_setting(name, row),
        *(f"{each.p50_ms:.2f}" for each in times),
        f"{whole.p90_ms:.2f}",
        f"{whole.p99_ms:.2f}",
        f"{100 * whole.spread:.0f} %",
        f"{row.images_per_s:.1f}",
        f"{row.ratio:.2f}",
    )


def _names(rows: Sequence["Row"]) -> list[str]:
    """Give the files' names, with their folders where two files have the same name."""
    paths = {row.model for row in rows}
    unique = len({path.name for path in paths}) == len(paths)
    return [row.model.name if unique else str(row.model) for row in rows]


def _aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Put cells in columns: names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, widths, strict=True)
        yield "  ".join(
            f"{cell:<{width}}" if place < 2 else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(cells)
        )
