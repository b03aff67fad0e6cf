"""What the adapters share: another package's attack, found by name, checked, seeded, metered."""

from __future__ import annotations

import importlib
import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_local.config.settings import fit, spell
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.device import kept_random_state, out_of_memory
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, PluginError, RobustBenchError, did_you_mean
from robustbench_local.core.metered import SpentError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel


@dataclass(frozen=True)
class Traits:
    """What has to be known of a peer's attack.

    alone: it keeps populations of its own, or loops over images, and asks about images far from where they began: it
    is run one image at a time, so that no query is booked on another.
    """

    norms: frozenset[Norm]
    black_box: bool = False
    minimises: bool = False
    alone: bool = False


@dataclass(frozen=True)
class Peer(Attack):
    """The attack `name` of another package, with the settings of its own constructor.

    Every query goes through `oracle.as_module()`, so that budget, access and memory are those of our own attacks, and
    the judge looks at the image that comes back, not at what the package says of it. eps, norm, seed and the number of
    classes are the judge's and given to whoever has such a parameter. Packages draw from
    global generators: these are seeded by the (first) sample and set back. Of an attack that takes many images at once
    the draws depend on the batch.

    name: of the attack in that package. settings: what its constructor is given.
    """

    access: ClassVar[Access] = Access.GRADIENTS  # fewer, where the named attack asks for scores only
    package: ClassVar[str]
    distribution: ClassVar[str]  # its name for pip
    given: ClassVar[Mapping[str, str]] = MappingProxyType({})  # the parameters that are filled in here: what with

    name: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kind = self.kind()
        self._check()
        traits = self.traits(kind)
        access = Access.SCORES if traits.black_box else Access.GRADIENTS
        vars(self).update(norms=traits.norms, minimises=traits.minimises, access=access)  # no settings: they follow

    # what an adapter says of its package

    def kind(self) -> Callable[..., Any]:
        """The peer's class of that name."""
        raise NotImplementedError

    def traits(self, kind: Callable[..., Any]) -> Traits:
        raise NotImplementedError

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, oracle: Oracle, seed: int) -> Tensor:
        """Run the peer on the metered model: x_adv, like x."""
        raise NotImplementedError

    # what they share

    def sources(self) -> dict[str, str]:
        """The package's release: another may compute something else."""
        return {self.distribution: version(self.distribution)}

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        x_adv, seeds = x.clone(), draws.integers(2**31)
        together = 1 if self.traits(self.kind()).alone else len(x)
        for rows in torch.arange(len(x), device=x.device).split(together):
            part, seed = oracle[rows], int(seeds[rows[0]])
            with _seeded(seed, x.device), torch.set_grad_enabled(self.access >= Access.GRADIENTS):
                try:
                    images = x[rows].clone(memory_format=torch.contiguous_format)  # peers view them
                    found = self.craft(part.as_module(), images, y[rows].clone(), threat, part, seed)
                except SpentError:
                    continue
                except ModuleNotFoundError as error:  # something that the package itself leaves optional
                    raise PluginError(f"{self.package} needs {error.name}: `pip install {error.name}`") from error
                except RobustBenchError:
                    raise
                except Exception as error:  # somebody else's code: whatever it dies of, say what it was given
                    if out_of_memory(error):
                        raise
                    size = f"{len(part)} images of {tuple(x.shape[1:])} and {part.classes} classes"
                    raise PluginError(
                        f"{self.package} {self.name} died of {type(error).__name__}: {error} (on {size}"
                        f"{', with targets' if part.targeted else ''}); try another attack or other settings"
                    ) from error
            x_adv[rows] = found.detach().to(x)
        return oracle.best(x_adv if self.minimises else threat.project(x_adv, x))

    def module(self, name: str = "") -> Any:
        try:
            version(self.distribution)
            return importlib.import_module(self.package + name)
        except (ImportError, PackageNotFoundError) as error:
            raise PluginError(
                f"{self.package} cannot be imported ({error}): `pip install {self.distribution}` installs it"
            ) from error

    def member(self, module: Any, base: type[Any]) -> Callable[..., Any]:
        """The class `name` of that module, where it is one of `base`."""
        known = [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, base)]
        if self.name not in known:
            family = type(self).__name__.lower()
            given = f'{self.package} has no attack "{self.name}"{did_you_mean(self.name, known)}' if self.name else ""
            raise ConfigError(f"{given or 'no attack is named'}: write {family}:NAME, with one of {', '.join(known)}")
        found: Callable[..., Any] = getattr(module, self.name)
        return found

    def parameters(self) -> dict[str, inspect.Parameter]:
        """Of the peer's constructor, without self."""
        plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        found = inspect.signature(self.kind()).parameters
        return {name: parameter for name, parameter in found.items() if parameter.kind in plain}

    def _check(self) -> None:
        """The user's settings against the peer's signature."""
        parameters = self.parameters()
        known = [name for name in parameters if name not in self.given]
        for name, value in self.settings.items():
            if name in self.given:
                raise ConfigError(f"{name} is not to be set: it is {self.given[name]}")
            if name not in known:
                listed = f"it has {', '.join(known)}" if known else "it has none"
                raise ConfigError(f'{self.package} knows no "{name}"{did_you_mean(name, known)}: {listed}')
            self.settings[name] = _fitted(name, value, parameters[name].default)
        missing = [
            name for name in known if name not in self.settings and parameters[name].default is inspect.Parameter.empty
        ]
        if missing:
            raise ConfigError(f"{self.package} needs a value for {', '.join(missing)}")

    def build(self, **offered: Any) -> Any:
        """The peer's object, with the user's settings and whatever of `offered` its constructor takes."""
        parameters = self.parameters()
        return self.kind()(**{name: offered[name] for name in offered if name in parameters} | self.settings)


def _fitted(name: str, value: Any, default: Any) -> Any:
    """value as the default's type would have it; anything where the default tells no type."""
    hint = type(default)
    if hint is int and isinstance(value, float):
        hint = float  # peers write 1 and mean 1.0
    if hint not in (bool, int, float, str):
        return value
    try:
        return fit(value, hint)
    except TypeError:
        raise ConfigError(f"{name} is {value!r}: it must be {spell(hint)}, as its default {default!r} is") from None


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Global generators seeded, and afterwards what they were."""
    numbers, words = np.random.get_state(), random.getstate()
    with kept_random_state(device):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numbers)
            random.setstate(words)
