"""Classes named by a path in a config: found, their arguments checked, made.

What can be refused is refused by `check`, before any model is loaded.
"""

from __future__ import annotations

import inspect
from argparse import ArgumentError
from collections.abc import Callable, Collection, Mapping
from typing import Any

from vlmteach.class_path import load_class
from vlmteach.config import ClassConfig, Config
from vlmteach.families import DECODERS, REASONERS, TEACHERS, family_class


def check(spec: ClassConfig, *, positional: int = 0, given: Collection[str] = ()) -> None:
    """Refuses a class that is not there, or arguments it would not take; makes nothing.

    Types are checked as far as the class's annotations tell.

    Args:
        spec: class and arguments.
        positional: how many arguments will come before them.
        given: names that will be given beside them.

    Raises:
        ValueError: as it says.
    """
    maker(spec, positional=positional, given=given)


def maker(
    spec: ClassConfig, *, positional: int = 0, given: Collection[str] = ()
) -> Callable[..., Any]:
    """What makes objects of the class, as many as are asked for; checked as by `check`, once.

    Args:
        spec: class and arguments; a text where the class wants a number becomes one, a list where
            it wants a tuple likewise, and an argument that is a class of its own
            (`{class_path, init_args}`) is made anew with each object.
        positional: how many arguments will come before them.
        given: names that will be given beside them.

    Returns:
        Takes the arguments before and beside, gives the object; what the class raises is passed on.

    Raises:
        ValueError: as `check`.
    """
    found = load_class(spec.class_path)
    arguments = _arguments(spec, found, positional, given)
    return lambda *before, **beside: found(*before, **beside, **arguments())


def make(spec: ClassConfig) -> Any:
    """One object of the class.

    Raises:
        ValueError: as `check`. What the class itself raises is passed on.
    """
    return maker(spec)()


def check_classes(config: Config) -> None:
    """Checks every class that a config names, as the micro-fit will make it.

    Raises:
        ValueError: one that is not there, or arguments it would not take.
    """
    if "." in config.method:
        load_class(config.method)
    families = (
        (REASONERS, config.reasoner.family),
        (DECODERS, config.decoder.family),
        (TEACHERS, config.teacher.family),
    )
    for table, name in families:
        if "." in name:  # ours are there, and cost seconds to import
            family_class(table, name)
    check(config.optimizer, positional=1, given=("lr",))
    refuse_closures(config)
    if config.scheduler is not None:
        check(config.scheduler, positional=1)
    for spec in (*config.reward, *config.callbacks):
        check(spec)
    _check_kinds(config)


def _check_kinds(config: Config) -> None:
    """Refuses classes of another kind than their place wants, before one is made."""
    from lightning.pytorch import Callback
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    kinds = [("optimizer", config.optimizer, Optimizer)]
    kinds += [("scheduler", s, LRScheduler) for s in (config.scheduler,) if s is not None]
    kinds += [("callbacks", spec, Callback) for spec in config.callbacks]
    for field, spec, kind in kinds:
        found = load_class(spec.class_path)
        if inspect.isclass(found) and not issubclass(found, kind):
            raise ValueError(
                f"--{field}: got {spec.class_path}, expected a subclass of "
                f"{kind.__module__}.{kind.__name__}; name another"
            )
    for spec in config.reward:
        found = load_class(spec.class_path)
        missing = [name for name in ("prepare", "scores") if not hasattr(found, name)]
        if not inspect.isclass(found) or missing:
            raise ValueError(
                f"--reward: got {spec.class_path}, expected a class with prepare(watched) and "
                "scores(frames, prepared); see vlmteach.reward.Reward"
            )


def refuse_closures(config: Config) -> None:
    """Refuses an optimiser that evaluates the loss at several places for one update: a reading
    would be of one of them, and what an update costs could not be told.

    Raises:
        ValueError: as it says.
    """
    step = getattr(load_class(config.optimizer.class_path), "step", None)
    try:
        closure = inspect.signature(step).parameters.get("closure") if step else None
    except (ValueError, TypeError):
        return
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"optimizer: got {config.optimizer.class_path}, which evaluates the loss several times "
            "for an update, expected one that takes a step along one gradient, such as "
            "torch.optim.AdamW; name another"
        )


def _arguments(
    spec: ClassConfig, found: Any, positional: int, given: Collection[str]
) -> Callable[[], Mapping[str, Any]]:
    """What gives the arguments of a class with its own types."""
    try:
        parameters = list(inspect.signature(found).parameters.values())
    except (ValueError, TypeError):  # written in C: it will say itself what it does not take
        return lambda: spec.init_args
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    first = [p.name for p in parameters if p.kind in by_place][:positional]
    _check_names(spec, parameters, taken={*first, *given}, given=given)
    return _typed(spec, found, {*first, *given})


def _check_names(
    spec: ClassConfig,
    parameters: list[inspect.Parameter],
    *,
    taken: set[str],
    given: Collection[str],
) -> None:
    path = spec.class_path
    for name in spec.init_args:
        if name in taken:
            remedy = "set fit.learning_rate" if name == "lr" in given else "leave it out"
            raise ValueError(
                f"{path}: got {name!r} in its arguments, expected only what is not given already; "
                + remedy
            )
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    free = {p.name: p for p in parameters if p.kind in named and p.name not in taken}
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    unexpected = [name for name in spec.init_args if name not in free]
    if unexpected and not takes_any:
        raise ValueError(
            f"{path}: got the argument {unexpected[0]!r}, expected "
            + (f"one of {', '.join(free)}; correct it" if free else "none; leave it out")
        )
    empty = inspect.Parameter.empty
    missing = [n for n, p in free.items() if p.default is empty and n not in spec.init_args]
    if missing:
        raise ValueError(
            f"{path}: got no {missing[0]!r}, expected a value, as it has no default; add it to "
            "its init_args"
        )
    known = {p.name for p in parameters}
    refused = [name for name in given if name not in known]
    if refused and not takes_any:
        raise ValueError(
            f"{path}: got a class that does not take {refused[0]!r}, expected one that does, as it "
            "is made with it; name another"
        )


def _typed(spec: ClassConfig, found: Any, taken: set[str]) -> Callable[[], Mapping[str, Any]]:
    """The arguments as jsonargparse reads them by the class's annotations, where it can."""
    from jsonargparse import ArgumentParser  # pyright: ignore[reportPrivateImportUsage]

    cli = ArgumentParser(exit_on_error=False, add_help=False)
    add = cli.add_class_arguments if inspect.isclass(found) else cli.add_function_arguments
    try:
        named = add(found, skip=set(taken), fail_untyped=False)
    except Exception:  # annotations that cannot be read: the class itself is left to judge
        return lambda: spec.init_args
    told = {name: value for name, value in spec.init_args.items() if name in named}
    try:
        parsed = cli.parse_object(told, defaults=False)
    except (ArgumentError, ValueError) as error:
        raise ValueError(
            f"{spec.class_path}: {' '.join(str(error).split())}; correct its init_args"
        ) from error

    def arguments() -> Mapping[str, Any]:
        fresh = cli.instantiate(parsed)
        return {**spec.init_args, **{name: fresh[name] for name in told}}

    return arguments if told else lambda: spec.init_args
