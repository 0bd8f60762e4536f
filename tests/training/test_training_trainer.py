"""The trainer on a toy: it learns, resumes bit for bit, averages, ends on time and says why it stops."""

import csv
import json
import math
import os
import signal
import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (pip install 'thermal_enhance[train]')")

from thermal_enhance.training import checkpoint as checkpoints
from thermal_enhance.training.device import StopRequest
from thermal_enhance.training.ema import Ema
from thermal_enhance.training.recipe import (
    DataConfig,
    OptimiserConfig,
    Recipe,
    SourceConfig,
    ValidationConfig,
)
from thermal_enhance.training.run_log import CsvLog, Progress
from thermal_enhance.training.schedule import Budget, learning_rate
from thermal_enhance.training.trainer import CHECKPOINT, Trainer, TrainingError, pick_device

RECIPE = Recipe(
    name="toy",
    method="toy",
    data=DataConfig((SourceConfig("msrs"),), workers=2),
    steps=24,
    log_every=4,
    optimiser=OptimiserConfig(lr=1e-2, warmup_steps=3, ema=0.9),
    validation=ValidationConfig(every=8),
)


class Sampler:
    """Noisy pictures and clean ones."""

    def batch(self, step):
        generator = torch.Generator().manual_seed(step)
        clean = torch.rand((4, 1, 8, 8), generator=generator)
        return {"noisy": clean + 0.3 * torch.randn(clean.shape, generator=generator), "clean": clean}


class Task:
    """A small network with a norm, dropout and a frozen part: all that a checkpoint must get right."""

    def __init__(self):
        self.seen = []
        self.before_step = lambda step: None
        self.scale = 1.0

    def build_model(self, recipe):
        width = recipe.model.get("width", 6)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(1, width, 3, padding=1),
            torch.nn.BatchNorm2d(width),
            torch.nn.SiLU(),
            torch.nn.Dropout(0.1),
            torch.nn.Conv2d(width, 1, 3, padding=1),
            torch.nn.Conv2d(1, 1, 1, bias=False),
        )
        torch.nn.init.ones_(model[5].weight)
        model[5].requires_grad_(False)
        return model

    def sampler(self, recipe, split):
        assert split == "train"
        return Sampler()

    def loss(self, model, batch, step):
        self.before_step(step)
        assert model.training
        self.seen.append(step)
        error = (model(batch["noisy"]) - batch["clean"]).square().mean() * self.scale
        return error, {"l2": float(error.detach())}

    def validate(self, model):
        assert not model.training and not torch.is_grad_enabled()
        batch = Sampler().batch(10**6)
        return {"psnr": -10 * math.log10(float((model(batch["noisy"]) - batch["clean"]).square().mean()))}

    def montage(self, model):
        return np.zeros((16, 24, 3), np.uint8)

    def save_weights(self, model, path):
        checkpoints.save_tensors(path, model.state_dict())


