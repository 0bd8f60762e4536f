"""The temporal models on the validation splits, x4 in space and x2 in time: `thermal-enhance bench temporal`.

Every other frame of a clip is reduced by 4 and brought back; the frames between are to be found. Held against
bicubic with a linear blend and with optical flow, our network's input without the network, and a model in
space alone. Observed and new frames apart, clips that stand still and clips that move apart. Seeded: the same
figures each time. `--speed` measures time instead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2

from thermal_enhance.enhancers.learned import ModelUnavailableError, models_of
from thermal_enhance.evaluation import (
    figures,
    graph_arithmetic,
    model_card,
    temporal_card,
    temporal_methods,
    temporal_speed,
)
from thermal_enhance.evaluation.bench_enhance import find_data
from thermal_enhance.evaluation.bench_stats import machine
from thermal_enhance.evaluation.progress import progress_bar
from thermal_enhance.evaluation.shared_models import SharedModels
from thermal_enhance.evaluation.temporal_clips import SETS, TemporalClip, list_clips
from thermal_enhance.evaluation.temporal_methods import BASE, NEW, Method
from thermal_enhance.evaluation.temporal_picture import Montage
from thermal_enhance.evaluation.temporal_scores import WARM_UP, MissingFrame, Row, Scores, measure
from thermal_enhance.evaluation.temporal_tables import is_temporal, report
from thermal_enhance.evaluation.temporal_verdicts import verdicts
from thermal_enhance.runtime.backend import BackendError
from thermal_enhance.runtime.export_command import parse_profile
from thermal_enhance.runtime.manifest import ManifestError as ModelManifestError
from thermal_enhance.runtime.store import ModelFileError, ModelStore, UnknownModel
from thermal_enhance.training.footage import DataError
from thermal_enhance.training.manifest import ManifestError
from thermal_enhance.training.recipe import RecipeError

SPACE_MODEL = "cross_modal-edge"
LIMIT = 41


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Returns:
        0 when it ran, whatever the verdicts; 1 when a model cannot be used, 2 when it cannot start as asked.
    """
    arguments = _parser().parse_args(argv)
    try:
        return _bench(arguments)
    except (ManifestError, DataError, RecipeError, figures.BadFigures) as error:
        sys.stderr.write(f"bench temporal: {error}\n")
        return 2
    except (
        UnknownModel, ModelUnavailableError, ModelFileError, ModelManifestError, BackendError, MissingFrame,
    ) as error:  # fmt: skip
        sys.stderr.write(f"bench temporal: {error}\n")
        return 1


def _bench(arguments: argparse.Namespace) -> int:
    store = ModelStore(arguments.folder)
    if arguments.speed:
        return _speed(arguments, store)
    data: Path | None = arguments.data or find_data()
    needs_data = arguments.figures is None or arguments.card
    if needs_data and (data is None or not (data / "rgbt_pairs" / "manifest.jsonl").is_file()):
        sys.stderr.write("bench temporal: no data pack found; give its folder as --data\n")
        return 2
    data = data or Path()
    if arguments.figures is not None:
        if arguments.picture is not None:
            sys.stderr.write("bench temporal: --picture needs frames, which --figures has none of\n")
            return 2
        rows, where = figures.read(arguments.figures, Row)
    else:
        rows, where = _measure(arguments, data, store), machine()
    scores = Scores(rows)
    models = [name for name in scores.methods(NEW) if is_temporal(scores, name)]
    # Without a model the input's base tells how far motion alone goes.
    judged = models or [name for name in (BASE,) if name in scores.methods(NEW)]
    decided = {name: verdicts(scores, name) for name in judged}
    sys.stdout.write(report(scores) + "\n")
    for name, lines in decided.items():
        sys.stdout.write(f"\n{name}:\n\n" + "\n".join(map(str, lines)) + "\n")
    if arguments.json is not None:
        figures.write(arguments.json, rows, where, decided)
    if arguments.card:
        for name in models:
            run = model_card.read_run(arguments.run, arguments.trained_on) if arguments.run else None
            path = temporal_card.write(store, name, data, scores, where, run)
            sys.stderr.write(f"{path} written\n")
    return 0


