#!/usr/bin/env python3
"""Tables of what observations.sh measured: means over scenes, with 95 % percentile-bootstrap intervals."""

import csv
import random
import sys
from pathlib import Path

MOMENTS = {"start": 0.0, "half way": 0.5, "nine tenths": 0.9}


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def interval(values, repeats=10_000):
    """The mean and its interval, as text."""
    draw = random.Random(0)
    means = sorted(sum(draw.choices(values, k=len(values))) / len(values) for _ in range(repeats))
    low, high = means[int(0.025 * repeats)], means[int(0.975 * repeats)]
    return f"{sum(values) / len(values):.3g} [{low:.3g}, {high:.3g}]"


def table(title, head, of_scene, scenes):
    """`of_scene(folder)` maps a row's name to its numbers, by column."""
    found = [of_scene(folder) for folder in scenes]
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for name in found[0]:
        columns = zip(*(scene[name] for scene in found))
        print(f"| {name} | {' | '.join(interval(column) for column in columns)} |")


def score_error(folder):
    by_name = {}
    for row in rows(folder / "score-error/score-error.csv"):
        by_name.setdefault(row["estimate"], []).append(float(row["paper"]))
    return {name: [run[int((len(run) - 1) * share)] for share in MOMENTS.values()] for name, run in by_name.items()}


def score_mean(folder):
    return {row["estimate"]: [float(row["paper"]), float(row["average"])] for row in rows(folder / "score-mean/score-mean.csv")}


def diversity(folder):
    methods = ["reference", "dps", "dmap-same"]
    found = {name: float(rows(folder / f"diversity/{name}/diversity.csv")[0]["std"]) for name in methods}
    return {name: [std, std / found["reference"]] for name, std in found.items()}


def main():
    out, scenes = Path(sys.argv[1]), int(sys.argv[2])
    scenes = [out / str(scene) for scene in range(scenes)]
    table("Distance of scores from the reference", ["estimate", *MOMENTS], score_error, scenes)
    table("Mean of scores at the first step", ["estimate", "the paper's form", "the true form"], score_mean, scenes)
    table("Standard deviation of samples", ["method", "std", "of the reference's"], diversity, scenes)


main()