def train(out, recipe=RECIPE, task=None, **options):
    trainer = Trainer(recipe, task or Task(), out, device="cpu", **options)
    return trainer, trainer.run()


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch):
    """Drawing takes longer than training here; `whole` is made before this and has its plot."""
    monkeypatch.setattr("thermal_enhance.training.trainer.plot_curves", lambda *_: True)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """More would only wait for each other on pictures this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    trainer, outcome = train(out)
    return out, trainer, outcome


def test_it_learns_and_leaves_what_it_promises(whole):
    out, trainer, outcome = whole
    assert (outcome.reason, outcome.step, outcome.skipped) == ("finished", 24, 0)
    log, scores = rows(out / "log.csv"), rows(out / "validation.csv")
    assert [int(row["step"]) for row in log] == [4, 8, 12, 16, 20, 24]
    assert float(log[-1]["loss"]) < 0.7 * float(log[0]["loss"])
    assert set(log[0]) == {"step", "minutes", "lr", "steps_per_s", "skipped", "loss", "l2", "grad_norm"}
    assert [int(row["step"]) for row in scores] == [8, 16, 24]
    assert outcome.best == pytest.approx(max(float(row["psnr"]) for row in scores), rel=1e-4)
    curves = cv2.imread(str(out / "curves.png"))
    assert curves is not None and curves.std() > 5
    names = sorted(path.name for path in (out / "montages").iterdir())
    assert names == ["0000008.png", "0000016.png", "0000024.png"]
    assert not list(out.glob(".*")), "no temporary file is left"
    assert {path.stat().st_mode & 0o444 for path in out.glob("*.safetensors")} == {
        (out / "log.csv").stat().st_mode & 0o444
    }, "whoever may read the log may read the weights"
    saved, _ = checkpoints.load_tensors(out / "last.safetensors")
    for name, tensor in trainer.ema.shadow.items():
        assert torch.equal(saved[name], tensor), "what is saved is the average"
    assert not torch.equal(saved["0.weight"], trainer.model.state_dict()["0.weight"])


@pytest.mark.parametrize("stop_at", [5, 8, 23])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(whole, tmp_path, stop_at):
    task = Task()
    task.before_step = lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == stop_at - 1 else None
    _, outcome = train(tmp_path, task=task)
    assert (outcome.reason, outcome.step) == ("SIGTERM", stop_at)
    again = Task()
    trainer, outcome = train(tmp_path, task=again)
    assert again.seen[0] == stop_at and outcome.step == 24
    out, reference, expected = whole
    for name, tensor in reference.model.state_dict().items():
        assert torch.equal(trainer.model.state_dict()[name], tensor), name
    for name, tensor in reference.ema.shadow.items():
        assert torch.equal(trainer.ema.shadow[name], tensor), name
    assert outcome.best == expected.best and outcome.best_step == expected.best_step
    drop = {"minutes", "steps_per_s"}
    for file in ("log.csv", "validation.csv"):
        mine, theirs = rows(tmp_path / file), rows(out / file)
        assert [row["step"] for row in mine] == [row["step"] for row in theirs]
        for a, b in zip(mine, theirs):
            keys = (b.keys() - drop) if stop_at % 4 == 0 else {"step", "lr"} & b.keys()
            assert {k: a[k] for k in keys} == {k: b[k] for k in keys}


def test_a_finished_run_stays_finished(whole):
    out, _, expected = whole
    before = (out / "log.csv").read_bytes()
    task = Task()
    _, outcome = train(out, task=task)
    assert not task.seen and outcome.step == 24 and outcome.best == expected.best
    assert (out / "log.csv").read_bytes() == before


def test_more_steps_go_on_and_fresh_starts_anew(tmp_path):
    short = replace(RECIPE, steps=8)
    train(tmp_path, short)
    task = Task()
    train(tmp_path, replace(short, steps=10), task)
    assert task.seen == [8, 9]
    (tmp_path / "best.safetensors").write_bytes(b"old")
    task = Task()
    Trainer(short, task, tmp_path, device="cpu", resume=False)
    assert not any((tmp_path / name).exists() for name in ("best.safetensors", CHECKPOINT, "log.csv"))
    assert not list((tmp_path / "montages").iterdir())
    train(tmp_path, short, task, resume=False)
    assert task.seen == list(range(8))


def test_another_recipe_is_not_gone_on_with(tmp_path):
    train(tmp_path, replace(RECIPE, steps=4))
    other = replace(RECIPE, seed=7, batch=2)
    with pytest.raises(TrainingError, match=r"the recipe has changed in batch, seed; .*--fresh"):
        Trainer(other, Task(), tmp_path, device="cpu")

    class Wider(Task):
        def build_model(self, recipe):
            return super().build_model(replace(recipe, model={"width": 7}))

    with pytest.raises(TrainingError, match="it holds another network"):
        Trainer(RECIPE, Wider(), tmp_path, device="cpu")


def test_a_damaged_checkpoint_is_refused_with_the_reason(tmp_path):
    train(tmp_path, replace(RECIPE, steps=4))
    path = tmp_path / CHECKPOINT
    whole = path.read_bytes()
    broken = bytearray(whole)
    broken[-8] ^= 0xFF
    foreign = tmp_path / "last.safetensors"
    for content, reason in (
        (whole[: len(whole) // 2], "cut off"),
        (b"not a checkpoint", "cut off or not a safetensors file"),
        (bytes(broken), "do not match its checksum"),
        (foreign.read_bytes(), "not a checkpoint of ours"),
    ):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match=rf"cannot resume: .*{reason}.*--fresh"):
            Trainer(RECIPE, Task(), tmp_path, device="cpu")
    path.write_bytes(whole)
    groups, scalars = checkpoints.load_checkpoint(path)
    assert scalars["step"] == 4 and "5.weight" not in groups["model"], "frozen parameters are not kept"
    header = json.loads(checkpoints.load_tensors(path)[1]["thermal_enhance"])
    checkpoints.save_tensors(path, {}, {"thermal_enhance": json.dumps({**header, "format": 99})})
    with pytest.raises(TrainingError, match="format 99; this version reads format 1"):
        Trainer(RECIPE, Task(), tmp_path, device="cpu")


def test_it_ends_with_its_minutes_annealed(tmp_path):
    now = [0.0]
    task = Task()

    def tick(step):
        now[0] += 15.0  # seconds that a step takes by this clock

    task.before_step = tick
    recipe = replace(RECIPE, steps=None, max_minutes=99.0, validation=ValidationConfig(every=0), log_every=1)
    trainer = Trainer(recipe, task, tmp_path, device="cpu", max_minutes=4.0)
    run_budget = Budget

    def budget(steps, minutes, before=0.0):
        return run_budget(steps, minutes, before, clock=lambda: now[0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("thermal_enhance.training.trainer.Budget", budget)
        outcome = trainer.run()
    assert outcome.step == 16 and outcome.minutes == pytest.approx(4.0)
    rates = [float(row["lr"]) for row in rows(tmp_path / "log.csv")]
    assert rates[-1] < 0.05 * max(rates)
    assert len(rows(tmp_path / "validation.csv")) == 1
    # Its minutes are spent, and the next sitting knows.
    again = Trainer(recipe, Task(), tmp_path, device="cpu", max_minutes=4.0)
    assert again.budget.spent(again.step)
    assert not Trainer(recipe, Task(), tmp_path, device="cpu", max_minutes=5.0).budget.spent(16)


def test_the_clock_really_ends_a_run(tmp_path):
    recipe = replace(RECIPE, steps=None, max_minutes=0.02, validation=ValidationConfig(every=0))
    _, outcome = train(tmp_path, recipe)
    assert outcome.reason == "finished" and outcome.step > 0 and outcome.minutes < 0.5


def test_the_schedule():
    config = OptimiserConfig(lr=1.0, warmup_steps=10, final_lr=0.1)
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(config, 9, 0.0) == pytest.approx(1.0)
    assert learning_rate(config, 50, 0.5) == pytest.approx(0.55)
    assert learning_rate(config, 99, 1.0) == pytest.approx(0.1)
    flat = replace(config, schedule="constant")
    assert learning_rate(flat, 99, 1.0) == 1.0
    seconds = iter([0.0, 60.0, 90.0, 600.0])
    budget = Budget(100, 10.0, before=1.0, clock=lambda: next(seconds))
    assert budget.progress(10) == pytest.approx(0.2), "the clock is ahead of the steps"
    assert budget.progress(90) == pytest.approx(0.9), "the steps are ahead of the clock"
    assert budget.spent(1)


def test_averaged_weights_follow_the_formula():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    ema = Ema(model, 0.5)
    expected = model[0].weight.detach().clone()
    for update in range(1, 12):
        with torch.no_grad():
            model[0].weight.add_(1.0)
        model[1].num_batches_tracked += 1
        ema.update(model)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * model[0].weight.detach()
    torch.testing.assert_close(ema.shadow["0.weight"], expected)
    assert int(ema.shadow["1.num_batches_tracked"]) == 11
    own = model[0].weight.detach().clone()
    model.train()
    with pytest.raises(KeyError), ema.applied(model):
        assert not model.training and torch.equal(model[0].weight, ema.shadow["0.weight"])
        raise KeyError
    assert model.training and torch.equal(model[0].weight, own)
    exact = Ema(model, 0.0)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    exact.update(model)
    assert torch.equal(exact.shadow["0.weight"], model[0].weight)


def test_a_loss_that_is_not_finite_is_skipped_and_at_last_given_up(tmp_path):
    task = Task()

    def spoil(step):
        task.scale = math.nan if 5 <= step < 8 else 1.0

    task.before_step = spoil
    trainer, outcome = train(tmp_path / "a", task=task)
    assert outcome.skipped == 3 and outcome.step == 24
    assert all(torch.isfinite(tensor).all() for tensor in trainer.model.state_dict().values())
    assert rows(tmp_path / "a" / "log.csv")[-1]["skipped"] == "3"
    task = Task()
    task.before_step = lambda step: setattr(task, "scale", math.inf)
    with pytest.raises(TrainingError, match=r"20th in a row .* lower optimiser.lr \(0.01\)"):
        train(tmp_path / "b", task=task)


def test_clipping_and_groups(tmp_path):
    class Grouped(Task):
        def parameter_groups(self, model):
            return [{"params": model[0].parameters(), "lr_scale": 0.1}, {"params": model[4].parameters()}]

    trainer = Trainer(RECIPE, Grouped(), tmp_path, device="cpu")
    found = [(g["lr_scale"], g["weight_decay"], len(g["params"])) for g in trainer.optimiser.param_groups]
    assert found == [(0.1, 0.01, 1), (0.1, 0.0, 1), (1.0, 0.01, 1), (1.0, 0.0, 1)]
    trainer.run()
    rates = [group["lr"] for group in trainer.optimiser.param_groups]
    assert rates[0] == pytest.approx(0.1 * rates[2])

    class Frozen(Task):
        def build_model(self, recipe):
            return super().build_model(recipe).requires_grad_(False)

    with pytest.raises(ValueError, match="no parameter to train"):
        Trainer(RECIPE, Frozen(), tmp_path / "frozen", device="cpu")


def test_weights_to_start_from(tmp_path):
    first, _ = train(tmp_path / "a", replace(RECIPE, steps=4))
    start = replace(RECIPE, init_from=tmp_path / "a" / "last.safetensors")
    trainer = Trainer(start, Task(), tmp_path / "b", device="cpu")
    assert torch.equal(trainer.model.state_dict()["0.weight"], first.ema.shadow["0.weight"])
    checkpoints.save_tensors(tmp_path / "other.safetensors", {"x": torch.ones(1)})
    with pytest.raises(TrainingError, match="none of its tensors"):
        Trainer(replace(RECIPE, init_from=tmp_path / "other.safetensors"), Task(), tmp_path / "c")
    with pytest.raises(TrainingError, match=r"init_from: .*gone.safetensors: no such file"):
        Trainer(replace(RECIPE, init_from=tmp_path / "gone.safetensors"), Task(), tmp_path / "c")
    wide = replace(start, model={"width": 9})
    with pytest.raises(TrainingError, match=r"init_from: .*0.bias has another shape"):
        Trainer(wide, Task(), tmp_path / "c")


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"channels_last": True}])
def test_other_precisions_and_layouts_learn_and_resume(tmp_path, change):
    recipe = replace(RECIPE, **change)
    train(tmp_path, replace(recipe, steps=12))
    trainer, _ = train(tmp_path, recipe)
    log = rows(tmp_path / "log.csv")
    assert float(log[-1]["loss"]) < 0.8 * float(log[0]["loss"])
    assert trainer.model.state_dict()["0.weight"].dtype == torch.float32


def test_a_monitor_that_is_no_score_is_named(tmp_path):
    recipe = replace(RECIPE, validation=ValidationConfig(every=2, monitor="ssim"))
    with pytest.raises(TrainingError, match=r"validation.monitor 'ssim' is not a score of toy; known: psnr"):
        train(tmp_path, recipe)


def test_the_lowest_can_be_the_best(tmp_path):
    recipe = replace(RECIPE, validation=ValidationConfig(every=8, mode="min"))
    _, outcome = train(tmp_path, recipe)
    scores = [float(row["psnr"]) for row in rows(tmp_path / "validation.csv")]
    assert outcome.best == pytest.approx(min(scores), rel=1e-4)


def test_a_failing_batch_ends_the_run_and_its_threads(tmp_path):
    class Broken(Task):
        def sampler(self, recipe, split):
            class Bad(Sampler):
                def batch(self, step):
                    if step == 3:
                        raise OSError("a picture is gone")
                    return super().batch(step)

            return Bad()

    with pytest.raises(OSError, match="a picture is gone"):
        train(tmp_path, task=Broken())
    assert not [t for t in threading.enumerate() if t.name.startswith("batches")]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_second_signal_acts_as_ever():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append("outer"))
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.reason == "SIGINT" and not heard
            os.kill(os.getpid(), signal.SIGINT)
            assert heard == ["outer"]
    finally:
        signal.signal(signal.SIGINT, before)
    done = []

    def elsewhere():
        with StopRequest() as stop:
            done.append(stop.reason)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert done == [""]


def test_devices():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda")
    for name in ("tpu", "cuda:99", "mps"):
        with pytest.raises(TrainingError, match=f"--device {name}"):
            pick_device(name)


def test_a_log_grows_columns_and_forgets_what_lies_ahead(tmp_path):
    log = CsvLog(tmp_path / "log.csv")
    log.add({"step": 1, "loss": 0.5})
    log.add({"step": 2, "loss": 0.25, "extra": 1.0})
    assert rows(tmp_path / "log.csv")[0] == {"step": "1", "loss": "0.5", "extra": ""}
    again = CsvLog(tmp_path / "log.csv", before=1)
    assert again.series("loss") == ([1.0], [0.5]) and again.series("extra") == ([], [])


def test_one_line_a_minute_without_a_terminal():
    lines, now = [], [0.0]
    progress = Progress(lines.append, clock=lambda: now[0])
    for second in range(0, 150, 10):
        now[0] = float(second)
        progress.update(second / 150, f"at {second}")
    assert [line.split()[-1] for line in lines] == ["0", "60", "120"]
    moved = []
    Progress(lines.append, lambda fraction, text: moved.append((fraction, text))).update(0.5, "half")
    assert moved == [(0.5, "half")]