def _speed(arguments: argparse.Namespace, store: ModelStore) -> int:
    names = arguments.model or list(models_of(store, "temporal"))
    if not names:
        sys.stderr.write(f"bench temporal: no temporal models in {', '.join(map(str, store.folders))}\n")
        return 2
    rate = graph_arithmetic.gemm_rate()
    rows = temporal_speed.measure(
        store, names, device=arguments.device, threads=arguments.threads, runs=arguments.runs,
        profiles=arguments.profile or (temporal_speed.GOAL_PROFILE,),
    )  # fmt: skip
    # Once more: on a shared machine the better of the two is what it can do.
    rate, where = max(rate, graph_arithmetic.gemm_rate()), machine()
    sys.stdout.write(temporal_speed.report(rows, str(where["processor"]), rate) + "\n")
    if arguments.json is not None:
        decided = {"speed": list(temporal_speed.verdicts(rows))}
        figures.write(arguments.json, rows, where, decided, gemm_gflops=rate)
    return 0


def _measure(arguments: argparse.Namespace, data: Path, store: ModelStore) -> list[Row]:
    montage = Montage(arguments.picture_clip)
    models = SharedModels(store)
    try:
        methods = _methods(arguments, models)
        with progress_bar() as advance:

            def clips() -> Iterator[TemporalClip]:
                for index, name in enumerate(arguments.sets):
                    for clip in list_clips(data, [name], limit=arguments.limit):
                        advance(index / len(arguments.sets), f"{SETS[name]}: {clip.name}")
                        yield clip

            rows = measure(
                clips(),
                methods,
                warm_up=arguments.warm_up,
                trailing=arguments.look_ahead,
                watch=montage if arguments.picture is not None else lambda _clip, _made: None,
            )
    finally:
        models.close()
    if arguments.picture is not None:
        picture = montage.picture()
        if picture is None:
            sys.stderr.write(f"bench temporal: no clip {arguments.picture_clip!r} was measured: no picture\n")
        else:
            arguments.picture.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(arguments.picture), picture)
    return rows


def _methods(arguments: argparse.Namespace, models: SharedModels) -> dict[str, Method]:
    methods: dict[str, Method] = {BASE: temporal_methods.input_base(arguments.motion)}
    if arguments.space_model:
        methods[arguments.space_model] = temporal_methods.in_space(
            models, arguments.space_model, arguments.device
        )
    for name in arguments.model:
        methods[name] = temporal_methods.temporal(
            models, name, arguments.device, look_ahead=arguments.look_ahead, motion=arguments.motion
        )
    return methods


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="thermal-enhance bench temporal", description=__doc__)
    parser.add_argument("--data", type=Path, help="the data pack (default: ../shared/data of the checkout)")
    parser.add_argument("--model", nargs="+", default=[], help="temporal models (default: baselines alone)")
    parser.add_argument(
        "--space-model", default=SPACE_MODEL, metavar="NAME",
        help=f"cross-modal model run without RGB frame by frame; empty for none (default: {SPACE_MODEL})",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, action="append", help="look for models here only")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=list(SETS))
    parser.add_argument(
        "--limit", type=int, default=LIMIT, help=f"frames of a clip; 0 for all (default: {LIMIT})"
    )
    parser.add_argument(
        "--warm-up", type=int, default=WARM_UP,
        help=f"observed frames at the start that count for no method (default: {WARM_UP})",
    )  # fmt: skip
    parser.add_argument("--look-ahead", type=int, choices=(0, 1), default=0, help="of the models")
    parser.add_argument("--motion", default="dense", help="dense, global or none: of the models and the base")
    parser.add_argument("--picture", type=Path, help="write a picture of an observed and a new frame")
    parser.add_argument("--picture-clip", default="", help='"SET CLIP" (default: the one that moves most)')
    parser.add_argument("--speed", action="store_true", help="measure time instead of quality")
    parser.add_argument(
        "--profile", type=parse_profile, action="append", metavar="WxH",
        help="for --speed: size of the input (default: 160x120)",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=0, help="for --speed: CPU threads (default: all)")
    parser.add_argument("--runs", type=int, default=60, help="for --speed: timed runs (default: 60)")
    parser.add_argument("--json", type=Path, help="write the figures, clip by clip, here as well")
    parser.add_argument("--figures", type=Path, help="take the figures of such a file; measure nothing")
    parser.add_argument("--card", action="store_true", help="write each model's README.md from the figures")
    parser.add_argument("--run", type=Path, help="for --card: folder of the training run (log.csv)")
    parser.add_argument("--trained-on", default="", help="for --card: the machine it was trained on")
    return parser
