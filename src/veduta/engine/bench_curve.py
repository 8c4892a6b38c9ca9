"""The curve of a bench: images per second over the batch size, a line for each file and runtime."""

from pathlib import Path

from veduta.engine.bench import Bench
from veduta.engine.curves import COLORS, GREY, new_figure, save_figure


def draw_bench(bench: Bench, path: Path) -> None:
    """Write a PNG."""
    figure, (axes,) = new_figure(4.5, (1,))
    groups = bench.groups()
    for number, group in enumerate(groups):
        batches = [point.batch_size for point in group]
        speeds = [point.images_per_second for point in group]
        label = f"{group[0].file}, {group[0].runtime}, {group[0].precision}"
        color, marker = COLORS[number % len(COLORS)], "osD^"[number // len(COLORS) % 4]
        axes.plot(batches, speeds, marker=marker, markersize=5, color=color, label=label)
    axes.set_xscale("log", base=2)
    ticks = sorted({point.batch_size for point in bench.points})
    axes.set_xticks(ticks, [str(batch) for batch in ticks])
    axes.minorticks_off()
    axes.set_xlabel("batch size")
    axes.set_ylabel("images per second")
    axes.set_ylim(bottom=0)
    axes.set_title(bench.machine["cpu"], fontsize=10, color=GREY)
    axes.legend(loc="best", frameon=False, fontsize=8)
    save_figure(figure, path)
