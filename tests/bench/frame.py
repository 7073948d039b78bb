"""What every row of the benchmark stands on: its context, alternating rounds with their medians, and the forms results are written in.

A module of tests/bench that measures something has ROWS = {name: function}, and in MORE those that --quick leaves out. A function takes a
Context and answers with a dict, or a list of them when it measures more than one thing:
  ours, other   medians, in `unit`                other_name   what `other` is
  ratio         ours / other                      rounds       how many rounds the medians are of
and, if it likes, name (in a list: the row's own), better ("more", the default, or "less"), target (a field, ">=" or "<=", a limit:
what the project wants to reach). The first line of the function's docstring says what the row is. Nothing here starts a process.
"""
import dataclasses
import itertools
import json
import math
import operator
import pathlib
import statistics

FIELDS = ("name", "ours", "other", "other_name", "ratio", "unit", "rounds")
PAYLOAD_BYTES = 300


@dataclasses.dataclass
class Context:
    build: pathlib.Path    # the build directory: programs are in bin/ and tests/
    quick: bool            # the whole run in under three minutes
    rounds: int            # of each side of a row
    scratch: pathlib.Path  # temporary, the row's own
    notes: list = dataclasses.field(default_factory=list)
    shared: dict = dataclasses.field(default_factory=dict)  # of all rows of the run

    def note(self, text):
        """A sentence that belongs below the table: what a figure does not say by itself."""
        if text not in self.notes:
            self.notes.append(text)

    def pick(self, full, quick):
        return quick if self.quick else full

    def once(self, key, function):
        """What function() answers, called once in the run: for rows that are columns of one measurement."""
        if key not in self.shared:
            self.shared[key] = function()
        return self.shared[key]

    def directory(self, name):
        """A new one in scratch; its path is short."""
        for number in itertools.count():
            path = self.scratch / f"{name}{number}"
            if not path.exists():
                path.mkdir()
                return path


def alternate(rounds, *sides):
    """Calls every side once a round, the first one later in the next round, so that a machine whose speed drifts is fair to each.

    Answers with a list of results a side.
    """
    results = [[] for _ in sides]
    for k in range(rounds):
        for j in range(len(sides)):
            at = (j + k) % len(sides)
            results[at].append(sides[at]())
    return results


def compared(ours, other, other_name, unit, **more):
    """A row of two lists of figures."""
    ours, rounds, other = statistics.median(ours), len(ours), statistics.median(other)
    return dict(ours=ours, other=other, other_name=other_name, ratio=ours / other, unit=unit, rounds=rounds, **more)


def measured(context, ours, other, other_name, unit, **more):
    """A row of two functions that each measure one round."""
    return compared(*alternate(context.rounds, ours, other), other_name, unit, **more)


def percentile(values, percent):
    """The value that `percent` of them do not exceed."""
    values = sorted(values)
    return values[max(0, math.ceil(len(values) * percent / 100) - 1)]


# --- what a result looks like ---------------------------------------------------------------------------------------------------------

def rows_of(name, result):
    """The rows that a function's answer stands for, complete."""
    rows = []
    for one in result if isinstance(result, list) else [result]:
        row = {"name": name, "better": "more", "target": None} | one
        missing = [field for field in FIELDS if row.get(field) is None]
        if missing:
            raise ValueError(f"row {row['name']} has no {', '.join(missing)}")
        if not all(math.isfinite(row[field]) and row[field] > 0 for field in ("ours", "other", "ratio")):
            raise ValueError(f"row {row['name']} measured nothing: {row}")
        rows.append(row)
    return rows


def is_met(row):
    """Whether the row reaches its target; None without one."""
    if not row["target"]:
        return None
    field, relation, limit = row["target"]
    return {">=": operator.ge, "<=": operator.le}[relation](row[field], limit)


def figure(value):
    """Three digits that matter."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def wanted(row):
    if not row["target"]:
        return ""
    field, relation, limit = row["target"]
    return f"{'≥' if relation == '>=' else '≤'} {limit:g}" + ("" if field == "ratio" else f" {row['unit']}")


HEADINGS = ("row", "ours", "other", "what the other is", "unit", "better", "ratio", "wanted", "")


def cells(row):
    return (row["name"], figure(row["ours"]), figure(row["other"]), row["other_name"], row["unit"], row["better"], f"{row['ratio']:.2f}",
            wanted(row), {None: "", True: "reached", False: "missed"}[is_met(row)])


def as_json(rows):
    return json.dumps([{field: row[field] for field in FIELDS} for row in rows], indent=1, ensure_ascii=False) + "\n"


def as_text(rows):
    """A table for a terminal."""
    table = [HEADINGS, *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*table)]
    right = {1, 2, 6}
    return "".join("  ".join(cell.rjust(width) if k in right else cell.ljust(width) for k, (cell, width) in enumerate(zip(line, widths)))
                   .rstrip() + "\n" for line in table)


def as_markdown(rows):
    line = "| {} |\n".format
    return (line(" | ".join(HEADINGS)) + line(" | ".join("--:" if k in (1, 2, 6) else "---" for k in range(len(HEADINGS)))) +
            "".join(line(" | ".join(("`%s`" % cell if k == 0 else cell) for k, cell in enumerate(cells(row)))) for row in rows))


def times_better(row, ratio):
    return ratio if row["better"] == "more" else 1 / ratio


def as_gnuplot(rows, picture):
    """A script that draws how many times better ours is, a bar a row, the target as a mark on it. The scale is logarithmic."""
    values = [times_better(row, row["ratio"]) for row in rows]
    targets = [times_better(row, row["target"][2]) if row["target"] and row["target"][0] == "ratio" else None for row in rows]
    every = values + [target for target in targets if target] + [1]
    low, high = min(every) / 1.5, max(every) * 1.8
    place = [len(rows) - k for k in range(len(rows))]
    names = ", ".join(f'"{row["name"]}" {at}' for row, at in zip(rows, place))
    bars = "\n".join(f"{low:g} {at} {low:g} {value:g} {at - 0.32:g} {at + 0.32:g}" for value, at in zip(values, place))
    labels = "\n".join(f'{value:g} {at} "{value:.2f}×"' for value, at in zip(values, place))
    marks = "\n".join(f"{target:g} {at}" for target, at in zip(targets, place) if target) or "NaN NaN"
    return f"""set terminal svg size 900,{110 + 26 * len(rows)} font "sans-serif,13" background "white"
set output "{picture}"
set logscale x
set xrange [{low:g}:{high:g}]
set yrange [0.3:{len(rows) + 0.7:g}]
set ytics ({names}) scale 0
set xtics (0.1, 0.25, 0.5, 1, 2, 4, 10, 25, 100, 250)
set grid xtics linecolor "#dddddd"
set border 1
set xlabel "times better than what it stands beside (rates: ours / other; latencies, costs: other / ours)"
set arrow from 1, graph 0 to 1, graph 1 nohead linecolor "#555555"
set key outside top center horizontal
$bars << EOD
{bars}
EOD
$labels << EOD
{labels}
EOD
$marks << EOD
{marks}
EOD
plot $bars using 1:2:3:4:5:6 with boxxyerror fillstyle solid noborder linecolor "#4878a8" title "measured", \\
     $marks using 1:2 with points pointtype 2 pointsize 1.2 linewidth 2 linecolor "#c03030" title "wanted", \\
     $labels using 1:2:3 with labels left offset 0.5,0 notitle
"""
