"""Rows and their arrays -> all metrics of a grid, as sheets: pure functions, in the order in which they are shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from robustbench_local.audit.records import Audits, lowered
from robustbench_local.metrics.classification import confusion
from robustbench_local.metrics.groups import Members, largest_gap, rates_of
from robustbench_local.metrics.paired import compare, holm
from robustbench_local.metrics.rates import Floats, Rate, rate
from robustbench_local.metrics.spread import Spread, folds, over_folds, spread
from robustbench_local.report.certified import Certificates
from robustbench_local.report.curve import curve
from robustbench_local.report.labels import Label
from robustbench_local.report.members import Groups, check_known, class_names, members_of
from robustbench_local.report.sheets import Sheet
from robustbench_local.report.table import Line, Table, least, robust_tables, worst_case
from robustbench_local.storage.npz import Array
from robustbench_local.storage.row import Row, clean_shares, done, robust_shares

_INTERVAL = "low and high: 95 % sampling interval of an upper bound"


@dataclass
class Statistics:
    """All that is known of a grid: its rows, and arrays(row) -> the per-sample arrays of a good one.

    groups: names of groups and the classes (by name) or images (by id) in each. folds: how many parts of the images.
    audits: what they broke counts as broken.
    """

    rows: Sequence[Row]
    arrays: Callable[[Row], Mapping[str, Array]]
    groups: Groups | None = None
    folds: int = 5
    audits: Audits = field(default_factory=Audits)
    certificates: Sequence[Row] = ()

    def __post_init__(self) -> None:
        self._kept: dict[str, Mapping[str, Array]] = {}
        from_below = Certificates(self.certificates, self.of)
        self.tables = robust_tables(self.rows, self.robust_shares, self.audits, from_below)
        if self.groups:
            check_known(self.groups, filter(done, self.rows), self.of)

    def sheets(self) -> list[Sheet]:
        """Those that have any figure."""
        made = [
            self.cells(),
            self.ranks(),
            self.pairs(),
            self.curves(),
            self.distances(),
            self.queries(),
            self.classification(),
            self.calibration(),
            self.gaps(),
            self.classes(),
            self.seeds(),
            self.over_folds(),
        ]
        return [sheet for sheet in made if len(sheet.frame)]

    def of(self, row: Row) -> Mapping[str, Array]:
        """The arrays of a row, read once."""
        if row.key not in self._kept:
            self._kept[row.key] = self.arrays(row)
        return self._kept[row.key]

    def robust_shares(self, row: Row) -> Floats:
        """(N,) whether each image is robust to the attack: 0, 1, or a random model's share of draws."""
        arrays = self.of(row)
        return lowered(robust_shares(arrays), arrays["ids"], row.key, self.audits)

    def cells(self) -> Sheet:
        def figures(row: Row) -> dict[str, Any]:
            results = row.results
            success = results.get("attack_success_rate")
            kind = "corruption" if row.threat == "none" else "robust"  # norm none is no attack
            of_kind = _rate(results, kind if f"{kind}_interval" in results else "robust")
            return {
                **_three("clean", _rate(results, "clean")),
                **_three(kind, of_kind),
                **_three("success", Rate(success["rate"], *success["interval"]) if success else None),
                "of": success["of"] if success else None,
            }

        return self._per_cell(
            "Accuracy of every cell", f"{_INTERVAL}. success: the attack's, of the images that were right.", figures
        )

    def ranks(self) -> Sheet:
        found = []
        for table, line in self._lines():
            record = _names(table, line) | {"rank": str(line.rank) if line.rank else None}
            record |= {"place": line.rank.place if line.rank else None} | _three("clean", line.clean)
            for name, each in zip((*table.worst, *table.beside), (*line.worst, *line.beside), strict=True):
                record |= _three(name, each)
            record |= _three("certified", line.certified.rate if line.certified else None) if table.certifies else {}
            found.append(record | ({"caution": f"not audited: {line.unaudited}"} if line.unaudited else {}))
        return Sheet(
            "Worst case and rank",
            "Worst case: per image, the least over the attacks of a table and what an audit broke; a union is over the"
            " threats that it names. rank: from - to, where paired tests of all pairs (Holm, 5 %) cannot tell models"
            " apart; place: by the figure alone, equal ones sharing it.",
            pd.DataFrame(found),
        )

    def pairs(self) -> Sheet:
        found = []
        for table in self.tables:
            shares = [(line, worst_case(table, line, self.robust_shares)) for line in table.lines]
            known = [(line, each) for line, each in shares if each is not None]
            made = [(one, two, compare(a, b)) for (one, a), (two, b) in combinations(known, 2)]
            for (one, two, pair), p in zip(made, holm([pair.p for *_, pair in made]), strict=True):
                found.append(
                    {
                        "data": table.data,
                        "threat": table.threat,
                        "first": _model(one),
                        "second": _model(two),
                        "images": pair.n,
                        "only first": pair.only_first,
                        "only second": pair.only_second,
                        **_three("difference", pair.difference),
                        "p": pair.p,
                        "p, all pairs": p,
                    }
                )
        return Sheet(
            "Paired comparison of models",
            "Of their worst cases on the same images. Fixed models: exact McNemar test and Newcombe's interval; random"
            " ones: sign-flip test and bootstrap over images. p, all pairs: adjusted by Holm within a table.",
            pd.DataFrame(found),
        )

    def curves(self) -> Sheet:
        """Worst cases at every eps of a norm, carried on by minimum-norm attacks."""
        by_model: dict[tuple[str, ...], list[tuple[Table, Line]]] = defaultdict(list)
        for table, line in self._lines():
            if table.targets is None and table.threat != "none":
                same = next(row.of_images() for row in line.rows if row is not None)
                about = (table.data, table.split, same, _norm(table), _model(line))
                by_model[about].append((table, line))
        found = []
        for (data, split, _, norm, model), places in by_model.items():
            for eps, attacks, shares in curve(places, self.robust_shares, self.of):
                record = {"data": f"{data} {split}", "norm": norm, "model": model, "eps": eps, "attacks": attacks}
                found.append(record | _three("robust", rate(shares)))
        return Sheet(
            "Robust accuracy over eps",
            f"{_INTERVAL}, for one eps at a time. What is broken in a ball counts as broken in every larger one;"
            " where the grid has no cell, minimum-norm attacks alone carry the curve on.",
            pd.DataFrame(found),
        )

    def distances(self) -> Sheet:
        return self._per_cell(
            "Distance of the nearest adversarial image",
            "Of minimum-norm attacks, over the n images that were right, in units of the norm; a dash where fewer than"
            " that share was reached at any distance.",
            lambda row: row.results.get("distance"),
        )

    def queries(self) -> Sheet:
        return self._per_cell(
            "Queries to success",
            "Forward passes per image, over the n images that were right and are broken; attacks that stop there.",
            lambda row: row.results.get("queries_to_success"),
        )

    def classification(self) -> Sheet:
        return self._clean_and_attacked(
            "Precision, recall, F1, ROC-AUC",
            "macro: mean over classes; auc_macro: each class against the rest; no_class: rejected, NaN or a tie. What"
            " lies outside the ball counts as its clean image; a random model answers by its mean probabilities.",
            "classification",
        )

    def calibration(self) -> Sheet:
        return self._clean_and_attacked(
            "Calibration",
            "ece: expected calibration error, 15 bins; nll in nats; brier in [0, 2]; confidence: mean of the highest"
            " probability; adversarial: of the adversarial images alone, in the wrong class.",
            "calibration",
        )

    def gaps(self) -> Sheet:
        found = []
        for table, line, shares, arrays in self._worst():
            for kind, members in self._members(line, arrays):
                if gap := largest_gap(rates_of(shares, members)):
                    about = {"of": kind, "best": gap.best, "worst": gap.worst}
                    found.append(_names(table, line) | about | _three("gap", gap.gap))
        return Sheet(
            "Largest gap in worst-case robust accuracy",
            "Its interval follows from simultaneous ones (Sidak, 95 %), so that picking the two is allowed for.",
            pd.DataFrame(found),
        )

    def classes(self) -> Sheet:
        found = []
        for table, line, shares, arrays in self._worst():
            clean = clean_shares(arrays)
            for kind, members in self._members(line, arrays):
                for name, each in rates_of(shares, members).items():
                    about = {"of": kind, "name": name, "n": int(members[name].sum())}
                    about |= {"clean": float(clean[members[name]].mean())}
                    found.append(_names(table, line) | about | _three("robust", each))
        return Sheet(
            "Classes and groups",
            "Worst-case robust accuracy; the intervals of one model's classes hold all together (Sidak, 95 %).",
            pd.DataFrame(found),
        )

    def seeds(self) -> Sheet:
        """Cells that differ in nothing but their seed."""
        found = []
        for table, line in self._lines():
            alike: dict[str, list[tuple[Label, Row]]] = defaultdict(list)
            for attack, row in zip(table.attacks, line.rows, strict=True):
                if done(row):
                    alike[row.of_cell(("seed",))].append((attack, row))
            for labels, rows in (zip(*each, strict=True) for each in alike.values() if len(each) > 1):
                details = tuple(detail for detail in labels[0].details if not detail.startswith("seed="))
                record = _names(table, line) | {"attack": str(replace(labels[0], details=details))}
                record |= _spread("seeds", spread([row.results["robust_accuracy"] for row in rows]))
                worst = least(rows, self.robust_shares)
                found.append(record | {"least per image": None if worst is None else float(worst.mean())})
        return Sheet(
            "Repeated seeds",
            "Robust accuracy of the same cell from several seeds of the attack: mean, standard deviation, least and"
            " greatest; least per image: the worst over seeds, image by image.",
            pd.DataFrame(found),
        )

    def over_folds(self) -> Sheet:
        found = []
        for table, line, shares, arrays in self._worst():
            if len(shares) >= self.folds:
                fold = folds(arrays["labels"].astype(np.int64), arrays["ids"].astype(np.int64), self.folds)
                found.append(_names(table, line) | _spread("folds", over_folds(shares, fold)))
        return Sheet(
            "Folds of the images",
            "Worst-case robust accuracy on disjoint parts of the images, stratified by class; nothing is trained anew.",
            pd.DataFrame(found),
        )

    def confusions(self) -> list[Sheet]:
        """Of each model its clean answers, and those under the attack that broke most."""
        found = []
        for table, line in self._lines():
            rows = [row for row in line.rows if done(row) and "predicted" in self.of(row)]
            if not rows:
                continue
            row = min(rows, key=lambda row: float(row.results["robust_accuracy"]))
            arrays = self.of(row)
            labels = arrays["labels"].astype(np.int64)
            names = class_names(row, labels)
            for kind, array in (("clean", "clean_predicted"), (f"under {row.attack}", "predicted")):
                given = np.minimum(arrays[array].astype(np.int64), len(names))
                counts = confusion(labels, given, len(names))
                frame = pd.DataFrame(counts, columns=[*names, "no class"])
                frame.insert(0, "true", names)
                title = f"Confusion: {table.title}, {_model(line)}, {kind}"
                found.append(Sheet(title, "A row per true class, a column per answer; counts of images.", frame))
        return found

    def _lines(self) -> Iterator[tuple[Table, Line]]:
        yield from ((table, line) for table in self.tables for line in table.lines)

    def _worst(self) -> Iterator[tuple[Table, Line, Floats, Mapping[str, Array]]]:
        """Lines with a worst case, its shares, and the arrays of one of their rows: all are of the same images."""
        for table, line in self._lines():
            shares = worst_case(table, line, self.robust_shares)
            if shares is not None:
                yield table, line, shares, self.of(next(row for row in line.rows if done(row)))

    def _members(self, line: Line, arrays: Mapping[str, Array]) -> Iterator[tuple[str, dict[str, Members]]]:
        yield from members_of(next(row for row in line.rows if done(row)), arrays, self.groups)

    def _per_cell(self, title: str, note: str, figures: Callable[[Row], Mapping[str, Any] | None]) -> Sheet:
        found = []
        for table, line in self._lines():
            for attack, row in zip(table.attacks, line.rows, strict=True):
                if done(row) and (known := figures(row)):
                    found.append({**_names(table, line), "attack": str(attack), **known})
        return Sheet(title, note, pd.DataFrame(found))

    def _clean_and_attacked(self, title: str, note: str, key: str) -> Sheet:
        found = []
        for table, line in self._lines():
            clean = False
            for attack, row in zip(table.attacks, line.rows, strict=True):
                if not done(row) or key not in row.results:
                    continue
                results = row["results"][key]
                adversarial = {"adversarial": (row.results["adversarial_confidence"] or {}).get("mean")}
                more = adversarial if key == "calibration" else {}
                if not clean:
                    found.append({**_names(table, line), "attack": "none", **results["clean"]})
                    clean = True
                found.append({**_names(table, line), "attack": str(attack), **results["attacked"], **more})
        return Sheet(title, note, pd.DataFrame(found))


def _model(line: Line) -> str:
    return f"{line.model} / {line.defense}"


def _names(table: Table, line: Line) -> dict[str, Any]:
    return {"data": table.data, "threat": table.threat, "model": _model(line)}


def _norm(table: Table) -> str:
    return table.threat.partition(":")[0]


def _rate(results: Mapping[str, Any], what: str) -> Rate:
    return Rate(results[f"{what}_accuracy"], *results[f"{what}_interval"])


def _three(name: str, found: Rate | None) -> dict[str, Any]:
    keys = (name, f"{name} low", f"{name} high")
    return dict(zip(keys, (found.value, found.low, found.high) if found else (None,) * 3, strict=True))


def _spread(count: str, found: Spread) -> dict[str, Any]:
    return {count: found.n, "mean": found.mean, "deviation": found.deviation, "least": found.low, "most": found.high}
