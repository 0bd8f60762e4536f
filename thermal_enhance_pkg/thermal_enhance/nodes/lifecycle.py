"""Base of every node of the suite: a lifecycle node whose transitions never fail in silence."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from thermal_enhance.nodes.bus import LocalBus
from thermal_enhance.nodes.parameters import ParameterBinding


class SuiteNode(LifecycleNode):
    """A lifecycle node with parameters from a dataclass and a bus to the other nodes of its process.

    Subclasses set `config_type` and override `configure`, `activate`, `deactivate` and `cleanup`, each
    of which may raise: the transition then fails with the reason in the log, which rclpy would swallow.
    `deactivate` undoes `activate` and `cleanup` undoes `configure`, also after a failure half-way; both
    may be called again, and on a node that was never activated or configured.

    Args:
        name: node name.
        bus: topics of this process; a bus of its own by default.
        **kwargs: passed to rclpy's Node (namespace, parameter_overrides, context, ...).
    """

    config_type: type

    def __init__(self, name: str, bus: LocalBus | None = None, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.bus = bus or LocalBus()
        self._binding = ParameterBinding(self, self.config_type, self.check_config, self.config_changed)

    @property
    def config(self) -> Any:
        """The current parameter values, as `config_type`."""
        return self._binding.config

    @property
    def state_label(self) -> str:
        """Lifecycle state: "unconfigured", "inactive", "active" or "finalized"."""
        return str(self._state_machine.current_state[1])

    def check_config(self, config: Any) -> str:
        """Why `config` cannot be used, or "" (override)."""
        return ""

    def config_changed(self, config: Any, names: set[str]) -> None:
        """Take over run-time changes (override)."""

    def configure(self) -> None:
        """Make what the node needs; must return quickly (override)."""

    def activate(self) -> None:
        """Start working (override)."""

    def deactivate(self) -> None:
        """Stop working (override)."""

    def cleanup(self) -> None:
        """Free everything (override)."""

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition."""
        return self._attempt("configure", self.configure, undo=self.cleanup)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition."""
        # Publishers first: a frame may arrive as soon as the subscriptions open.
        result = super().on_activate(state)
        if result == TransitionCallbackReturn.SUCCESS:
            result = self._attempt("activate", self.activate, undo=self.deactivate)
        if result != TransitionCallbackReturn.SUCCESS:
            # An inactive node whose publishers are activated would still speak.
            super().on_deactivate(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition."""
        result = self._attempt("deactivate", self.deactivate)
        super().on_deactivate(state)
        return result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition."""
        return self._attempt("cleanup", self.cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition, from any state."""
        if state.label == "active":
            self._attempt("deactivate", self.deactivate)
            super().on_deactivate(state)
        if state.label in ("active", "inactive"):
            self._attempt("cleanup", self.cleanup)
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a failed transition: stop working, free everything and go back to unconfigured."""
        # A deactivate that failed half-way may have left a thread at work on what cleanup frees.
        self._attempt("deactivate after an error", self.deactivate)
        super().on_deactivate(state)
        self._attempt("cleanup after an error", self.cleanup)
        return TransitionCallbackReturn.SUCCESS

    def stop(self) -> None:
        """Bring the node to finalized from whatever state it is in."""
        if self.state_label != "finalized":
            self.trigger_shutdown()

    def _attempt(
        self, what: str, action: Callable[[], None], undo: Callable[[], None] | None = None
    ) -> TransitionCallbackReturn:
        try:
            action()
        except Exception as error:
            self.get_logger().error(f"{what} failed: {error}")
            self.get_logger().debug(traceback.format_exc())
            if undo is not None:
                self._attempt(f"undoing {what}", undo)
                return TransitionCallbackReturn.FAILURE
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS
