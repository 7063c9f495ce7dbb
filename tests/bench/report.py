"""The table: medians of all results, ratios to the best peer or the limit, and the bar that each is held to."""
import json
import statistics
from dataclasses import dataclass

from tools import LIMIT, TOOLS

OURS = "holdfast"
PEERS = [name for name in TOOLS if name != OURS]


@dataclass
class Bar:
    """What our figure is held to: at most (`less`) or at least `wanted`, as a ratio to `against` or, without one, as it is."""

    figure: str
    against: str | None
    wanted: float
    dataset: str | None = None
    less: bool = True


PEER = "best peer"
BARS = [
    Bar("backup, initial", PEER, 0.4, "kernel"), Bar("backup, initial", PEER, 0.5, "big"), Bar("backup, initial", PEER, 0.3, "many"),
    Bar("backup, unchanged", PEER, 0.3),
    Bar("restore", PEER, 0.45, "kernel"), Bar("restore", PEER, 0.95, "big"), Bar("check, all data", PEER, 0.4),
    Bar("mount to first ls", PEER, 0.1),
    Bar("find first", LIMIT, 2), Bar("find again", LIMIT, 1.5),
    Bar("cp -r cold", LIMIT, 0.65), Bar("cp -r cold", "restore cold", 1.5), Bar("restore cold", PEER, 0.45),
    Bar("grep -r again", LIMIT, 1.3),
    Bar("dd cold", PEER, 2, less=False), Bar("dd again", PEER, 0.95, less=False),
    Bar("random 4k, 1 job", PEER, 6, less=False), Bar("random 4k, 8 jobs", PEER, 12, less=False),
    Bar("random 128k, 1 job", PEER, 4, less=False), Bar("random 128k, 8 jobs", PEER, 4, less=False),
    Bar("random 4k, 1 job, p99", None, 1.0),
    *[Bar(f"daemon memory after {part}", None, 128) for part in ("find", "cp", "grep", "dd", "random reads", "all of it")],
    *[Bar(f"vault, daemon memory after {part}", None, 128) for part in ("dd", "cp -r admin-guide", "cp -r Documentation")],
    Bar("vault, mount to first ls, no cache", None, 0.3), Bar("vault, mount to first ls, cached", None, 0.05),
    Bar("vault, first byte, round trips", None, 4),
    Bar("vault, dd of 256 MB", PEER, 0.1),
    Bar("vault, cp -r admin-guide", PEER, 0.05), Bar("vault, cp -r Documentation", PEER, 0.02),
    Bar("vault, cp -r Documentation, requests per file", None, 0.02),
]


def read(path):
    """{(dataset, figure): {tool: [line]}}, in the order in which they were first taken."""
    found = {}
    for line in map(json.loads, path.read_text().splitlines()):
        found.setdefault((line["dataset"], line["figure"]), {}).setdefault(line["tool"], []).append(line)
    return found


def table(path):
    """The whole as lines of Markdown."""
    found = read(path)
    tools = [name for name in (OURS, *PEERS, LIMIT) if any(name in row for row in found.values())]
    yield f"| dataset | figure | {' | '.join(tools)} | ratio | bar | foreign CPU, s/s |"
    yield "| --- " * (len(tools) + 5) + "|"
    for (dataset, figure), row in found.items():
        unit = next(iter(row.values()))[0]["unit"]
        cells = " | ".join(spread(row.get(tool, [])) for tool in tools)
        ratios, bars = zip(*judged(found, dataset, figure) or [("", "")])
        name = f"{figure}, {unit}" if unit else figure
        yield f"| {dataset} | {name} | {cells} | {'; '.join(ratios)} | {'; '.join(bars)} | {foreign(row)} |"


def spread(lines):
    """Median and, of more than one, minimum and maximum; an estimate is marked."""
    if not lines:
        return ""
    values = [line["value"] for line in lines]
    said = short(statistics.median(values))
    if len(values) > 1:
        said += f" ({short(min(values))} to {short(max(values))})"
    return ("about " if any("estimate" in line for line in lines) else "") + said


def short(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def median(row, tool):
    return statistics.median(line["value"] for line in row[tool]) if tool in row else None


def judged(found, dataset, figure):
    """For each bar of a figure: the ratio (or nothing, if nobody is there to compare with), and the bar with its verdict."""
    row, said = found[dataset, figure], []
    ours = median(row, OURS)
    for bar in BARS:
        if bar.figure != figure or bar.dataset not in (None, dataset) or ours is None:
            continue
        sign = "≤" if bar.less else "≥"
        wanted = f"{sign} {bar.wanted:g}" + (f" × {bar.against}" if bar.against else "")
        base = reference(found, row, dataset, bar)
        if base is None:
            said.append(("", wanted))
            continue
        ratio = ours / base if base else float("inf")
        met = ratio <= bar.wanted if bar.less else ratio >= bar.wanted
        said.append((f"{ratio:.3g}" if bar.against else "", f"{wanted}: {'met' if met else 'NOT MET'}"))
    return said


def reference(found, row, dataset, bar):
    """What our figure is divided by: 1 for a bar without anybody to compare with."""
    if bar.against is None:
        return 1.0
    if bar.against == PEER:
        peers = [value for tool in PEERS if (value := median(row, tool)) is not None]
        return (min(peers) if bar.less else max(peers)) if peers else None
    if bar.against == LIMIT:
        return median(row, LIMIT)
    return median(found.get((dataset, bar.against), {}), OURS)


def foreign(row):
    """What others burnt for each second that was timed, over all tools: near 0 on a quiet machine, at most its processors."""
    timed = [line for lines in row.values() for line in lines if "took" in line]
    seconds = sum(line["took"] for line in timed)
    return short(sum(line["foreign"] for line in timed) / seconds) if seconds else ""
