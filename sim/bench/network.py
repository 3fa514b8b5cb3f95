"""Figures of any network on any configuration: tables, picture of the layers, roofline; ideal and limited memory."""

from ..compiled import compiled_program
from ..memory import IDEAL, limited
from .measure import measure
from .pages import Section, write_page
from .pictures import causes_picture, roofline_picture, save
from .tables import layers_table, run_name, runs_table, write_layers, write_table

__all__ = ["EXPLAINED", "MEMORIES", "bench_network", "draw", "write_network_page"]

MEMORIES = {"ideal": IDEAL, "limited": limited()}
SHOWN_LAYERS = 24  # in the terminal
EXPLAINED = (
    "Cycles of a layer run from the last MAC of the layer before to its own last MAC; their causes are the NPU's "
    "counters. MAC utilisation: useful MACs / (PEs x lanes x cycles), whole networks from the commit to the last write "
    "response. The roofline counts bytes of the busier direction of the bus; a layer whose data were read in the time "
    "of the layer before can lie above the memory's roof. Figures come from the cycle model, which equals the RTL "
    "cycle for cycle (--rtl proves it for a run)."
)


def bench_network(config, network, counts, memories, folder, console, *, unstacked=False, build=None, progress=None):
    """Measure a network for some numbers of live samples on some memories; returns the Measurements.

    network : graph.Network; memories : dict name -> MemorySettings; folder : receives index.html, layers.csv, runs.csv
    and pictures; build, progress : of measure.measure. Every run is printed as soon as it is measured.
    """
    with console.status(f"compiling {network.name} for {config.name}") as status:
        program = compiled_program(config, network, status=status.update)
    found = []
    for live in counts:
        for memory in memories.values():
            options = {"memory": memory, "unstacked": unstacked, "build": build, "progress": progress}
            m = measure(config, program, live, **options)
            found.append(m)
            console.print(layers_table(m, SHOWN_LAYERS, compact=True).to_rich())
            if build is not None:
                console.print("The RTL did the same: every event in its cycle, every counter.\n")
    console.print(runs_table(found).transposed().to_rich())
    with console.status("drawing"):
        page = write_network_page(config, found, folder)
    console.print(f"Written: {page}, layers.csv, runs.csv, pictures", soft_wrap=True)
    return found


def write_network_page(config, measurements, folder, drawn=None):
    """index.html, layers.csv, runs.csv and pictures of measurements of one network; returns the page's path.

    drawn : measurements that pictures are made of, default all; those with the same number of live samples share one
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_layers(measurements, folder / "layers.csv")
    write_table(runs_table(measurements), folder / "runs.csv")
    sections = [Section("Runs", tables=[runs_table(measurements)])]
    drawn = measurements if drawn is None else drawn
    for live in dict.fromkeys(m.live for m in drawn):
        mine = [m for m in drawn if m.live == live]
        section = Section(f"{live} live", pictures=draw(config, mine, folder), tables=[layers_table(m) for m in mine])
        sections.append(section)
    m = measurements[0]
    proof = "The RTL did the same." if all(m.rtl for m in measurements) else "From the cycle model."
    return write_page(folder / "index.html", f"{m.network} on {config.name}", [EXPLAINED, proof], sections)


def draw(config, measurements, folder):
    """Pictures of measurements of one network that differ in memory or stacking; names of the SVG files."""
    panels = [(run_name(m), m) for m in measurements]
    stem = f"{measurements[0].live}-live"
    return [
        save(causes_picture(panels), folder / f"{stem}-causes"),
        save(roofline_picture(config, panels), folder / f"{stem}-roofline"),
    ]
