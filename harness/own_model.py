"""The model that a command names with `--model`, as a plugin that only this command's processes have.

The engine makes a record of what was named and hands it to its processes in an environment variable. There, discovery
finds it as the plugin `own-model`, whose one hook is in this module. The engine imports none of the user's code.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Self

from harness.catalog import OWN_MODEL, OWN_MODEL_VARIABLE, Catalog
from harness.contract import HarnessError, LayerSize, Model, Trainable
from harness.hookspecs import hookimpl
from harness.named_layer import NamedLayer, check_target
from harness.oracle import Oracle, Subject
from harness.wrapping import GivenWeights, model_of, name_of

harness_contract = 1
DIGITS = 12  # of a digest, where a version is shown
STATE_NAMES = ("h", "c", "s3", "s4", "s5", "s6", "s7", "s8")


@dataclass(frozen=True)
class OwnModel:
    """What was named, and what became known of it.

    Attributes:
        target: `module:attribute`.
        folder: where the module is looked for first: the current one.
        distribution, version: of the installed package that it is in; else the target and a digest of its source.
        weights: the file of weights, or empty; weights_sha256: of its bytes.
        trainers: what it may be made of: the frameworks that installed runtimes train, each with the first's plugin.
        framework, plugin: that of them under which it runs; empty until known.
        directions, states, size: what the layer is; no states until known.
    """

    target: str
    folder: str
    distribution: str
    version: str
    weights: str = ""
    weights_sha256: str = ""
    trainers: tuple[tuple[str, str], ...] = ()
    framework: str = ""
    plugin: str = ""
    directions: int = 1
    states: int = 0
    size: LayerSize | None = None

    @classmethod
    def named(cls, target: str, weights: str | Path | None = None, folder: str | Path | None = None) -> Self:
        """What `--model` and `--weights` name. Nothing is imported.

        Raises:
            HarnessError: there is no such module, or the weights cannot be read.
        """
        check_target(target)
        place = str(Path(folder or ".").resolve())
        distribution, version = _origin(target, place)
        own = cls(target, place, distribution, version)
        if not weights:
            return own
        path = str(Path(place, weights))
        GivenWeights(path).arrays()
        sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        version = f"{version}, weights {sha256[:DIGITS]}"
        return replace(own, version=version, weights=path, weights_sha256=sha256)

    @property
    def name(self) -> str:
        """The model's."""
        return name_of(self.target)

    @property
    def facts(self) -> dict[str, str]:
        """What `run.json` keeps of it: enough to name it again."""
        return {"target": self.target, "folder": self.folder, "weights": self.weights}

    @contextmanager
    def handed_over(self) -> Iterator[None]:
        """Every process that is started meanwhile has the plugin."""
        before = os.environ.get(OWN_MODEL_VARIABLE)
        os.environ[OWN_MODEL_VARIABLE] = json.dumps(asdict(self))
        try:
            yield
        finally:
            if before is None:
                del os.environ[OWN_MODEL_VARIABLE]
            else:
                os.environ[OWN_MODEL_VARIABLE] = before

    def with_oracle(self, catalog: Catalog) -> Self:
        """The same, with the frameworks that are trained, in the order of their plugins.

        Raises:
            HarnessError: there is none.
        """
        entries = [entry for entry in catalog.entries if entry.kind == "runtime" and isinstance(entry.value, Trainable)]
        trainers: dict[str, str] = {}
        for entry in entries:
            for framework in sorted(entry.value.frameworks):
                trainers.setdefault(framework, entry.plugin.name)
        if trainers:
            return replace(self, trainers=tuple(trainers.items()))
        raise HarnessError(
            f"--model {self.target}: no runtime that trains is installed or chosen, and the layer's reference needs "
            "one; install rnn-harness-torch, say"
        )

    def with_facts(self, model: Model) -> Self:
        """The same, with what was found out of its layer."""
        architecture, framework = model.architecture, model.framework
        return replace(
            self,
            framework=framework,
            plugin=dict(self.trainers)[framework],
            directions=architecture.directions,
            states=len(architecture.state_names),
            size=model.size,
        )

    def model(self) -> Model:
        """The model. What is not known of its layer is found out, in the oracle's process.

        Raises:
            HarnessError: the layer cannot be built or run, or the weights do not fit it.
        """
        own, oracle = self, None
        layer = NamedLayer(self.target, self.folder, self.size)
        weights = GivenWeights(self.weights, self.weights_sha256) if self.weights else None
        if not self.states:
            own, oracle = self._looked_at(layer)
            layer = replace(layer, size=own.size)
        subject = Subject(
            self.name, layer, own.framework, own.plugin, STATE_NAMES[: own.states], directions=own.directions
        )
        description = f"{self.target}{f' with {Path(self.weights).name}' if weights else ''}, held against itself"
        model = model_of(subject, weights, description, oracle)
        if own.size and not self.states and model.architecture.weights:
            model.architecture.weights(own.size)  # so that a file that does not fit is told of before a run
        return model

    def _looked_at(self, layer: NamedLayer) -> tuple[Self, Oracle]:
        """The same, with what the first framework under which the layer runs tells of it; and that oracle.

        Raises:
            HarnessError: it runs under none; the reason is that of the framework that it is derived from, or the first.
        """
        reasons: list[HarnessError] = []
        for framework, plugin in self.trainers:
            oracle = Oracle(Subject(self.name, layer, framework, plugin))
            try:
                found = oracle.look()
            except HarnessError as error:
                is_native = len(self.trainers) > 1 and oracle.is_native()
                oracle.close()
                if is_native:
                    raise
                reasons.append(error)
            else:
                size = LayerSize(**found["size"]) if found["size"] else None
                known = replace(self, framework=framework, plugin=plugin, states=found["states"], size=size)
                return replace(known, directions=found["directions"]), oracle
        raise reasons[0]


