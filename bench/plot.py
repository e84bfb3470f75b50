"""results.svg: messages a second to the last arrival, a panel a load, a bar a system, the range of the rounds on it."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.names import NAMES
from bench.results import Results
from bench.summary import row_of
from bench.table import title_of

FILE = "results.svg"
_COLOURS = ("#8c8c8c", "#c9a227", "#b5651d", "#1f6f8b", "#0b3954")
_COLUMNS = 2


def draw(results: Results, directory: Path) -> None:
    """Needs matplotlib, which nothing else of relayd does."""
    # The same results make the same file: neither a date nor ids that change.
    mpl.rcParams["svg.hashsalt"] = "relayd"
    loads = [load for load in results.loads() if load.generator == "smtp-source"]
    rows = max(1, -(-len(loads) // _COLUMNS))
    figure = Figure(figsize=(11, 2.3 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, squeeze=False)
    for panel, load in zip(panels.flat, loads, strict=False):
        found = [(name, row) for name in NAMES if (row := row_of(results.trials, name, load))]
        medians = [row.arrived.median for _, row in found]
        below = [row.arrived.median - row.arrived.least for _, row in found]
        above = [row.arrived.most - row.arrived.median for _, row in found]
        colours = [_COLOURS[list(NAMES).index(name)] for name, _ in found]
        bars = panel.barh([NAMES[name] for name, _ in found], medians, xerr=[below, above], color=colours, height=0.7)
        panel.bar_label(bars, fmt="%.0f", padding=4, fontsize=8)
        panel.set_title(title_of(load), fontsize=9)
        panel.set_xlim(0, max(medians, default=1) * 1.18)
        panel.invert_yaxis()
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in list(panels.flat)[len(loads) :]:
        panel.set_visible(False)
    figure.suptitle("Messages a second until the last arrival at the sink", fontsize=11)
    figure.savefig(directory / FILE, metadata={"Date": None})
