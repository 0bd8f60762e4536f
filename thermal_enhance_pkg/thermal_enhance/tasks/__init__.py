"""What an enhanced frame is made for: the known tasks, their prompts, and the policy that picks one."""

from thermal_enhance.tasks.policy import POLICIES, PolicyConfig, RoutingPolicy, make_policy
from thermal_enhance.tasks.registry import Task, TaskFileError, TaskRegistry, UnknownTask

__all__ = [
    "POLICIES",
    "PolicyConfig",
    "RoutingPolicy",
    "Task",
    "TaskFileError",
    "TaskRegistry",
    "UnknownTask",
    "make_policy",
]
