"""models/<name>/README.md: what a model was trained on and on whose terms, what it reaches, where it ends."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thermal_enhance import resources
from thermal_enhance.evaluation.verdict import Verdict
from thermal_enhance.runtime.manifest import ModelManifest
from thermal_enhance.runtime.store import ModelStore
from thermal_enhance.training.manifest import Item, read_pack, select
from thermal_enhance.training.recipe import Recipe, SourceConfig, load_recipe

CLEAR = ("mit", "cc-by", "cc0", "apache")
"""Licence classes whose terms are stated and let weights be made and used."""
_NAMES = {
    "mit": "MIT",
    "cc-by": "CC BY",
    "cc0": "CC0",
    "apache": "Apache",
    "gpl": "GPL",
    "agpl": "AGPL",
    "none-stated": "none stated",
}


@dataclass(frozen=True)
class Source:
    """What of one data set was trained on.

    Attributes:
        dataset: short name.
        weight: how often it was drawn from, against the others.
        items: pictures or clips.
        pictures: frames of them in use.
        with_rgb: pictures with RGB.
        licence: class, in words.
        origins: repositories and commits.
        note: what else to know of the licence; empty for nothing.
    """

    dataset: str
    weight: float
    items: int
    pictures: int
    with_rgb: int
    licence: str
    origins: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Run:
    """Facts of a training run.

    Attributes:
        steps: done.
        minutes: they took.
        loss: mean of the last logged steps.
        machine: it ran on, in words; empty if not told.
    """

    steps: int
    minutes: float
    loss: float
    machine: str = ""


def read_run(folder: Path, machine: str = "") -> Run | None:
    """The last row of a training run's log.csv; None without one."""
    path = folder / "log.csv"
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return None
    last = rows[-1]
    return Run(int(last["step"]), float(last["minutes"]), float(last["loss"]), machine)


def provenance(recipe: Recipe, data: Path) -> list[Source]:
    """What a recipe trains on, set by set and licence by licence, from the pack's manifests."""
    items = read_pack(data)
    found = []
    for entry in recipe.data.sources:
        chosen = select(items, "train", datasets=[entry.dataset], licences=recipe.data.licences)
        if entry.ids:
            chosen = [item for item in chosen if item.id.startswith(entry.ids)]
        if entry.limit:
            chosen = chosen[: entry.limit]
        for licence in dict.fromkeys(item.licence_class for item in chosen):
            found.append(
                _source(entry, [item for item in chosen if item.licence_class == licence], _NAMES[licence])
            )
    return found


def _source(entry: SourceConfig, items: Sequence[Item], licence: str) -> Source:
    frames = {item.id: -(-item.frames // entry.stride) for item in items}
    return Source(
        entry.dataset,
        entry.weight,
        len(items),
        sum(frames.values()),
        sum(frames[item.id] for item in items if item.rgb is not None and entry.use_rgb),
        licence,
        tuple(dict.fromkeys(item.source for item in items)),
        "; ".join(dict.fromkeys(item.licence_note for item in items if item.licence_note)),
    )


CONTINUED = "-continued"
"""Ending of the recipe of a second run, which goes on from the weights of the first."""


def find_recipe(name: str) -> Path:
    """The recipe that a shipped model was trained by.

    Raises:
        ResourceError: there is none of its name.
    """
    return resources.resource("config", "recipes", f"{name}.yaml")


@dataclass(frozen=True)
class Evidence:
    """What differs between the cards of methods.

    Attributes:
        takes: what goes in, one sentence.
        made: how training pictures were made of the data, one sentence.
        measured: how it was measured, one sentence.
        report: tables, Markdown.
        verdicts: what it was to show, decided line by line.
        limits: lines of the list of limits.
    """

    takes: str
    made: str
    measured: str
    report: str
    verdicts: Sequence[Verdict]
    limits: Sequence[str]


def write(
    store: ModelStore,
    name: str,
    data: Path,
    evidence: Callable[[ModelManifest], Evidence],
    where: Mapping[str, Any],
    run: Run | None = None,
) -> Path:
    """Write the card of a model into its folder.

    Args:
        store: where the model is.
        name: of the model and of its recipe.
        data: the data pack, for counts and licences.
        evidence: what its method's benchmark found.
        where: machine it was measured on.
        run: facts of the training; None for not at hand.

    Returns:
        The file.
    """
    manifest = store.describe(name)
    recipe, first = load_recipe(find_recipe(name)), None
    with contextlib.suppress(resources.ResourceError):
        recipe, first = load_recipe(find_recipe(f"{name}{CONTINUED}")), recipe
    text = card(
        manifest,
        recipe,
        provenance(recipe, data),
        evidence(manifest),
        where,
        run,
        first=first,
        open_model=f"{name}-open" in store.names(),
    )
    path = store.folder(name).resolve() / "README.md"
    path.write_text(text, encoding="utf-8")
    return path


def card(
    manifest: ModelManifest,
    recipe: Recipe,
    sources: Sequence[Source],
    evidence: Evidence,
    where: Mapping[str, Any],
    run: Run | None = None,
    *,
    first: Recipe | None = None,
    open_model: bool = False,
) -> str:
    """The card's text, Markdown.

    Args:
        manifest: of the model.
        recipe: of the last training run.
        sources: what it trained on.
        evidence: what its method's benchmark found.
        where: machine it was measured on.
        run: facts of that run; None for not at hand.
        first: recipe of the run before, whose weights it went on from; None if there was none.
        open_model: is there a model like it from clearly licensed items alone?
    """
    sections = [
        f"# {manifest.name}",
        recipe.description or manifest.description,
        f"{_summary(manifest)} {evidence.takes}",
        "## Terms",
        terms(sources, open_model),
        "## Data",
        _data(sources),
        f"Nothing of a validation item, nor of another picture of its scene, was trained on. {evidence.made}",
        "## Training",
        _training(recipe, run, first),
        "## Figures",
        f"Validation splits, measured on {where.get('processor', 'an unnamed machine')}. {evidence.measured}",
        evidence.report,
        "What it was to show:",
        "\n".join(map(str, evidence.verdicts)) or "Nothing was decided: the sets it needs were not measured.",
        "## Limits",
        "\n".join(evidence.limits),
        "## Again",
        _again(manifest, first is not None),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def terms(sources: Sequence[Source], open_model: bool = False) -> str:
    """What is known of the terms that the training data puts on the weights.

    Args:
        sources: what was trained on.
        open_model: is there a model from clearly licensed items alone to name instead?
    """
    licences = list(dict.fromkeys(source.licence for source in sources))
    clear = {_NAMES[name] for name in CLEAR}
    unclear = [name for name in licences if name not in clear]
    if not unclear:
        return (
            f"Trained from scratch on items under {join_words(licences)} alone. The weights are under "
            "Apache-2.0; credit the CC BY sources below where their licence asks for it."
        )
    named = join_words(list(dict.fromkeys(s.dataset for s in sources if s.licence in unclear)))
    return (
        f"Trained among others on items of {named} (licence: {join_words(unclear)}), "
        "published for research. Our work on the weights is under Apache-2.0; whether those items allow more "
        "than research use is not known, so take the weights for research"
        + (", or the `-open` model." if open_model else " only.")
    )


def _summary(manifest: ModelManifest) -> str:
    profiles = list(dict.fromkeys(f"{g.profile[0]}x{g.profile[1]}" for g in manifest.graphs))
    tiled = manifest.method == "cross_modal"
    others = (
        "other sizes are padded or tiled" if tiled else "smaller frames are padded, larger ones left alone"
    )
    return (
        f"Method {manifest.method}, size {manifest.size}, version {manifest.version}, "
        f"{join_words([f'x{scale}' for scale in manifest.scales])}. "
        f"Graphs for {join_words(profiles)}; {others}."
    )


def _data(sources: Sequence[Source]) -> str:
    lines = ["| data | licence | items | pictures | with RGB | weight | from |", "|" + "---|" * 7]
    for s in sources:
        lines.append(
            f"| {s.dataset} | {s.licence} | {s.items} | {s.pictures} | {s.with_rgb} | {s.weight:g} | "
            f"{'; '.join(s.origins)} |"
        )
    notes = {s.dataset: s.note for s in sources if s.note}
    if notes:
        lines += ["", "As the manifests state it: " + "; ".join(f"{k}: {v}" for k, v in notes.items()) + "."]
    return "\n".join(lines)


def _training(recipe: Recipe, run: Run | None, first: Recipe | None) -> str:
    if first is not None:
        lines = [
            f"First `config/recipes/{first.name}.yaml`: {_how(first)} Then on from its weights by "
            f"`config/recipes/{first.name}{CONTINUED}.yaml`: {_how(recipe)}"
        ]
    else:
        start = f"from the weights {recipe.init_from.name}" if recipe.init_from else "from scratch"
        lines = [f"Recipe `config/recipes/{recipe.name}.yaml`: {start}, {_how(recipe)}"]
    if run is not None:
        on = f" on {run.machine}" if run.machine else ""
        lines.append(f"{run.steps} steps in {run.minutes:.0f} min{on}; last logged loss {run.loss:.3f}.")
    return " ".join(lines)


def _how(recipe: Recipe) -> str:
    optimiser = recipe.optimiser
    return (
        f"crops of {recipe.data.crop} pixels, {recipe.batch} a step, AdamW at {optimiser.lr:g} with weights "
        f"averaged at {optimiser.ema:g}, {recipe.precision}, seed {recipe.seed}; loss "
        + join_words([f"{weight:g} x {name}" for name, weight in recipe.loss.items()])
        + "."
    )


def _again(manifest: ModelManifest, continued: bool) -> str:
    name, run = manifest.name, f"out/train/{manifest.name}"
    profiles = list(dict.fromkeys(f"{g.profile[0]}x{g.profile[1]}" for g in manifest.graphs))
    again = ""
    if continued:
        last = f"{run}{CONTINUED}"
        again = (
            f"    thermal-enhance train config/recipes/{name}{CONTINUED}.yaml --out {last} \\\n"
            f"        --set init_from=$PWD/{run}/best.safetensors\n"
        )
        run = last
    options = " ".join(f"--profile {profile}" for profile in profiles)
    return (
        f"    thermal-enhance train config/recipes/{name}.yaml\n{again}"
        f"    thermal-enhance export {run}/best.safetensors --method {manifest.method} --name {name} \\\n"
        f"        --out models {options}\n"
        f"    thermal-enhance bench {manifest.method} --model {name} --card --run {run}"
    )


def join_words(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
