"""A row: what one cell of a grid measured. Its key, what it is of, what tells it from others, and each image's share.

Whatever asks a row something asks here, so that what older rows say otherwise, or not at all, is known in one place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeGuard, cast

import numpy as np
import numpy.typing as npt

from robustbench_local.core.access import Access
from robustbench_local.core.errors import StoreError
from robustbench_local.storage.npz import Array
from robustbench_local.storage.schema import Definition, Results, row_fault
from robustbench_local.storage.sealing import SCHEMA, canonical, digest, digest_of, plain, unsealed

# Which keys of a definition say what. A key that is new is the attack's until it is named here, and never left out:
# rows that differ in it are two cells.
MODEL = ("model", "weights_digest", "defense", "defense_settings", "defense_version")
IMAGES = ("data", "split", "ids", "data_digest", "attack_under", "targets")
THREAT = ("threat", "eps")
DRAWN = ("eot", "draws")
READ = ("attack_sources",)  # of a growing folder of rows every model may have met another state
JUDGED = ("count", "precision", "budget", "seed")
TRANSFORM = ("transform",)  # the images' as well, which only photographs have
BEHAVIOUR = ("behaviour_digest", "model_about", "variant")  # the model's as well, which not every model says
WEIGHTS = ("weights_digest",)  # other ones for the same recipe on other hardware
VERSIONS = ("defense_version", "attack_version")

_AROUND = tuple(key for key in IMAGES if key != "targets")
CERTIFICATE = (*MODEL, *_AROUND, *THREAT, *TRANSFORM, *BEHAVIOUR)  # what of a cell a certificate hangs on
_ATTACK = ("attack", "attack_settings", "attack_version", *JUDGED, *DRAWN, "adaptive")  # columns are in this order
_UNSAID = {"adaptive": True}  # what a definition leaves out where it is so
LEFT_OUT = "LeftOut"  # the type of an error that is none
CRASHED, TIMED_OUT = "crashed", "timed out"  # of errors that nobody caught: the process was ended
_ENCODER = json.JSONEncoder(sort_keys=True)  # once: to make one takes as long as to write a row's columns
_KEY = 24  # hex digits
_WHOLE = re.compile(r"\.0[],}]|e\+")  # how JSON ends floats that are whole; in a text it is no matter
_RENAMED = {"won": "success"}  # arrays that older rows call otherwise


def row_key(definition: Mapping[str, Any]) -> str:
    """The name of a cell: 24 hex digits of a sha256 over the schema and all that defines it.

    Neither the order of keys matters nor whether a whole number is written as 1 or 1.0. StoreError for what JSON
    cannot hold.
    """
    return digest(plain({"schema": SCHEMA, "definition": definition}, exact=True), _KEY)


def _key_read(definition: Mapping[str, Any]) -> str:
    """The row_key of a definition that came out of JSON: plain, but for floats that are whole; most have none."""
    text = canonical({"schema": SCHEMA, "definition": definition})
    return row_key(definition) if _WHOLE.search(text) else digest_of(text, _KEY)


class Row(dict[str, Any]):
    """One cell's record: the JSON object of its file, as a dict, and by name what everybody asks of it.

    It stays a dict so that scripts index it, json.dumps writes it and a data frame is made of it. definition says what
    was measured and makes its key; a row that is `ok` has results and arrays, any other an error.
    """

    @property
    def key(self) -> str:
        return str(self["key"])

    @property
    def ok(self) -> bool:
        """Whether the cell ran to its end, so that there are results."""
        return bool(self["status"] == "ok")

    @property
    def created(self) -> str:
        """When it was written, as ISO 8601; "" where it never was."""
        return str(self.get("created", ""))

    @property
    def definition(self) -> Definition:
        return cast(Definition, self["definition"])

    @property
    def results(self) -> Results:
        return cast(Results, self["results"])

    @property
    def failure(self) -> str:
        """What a row that is not ok died of: "ModelError: logits are NaN"."""
        return f"{self['error']['type']}: {self['error']['message']}"

    @property
    def left_out(self) -> bool:
        """Whether its cell was not run, since the model does not grant what the attack needs."""
        return not self.ok and bool(self["error"]["type"] == LEFT_OUT)

    @property
    def stays(self) -> bool:
        """Whether it is an error that is not tried again unless asked for: it ended processes, or its time was up."""
        return not self.ok and self["error"]["type"] in (CRASHED, TIMED_OUT)

    @property
    def start(self) -> str:
        """Of the command that made it; "" where it does not say."""
        return str(self.get("start", ""))

    @property
    def why(self) -> str:
        """Why a row that is not ok has no results: "failed, ModelError: logits are NaN", in one line."""
        why = f"left out, {self['error']['message']}" if self.left_out else f"failed, {self.failure}"
        return " ".join(why.split())

    @property
    def array_names(self) -> set[str]:
        """Names of the arrays beside it."""
        return {_RENAMED.get(name, name) for name in self.get("arrays", {})}

    @property
    def families(self) -> list[str]:
        """What kind of defense each part of its defense is, "" where it does not say."""
        return list(self.get("families", [""]))

    @property
    def minimises(self) -> bool:
        """Whether its attack looks for the nearest adversarial image; rows that do not say so keep its success."""
        return bool(self.get("minimises", "success" in self.array_names))

    @property
    def is_cell(self) -> bool:
        """Whether it is of an attack on a model, as a grid's cells are."""
        return "attack" in self.definition

    @property
    def certifies(self) -> bool:
        """Whether it is a certificate: which images of a model no attack can break."""
        return "certificate" in self.definition

    def said(self, key: str) -> Any:
        """What its definition says of that; None where it says nothing."""
        return cast(dict[str, Any], self.definition).get(key, _UNSAID.get(key))

    @property
    def model(self) -> str:
        return self.definition["model"]

    @property
    def defense(self) -> str:
        return self.definition["defense"]

    @property
    def attack(self) -> str:
        return self.definition["attack"]

    @property
    def threat(self) -> str:
        return self.definition["threat"]

    @property
    def eps(self) -> float:
        return float(self.definition.get("eps", 0))

    @property
    def access(self) -> Access:
        return Access[self.definition["access"].upper()]

    @property
    def adaptive(self) -> bool:
        """False of an attack that knew of no defense: shown, and no part of a worst case."""
        return bool(self.said("adaptive"))

    @property
    def corrupts(self) -> bool:
        """Whether its attack is a corruption, which aims at nobody and has tables of its own."""
        return "corruption" in self.definition

    @property
    def stochastic(self) -> bool:
        """Whether the model was found to be random."""
        return self.ok and self.results["stochastic"]

    @property
    def images(self) -> int:
        """How many images were chosen."""
        ids = self.definition["ids"]
        first, _, last = ids.partition(":") if isinstance(ids, str) else ("0", "", str(len(ids)))
        return int(last) - int(first)

    @property
    def under(self) -> str | None:
        """The corruption that its images had met before, as "fog:3"."""
        met = self.said("attack_under")
        return f"{met['name']}:{met['settings']['severity']}" if met else None

    @property
    def versions(self) -> tuple[list[int], int]:
        """The defense's, a list of a chain's, and the attack's: the larger one is the later one."""
        defense, attack = (self.said(key) or 1 for key in VERSIONS)
        return ([defense] if isinstance(defense, int) else defense, attack)

    def changed(self, **definition: Any) -> Row:
        """A copy of which the definition says this instead; its key stays."""
        return Row({**self, "definition": {**self.definition, **definition}})

    def without(self, keys: Collection[str]) -> Row:
        """A copy of which the definition does not say these."""
        kept = {key: value for key, value in self.definition.items() if key not in keys}
        return Row({**self, "definition": kept})

    def of_cell(self, but: Collection[str] = ()) -> str:
        """All that is defined, but for these keys: two rows of which it is the same measured the same."""
        return _text({key: value for key, value in self._about().items() if key not in but})

    def of_model(self) -> str:
        """The deployed model: the line of a table."""
        return self._listed((*MODEL, *self._there(BEHAVIOUR)))

    def of_images(self) -> str:
        """What was judged and towards which goal: the table. Corrupted beforehand, they are other images."""
        return self._listed((*IMAGES, *self._there(TRANSFORM)))

    def of_group(self) -> str:
        """A model on some images: what one audit is about, and named by."""
        return self._listed((*MODEL, *IMAGES, *self._there((*BEHAVIOUR, *TRANSFORM))))

    def of_ball(self) -> str:
        """A model, its images and the ball around each, whatever the attacks in it are to reach."""
        return self._listed((*MODEL, *_AROUND, *THREAT, *self._there((*BEHAVIOUR, *TRANSFORM))))

    def of_attack(self, but: Collection[str] = ()) -> str:
        """The attack, how it was judged, and whatever no other question asks for: the column of a table."""
        about = self._about()
        named = [None if key in but else about.get(key) for key in _ATTACK]
        return _text([*named, {key: about[key] for key in sorted(self.attack_keys() - {*_ATTACK, *but})}])

    def attack_keys(self) -> set[str]:
        """The keys that are neither the images', nor the model's, nor the threat's."""
        return self._about().keys() - {*IMAGES, *TRANSFORM, *MODEL, *BEHAVIOUR, *THREAT}

    def _about(self) -> dict[str, Any]:
        return {key: value for key, value in (_UNSAID | dict(self.definition)).items() if value is not None}

    def _there(self, keys: Iterable[str]) -> list[str]:
        return [key for key in keys if key in self.definition]

    def _listed(self, keys: Iterable[str]) -> str:
        return _text([cast(dict[str, Any], self.definition).get(key) for key in keys])