@hookimpl
def harness_models() -> Iterable[Model]:
    """The model that this process was handed."""
    facts = json.loads(os.environ[OWN_MODEL_VARIABLE])
    size = LayerSize(**facts["size"]) if facts["size"] else None
    trainers = tuple((framework, plugin) for framework, plugin in facts["trainers"])
    return [OwnModel(**facts | {"size": size, "trainers": trainers}).model()]


def from_header(header: Mapping[str, Any]) -> OwnModel | None:
    """The model that a run's `run.json` names, as it is now."""
    facts = header.get("own_model")
    return OwnModel.named(facts["target"], facts["weights"], facts["folder"]) if facts else None


def without_own(plugins: Iterable[str]) -> list[str]:
    """The names of plugins but this one's."""
    return [name for name in plugins if name != OWN_MODEL]


def _origin(target: str, folder: str) -> tuple[str, str]:
    """The distribution and version that a target's module comes from; else the target, and a digest of its source.

    Raises:
        HarnessError: there is no such module.
    """
    top = target.partition(":")[0].partition(".")[0]
    local = PathFinder.find_spec(top, [folder])
    spec = local
    if spec is None or not spec.loader:  # a folder that is no package gives way to whatever is one
        spec = PathFinder.find_spec(top, [*(entry for entry in sys.path if entry), folder])
    if spec is None:
        raise HarnessError(
            f"--model {target}: no module '{top}' in '{folder}' or among what is installed; see to its spelling"
        )
    if local is None or (spec.loader and not local.loader):
        with suppress(Exception):  # metadata that cannot be read
            (owner,) = set(importlib.metadata.packages_distributions()[top])
            return owner, importlib.metadata.version(owner)
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    files = sorted(file for place in places for file in place.rglob("*.py")) or [Path(spec.origin or "")]
    digest = hashlib.sha256()
    for file in files:
        with suppress(OSError):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return target, f"source {digest.hexdigest()[:DIGITS]}"
