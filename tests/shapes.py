"""Checks the array shapes that talkface's functions promise, in the process of the tests.

`conftest.py` gives `check` to jaxtyping's import hook. Other types are mypy's: beartype cannot know the names that a
module imports for type checkers alone.
"""

from collections.abc import Callable
from typing import Any, TypeVar, get_args

from beartype import beartype
from jaxtyping import AbstractArray

F = TypeVar("F", bound=Callable[..., Any])


def check(function: F) -> F:
    """The function, checked where an annotation holds an array."""
    function.__annotations__ = {name: hint for name, hint in function.__annotations__.items() if _has_array(hint)}
    return beartype(function) if function.__annotations__ else function


def _has_array(hint: Any) -> bool:
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(_has_array, get_args(hint)))