def row_of(content: bytes, key: str) -> Row:
    """The row of that key that a file holds. StoreError where it is damaged, another's or not as rows are."""
    record = unsealed(content)
    fault = row_fault(record)
    if fault is None and {record["key"], own := _key_read(record["definition"])} != {key}:
        fault = f"it is the row of {own}"
    if fault:
        raise StoreError(f"{fault}: it is not a row of that name")
    return Row(record)


def done(row: Row | None) -> TypeGuard[Row]:
    """Whether there is a row, and it has results."""
    return row is not None and row.ok


def telling_none_apart(groups: Iterable[Iterable[Row]]) -> tuple[str, ...]:
    """Keys that do not tell the attacks of these models apart, given the rows of each model.

    How often a random model was asked is the model's, unless it differs among its attacks; what an attack read is of no
    account unless a model met the same attack twice.
    """
    rows = [list(group) for group in groups]
    drawn = () if any(len({row._listed(DRAWN) for row in each}) > 1 for each in rows) else DRAWN
    read = [each for each in rows if any(key in row.definition for row in each for key in READ)]  # most read nothing
    twice = any(len({row.of_attack(READ) for row in each}) < len({row.of_attack() for row in each}) for each in read)
    return (*drawn, *(() if twice else READ))


def renamed(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays of a file, by the names that they have today."""
    return {_RENAMED.get(name, name): values for name, values in arrays.items()}


def names_before(names: Iterable[str]) -> tuple[str, ...]:
    """These names of arrays, and those that older rows have for them."""
    wanted = {*names}
    return (*wanted, *(old for old, name in _RENAMED.items() if name in wanted))


def clean_shares(arrays: Mapping[str, Array]) -> npt.NDArray[np.float64]:
    """(N,) whether each image is classified rightly: 0, 1, or a random model's share of draws."""
    return _shares(arrays, "clean_bits", "clean")


def robust_shares(arrays: Mapping[str, Array]) -> npt.NDArray[np.float64]:
    """(N,) whether each image is robust to the attack: 0, 1, or a random model's share of draws."""
    return _shares(arrays, "bits", "robust")


def corrupted_shares(arrays: Mapping[str, Array]) -> npt.NDArray[np.float64]:
    """(N,) of a corruption, whether each corrupted image is classified rightly, whatever the clean one is; as above."""
    return _shares(arrays, "bits", "corrupted")


def _shares(arrays: Mapping[str, Array], bits: str, whole: str) -> npt.NDArray[np.float64]:
    """The mean of the bits (N, R) of a random model, or the whole (N,) of a fixed one."""
    found: npt.NDArray[np.float64] = (
        arrays[bits].mean(1, dtype=np.float64) if bits in arrays else arrays[whole].astype(np.float64)
    )
    return found


def _text(value: Any) -> str:
    return _ENCODER.encode(value)
