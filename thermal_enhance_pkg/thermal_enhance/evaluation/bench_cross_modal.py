"""The cross-modal models on the validation splits: `thermal-enhance bench cross_modal`.

Thermal pictures are reduced by 8 and brought back by bicubic, the classical tier and each model, with RGB
aligned, misaligned (shift to 6 %, scale 0.9 to 1.15, rotation to 8 degrees), pulled in perspective by 8 %,
of another scene, dark, three frames late, seeing 1.62 x 1.21 times as much, or absent. Every still is
enhanced by a fresh enhancer, its alignment found from that pair alone. Seeded: the same figures each time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from thermal_enhance.enhancers.base import Enhancer
from thermal_enhance.enhancers.classical import ClassicalConfig, ClassicalEnhancer
from thermal_enhance.enhancers.cross_modal import CrossModalEnhancer, CrossModalEnhancerConfig
from thermal_enhance.enhancers.learned import ModelUnavailableError
from thermal_enhance.evaluation import figures, model_card, stills
from thermal_enhance.evaluation.bench_enhance import find_data
from thermal_enhance.evaluation.bench_stats import machine
from thermal_enhance.evaluation.cross_modal_card import evidence
from thermal_enhance.evaluation.cross_modal_scores import MakeEnhancer, Row, Scores, measure
from thermal_enhance.evaluation.cross_modal_tables import report
from thermal_enhance.evaluation.cross_modal_verdicts import verdicts
from thermal_enhance.evaluation.progress import progress_bar
from thermal_enhance.evaluation.shared_models import SharedModels
from thermal_enhance.runtime.backend import BackendError
from thermal_enhance.runtime.manifest import ManifestError as ModelManifestError
from thermal_enhance.runtime.store import ModelFileError, ModelStore, UnknownModel
from thermal_enhance.training.manifest import ManifestError
from thermal_enhance.training.recipe import RecipeError

DEFAULT_MODEL = "cross_modal-edge"


def classical(sampling: str) -> Enhancer:
    """A fresh classical enhancer for stills."""
    return ClassicalEnhancer(ClassicalConfig(per_frame_alignment=True, sampling=sampling))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Returns:
        0 when it ran, whatever the verdicts; 1 when a model cannot be used, 2 when it cannot start as asked.
    """
    arguments = _parser().parse_args(argv)
    try:
        return _bench(arguments)
    except (ManifestError, RecipeError, figures.BadFigures) as error:
        sys.stderr.write(f"bench cross_modal: {error}\n")
        return 2
    except (UnknownModel, ModelUnavailableError, ModelFileError, ModelManifestError, BackendError) as error:
        sys.stderr.write(f"bench cross_modal: {error}\n")
        return 1


def _bench(arguments: argparse.Namespace) -> int:
    data: Path | None = arguments.data or find_data()
    needs_data = arguments.figures is None or arguments.card
    if data is None or not (data / "rgbt_pairs" / "manifest.jsonl").is_file():
        if needs_data:
            sys.stderr.write("bench cross_modal: no data pack found; give its folder as --data\n")
            return 2
        data = Path()
    store = ModelStore(arguments.folder)
    if arguments.figures is not None:
        rows, where = figures.read(arguments.figures, Row)
    else:
        rows, where = _measure(arguments, data, store), machine()
    scores = Scores(rows)
    models = arguments.model if arguments.figures is None else _models(scores)
    decided = {name: verdicts(scores, name) for name in models}
    sys.stdout.write(report(scores) + "\n")
    for name, lines in decided.items():
        sys.stdout.write(f"\n{name}:\n\n" + "\n".join(map(str, lines)) + "\n")
    if arguments.json is not None:
        figures.write(arguments.json, rows, where, decided)
    if arguments.card:
        for name in models:
            run = model_card.read_run(arguments.run, arguments.trained_on) if arguments.run else None
            path = model_card.write(store, name, data, lambda m: evidence(m, scores), where, run)
            sys.stderr.write(f"{path} written\n")
    return 0


def _measure(arguments: argparse.Namespace, data: Path, store: ModelStore) -> list[Row]:
    methods: dict[str, MakeEnhancer] = {}
    if not arguments.no_classical:
        methods["classical"] = classical
    models = SharedModels(store)
    try:
        for name in arguments.model:
            methods[name] = of_model(models, name, arguments.device)
        with progress_bar() as advance:
            return measure(
                data,
                methods,
                sets=arguments.sets,
                samplings=arguments.sampling,
                conditions=arguments.conditions,
                limit=arguments.limit,
                advance=advance,
            )
    finally:
        models.close()


def of_model(models: SharedModels, name: str, device: str) -> MakeEnhancer:
    """Makes fresh enhancers over a model's graphs, which are loaded once.

    Raises:
        ModelUnavailableError: there is no such model, or nothing here runs models.
    """

    def make(sampling: str) -> Enhancer:
        config = CrossModalEnhancerConfig(
            model=name, device=device, per_frame_alignment=True, sampling=sampling
        )
        return CrossModalEnhancer(config, models)

    make("area").close()  # A model that cannot be had is told before an hour of work, not after.
    return make


def _models(scores: Scores) -> list[str]:
    return [name for name in scores.methods() if name not in ("bicubic", "classical")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="thermal-enhance bench cross_modal", description=__doc__)
    parser.add_argument("--data", type=Path, help="the data pack (default: ../shared/data of the checkout)")
    parser.add_argument("--model", nargs="+", default=[DEFAULT_MODEL], help=f"default: {DEFAULT_MODEL}")
    parser.add_argument("--folder", type=Path, action="append", help="look for models here only")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--sets", nargs="+", choices=tuple(stills.SETS), default=list(stills.SETS))
    parser.add_argument("--conditions", nargs="+", choices=stills.CONDITIONS, default=list(stills.CONDITIONS))
    parser.add_argument(
        "--sampling", nargs="+", choices=stills.SAMPLINGS, default=list(stills.SAMPLINGS),
        help="how inputs are made; challenge is for PBVS alone (default: both)",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, default=0, help="pictures a set (default: all)")
    parser.add_argument("--no-classical", action="store_true", help="leave the classical tier out")
    parser.add_argument("--json", type=Path, help="write the figures, still by still, here as well")
    parser.add_argument("--figures", type=Path, help="take the figures of such a file; measure nothing")
    parser.add_argument("--card", action="store_true", help="write each model's README.md from the figures")
    parser.add_argument("--run", type=Path, help="for --card: folder of the training run (log.csv)")
    parser.add_argument("--trained-on", default="", help="for --card: the machine it was trained on")
    return parser
