"""What the UNet is told in words: one fixed embedding, or one that follows the tags of the scene.

The paper tags every RGB picture with RAM, a network several times the size of the method's own tolerable
cost on a robot, so that is left to a plug-in. The usual source of tags is a detector's labels or a topic;
their embeddings come from a table computed beforehand (`text.make_tag_table`), and no text encoder is
needed at run time. Numpy alone.

For `sd-turbo` only: the context of `edge` and `base` is a learnt (8, 32) parameter, which no tag changes.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

PROMPT = "remove degradation"
"""What the paper's prompts begin with (METHODS 1.6)."""
_KEY = "tags:"
Embedding = NDArray[np.float32]
TagSet = tuple[str, ...]


class Context(Protocol):
    """Gives the context of each frame."""

    def __call__(
        self, now: float, tags: Sequence[str] | None = None, rgb: NDArray[np.uint8] | None = None
    ) -> Embedding:
        """The (L, D) float32 embedding to use now.

        Args:
            now: seconds, of the stream's own clock.
            tags: seen in this frame; None if nobody looked.
            rgb: (H, W, 3) picture of this frame, for taggers.
        """
        ...


class Tagger(Protocol):
    """Names what is in a picture; RAM, for instance."""

    def __call__(self, rgb: NDArray[np.uint8]) -> Sequence[str]:
        """(H, W, 3) RGB to tags."""
        ...


def canonical(tags: Iterable[str]) -> TagSet:
    """Sorted, lower case, each once, empty ones left out: equal sets compare equal."""
    return tuple(sorted({clean for tag in tags if (clean := " ".join(tag.lower().split()))}))


def tag_prompt(tags: Iterable[str], prompt: str = PROMPT) -> str:
    """The text that is embedded: the prompt and the tags, separated by commas (METHODS 1.6)."""
    return ", ".join([prompt, *canonical(tags)])


class FixedContext:
    """`fixed`, the default: one embedding, whatever is seen.

    Args:
        embedding: (L, D).
    """

    def __init__(self, embedding: NDArray[Any]) -> None:
        if embedding.ndim != 2:
            raise ValueError(f"a context must be (length, width), not {embedding.shape}")
        self.embedding: Embedding = np.asarray(embedding, np.float32)

    def __call__(
        self, now: float, tags: Sequence[str] | None = None, rgb: NDArray[np.uint8] | None = None
    ) -> Embedding:
        """See `Context`."""
        return self.embedding


class TagTable:
    """Embeddings of tag sets, read from a safetensors file as they are asked for.

    Args:
        path: made by `write_tag_table`.
        capacity: how many stay in memory; the one not used for longest makes room.

    Raises:
        ValueError: no such file, or no embedding of the prompt alone in it.
    """

    def __init__(self, path: Path, capacity: int = 32) -> None:
        from safetensors import SafetensorError, safe_open

        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        try:
            self._file: Any = safe_open(str(path), framework="numpy")
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path}: not a table of tag embeddings: {error}") from error
        self.tag_sets = sorted(
            canonical(key.removeprefix(_KEY).split(","))
            for key in self._file.keys()  # noqa: SIM118
            if key.startswith(_KEY)
        )
        if () not in self.tag_sets:
            raise ValueError(f"{path}: has no embedding of the prompt without tags")
        self._capacity = capacity
        self._recent: OrderedDict[TagSet, Embedding] = OrderedDict()
        self.reads = 0

    def nearest(self, tags: Iterable[str]) -> TagSet:
        """The largest set of the table that is part of `tags`; the empty one if need be."""
        wanted = set(tags)
        return max((s for s in self.tag_sets if wanted.issuperset(s)), key=len)

    def __call__(self, tags: Iterable[str]) -> Embedding:
        """The (L, D) embedding of the nearest set."""
        key = self.nearest(canonical(tags))
        if key not in self._recent:
            self.reads += 1
            self._recent[key] = np.asarray(self._file.get_tensor(_KEY + ",".join(key)), np.float32)
            if len(self._recent) > self._capacity:
                self._recent.popitem(last=False)
        self._recent.move_to_end(key)
        return self._recent[key]


@dataclass(frozen=True)
class TagConfig:
    """How fast the context follows the tags.

    Attributes:
        interval: seconds between changes, at least.
        enter: looks in a row at which a tag must be seen to count.
        leave: looks in a row at which it must be missing to go.
        limit: so many tags at most, those that came first (training pictures have 8 in the median).
    """

    interval: float = 1.0
    enter: int = 3
    leave: int = 5
    limit: int = 8

    def __post_init__(self) -> None:
        if self.interval < 0:
            raise ValueError(f"interval must be at least 0 s, not {self.interval}")
        for name in ("enter", "leave", "limit"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


class TagContext:
    """`tags`: follows the tags seen, slowly, so that a flickering detector does not make the picture flicker.

    Args:
        table: embeddings by tag set.
        config: see `TagConfig`.
    """

    def __init__(self, table: TagTable, config: TagConfig | None = None) -> None:
        self.table = table
        self.config = config or TagConfig()
        self.tags: TagSet = ()
        self._streaks: dict[str, int] = {}  # looks in a row: seen, or (negative) missing
        self._active: list[str] = []  # in the order in which they came
        self._changed: float | None = None

    def __call__(
        self, now: float, tags: Sequence[str] | None = None, rgb: NDArray[np.uint8] | None = None
    ) -> Embedding:
        """See `Context`."""
        if tags is not None:
            self._look(canonical(tags))
        if self._changed is not None and now < self._changed:
            self._changed = None  # the clock was set back, or a bag starts again
        wanted = tuple(sorted(self._active[: self.config.limit]))
        if wanted != self.tags and (self._changed is None or now - self._changed >= self.config.interval):
            self.tags, self._changed = wanted, now
        return self.table(self.tags)

    def _look(self, seen: TagSet) -> None:
        for tag in {*seen, *self._streaks}:
            streak = self._streaks.get(tag, 0)
            self._streaks[tag] = max(streak, 0) + 1 if tag in seen else min(streak, 0) - 1
        for tag, streak in sorted(self._streaks.items()):
            if streak >= self.config.enter and tag not in self._active:
                self._active.append(tag)
            elif streak <= -self.config.leave and tag in self._active:
                self._active.remove(tag)
        self._streaks = {t: n for t, n in self._streaks.items() if n > 0 or t in self._active}


class TaggerContext:
    """`ram`: a plug-in names what is in the picture, no more often than the context may change.

    Args:
        tagger: for instance RAM, see `load_tagger`.
        context: turns the tags into an embedding. Looks being rare, its `enter` and `leave` should be low.
    """

    def __init__(self, tagger: Tagger, context: TagContext) -> None:
        self.tagger, self.context = tagger, context
        self._looked: float | None = None

    def __call__(
        self, now: float, tags: Sequence[str] | None = None, rgb: NDArray[np.uint8] | None = None
    ) -> Embedding:
        """See `Context`; `tags` are not used."""
        last = self._looked
        due = last is None or now < last or now - last >= self.context.config.interval
        found = None
        if rgb is not None and due:
            found, self._looked = list(self.tagger(rgb)), now
        return self.context(now, found)


def load_tagger(name: str) -> Tagger:
    """A tagger from the name of a callable, "package.module:function".

    Raises:
        ValueError: it cannot be imported or called.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"tagger {name!r} must be package.module:function: {error}") from error
    if not callable(found):
        raise ValueError(f"tagger {name!r} cannot be called")
    return found


def write_tag_table(path: Path, embeddings: Mapping[TagSet, NDArray[Any]], prompt: str = PROMPT) -> None:
    """Write a table for `TagTable`, half precision.

    Args:
        path: safetensors file to make.
        embeddings: (L, D) by tag set, all of one shape; the empty set, the prompt alone, must be among them.
        prompt: kept in the header.

    Raises:
        ValueError: no empty set, several shapes, or a tag with a comma.
    """
    from safetensors.numpy import save_file

    if () not in embeddings or len({e.shape for e in embeddings.values()}) != 1:
        raise ValueError("a tag table needs an embedding of the empty set, and all of one shape")
    if any("," in tag for tags in embeddings for tag in tags):
        raise ValueError("a tag must not contain a comma")
    rows = {_KEY + ",".join(canonical(tags)): e.astype(np.float16) for tags, e in embeddings.items()}
    save_file(rows, str(path), {"prompt": prompt})
