"""Errors of Hydra and OmegaConf as one sentence: the setting, its value, and what to type instead."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, Literal

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from molsam.config import command
from molsam.config.schema import RunConfig
from molsam.errors import nearest

UNKNOWN = re.compile(r"Key '(?P<one>[^']+)' (?:is not in struct|not in '\w+')|Could not override '(?P<key>[^']+)'")
OTHER_WORDS = {"learning_rate": "lr", "lrate": "lr", "init_lr": "lr", "max_lr": "lr", "n_epochs": "epochs",
               "num_epochs": "epochs", "max_epochs": "epochs", "bs": "batch_size", "batchsize": "batch_size",
               "wd": "weight_decay", "early_stopping": "patience", "gpu": "device", "smiles_column": "smiles",
               "smiles_columns": "smiles", "target_columns": "targets", "data_path": "path", "split_type": "kind",
               "num_folds": "folds", "n_folds": "folds"}  # fmt: skip
"""The name of a setting in other programs -> the last part of its name here."""
DELETED = re.compile(r"Could not delete (?:from config\. (?:The value of )?)?'([^']+)'")
WRONG_TYPE = re.compile(
    r"could not be converted|Cannot convert|incompatible with type hint|Invalid value assigned|is not Optional|"
    r"is not a valid|Cannot merge|unsupported"
)


def explain(error: Exception, names: Callable[[], list[str]]) -> str:
    """Say what is wrong in one sentence, with the nearest valid name.

    Args:
        error: raised by Hydra or OmegaConf.
        names: gives the dotted names of all settings; called where one of them was mistyped.
    """
    text = _text(error)
    if match := re.search(
        r"Could not find '([\w/]+)/([^']+)'.*?Available options in '[^']+': (.*?)(?: Config search|$)", text
    ):
        group, given, options = match.groups()
        choices = re.findall(r"[\w-]+", options)
        near = nearest(given, choices)
        hint = f" Did you mean {group}={near}?" if near else ""
        if group == "dataset" and not near and "." in given:
            hint = f" For a file of your own use dataset=csv dataset.path={given}."
        return f"{group}={given} does not exist.{hint} Choose one of: {', '.join(choices)}."
    if match := re.search(r"Ambiguous value for argument '([^']+?)=([^']*)'", text):
        key, value = match.groups()
        return (
            f"{key}={value} are several values; add --multirun to train with one after another, or write "
            f"{key}=[{value}] if it is one list."
        )
    if match := re.search(r"Error when parsing index: (\d+), string: (.*?) out of \[", text):
        return _unreadable(match.group(2))
    if match := DELETED.search(text):
        return _deleted(match[1], names)
    if text.startswith("Only one of --"):
        return f"{text}; to see settings with --cfg or --info, leave --multirun and --run out."
    return _of_schema(error, text, names)


def _unreadable(word: str) -> str:
    """Return the sentence about a word of the command line that Hydra cannot read."""
    key, equals, value = word.partition("=")
    if not equals or not re.fullmatch(r"[\w./@+~-]+", key):
        return f"{word} is not a setting; settings are written key=value, as in model=gcn."
    listed = re.fullmatch(r"\[(.*)\]", value)
    quoted = f"[{','.join(_quoted(one.strip()) for one in listed[1].split(','))}]" if listed else _quoted(value)
    text = f"{key}={quoted}"
    return (
        f"{word} cannot be read; put quotes around values with signs or letters beyond ASCII: {command.shell([text])}"
    )


def _quoted(value: str) -> str:
    return value if re.fullmatch(r"[\w./+-]+", value, re.ASCII) else "'" + value.strip("'\"") + "'"


def _of_schema(error: Exception, text: str, names: Callable[[], list[str]]) -> str:
    """Return the sentence for settings that do not fit the schema or the keys of a group."""
    cause = _cause(error)
    whole = text if cause is None or cause is error else f"{text} {_text(cause)}"
    place = match[1] if (match := re.match(r"(In '[^']+': )", whole)) else ""
    if match := re.search(r"is not a subclass of (\w+)\. value: (.*?)(?: full_key.*)?$", whole):
        sections = [name for name, hint in typing.get_type_hints(RunConfig).items() if type_name(hint) == match[1]]
        return f"{place}{sections[0]}={match[2]} is not a group of settings; choose one of its options."
    match = re.search(r"full_key: (\S+)", whole)
    key = match[1] if match else ""
    if expected(key.split("[")[0]) is not Any and WRONG_TYPE.search(whole):
        given = f"{place}{key}{_value(cause, whole)}"
        if is_dataclass(expected(key)):
            return f"{given} is not a group of settings; choose one of its options."
        return wrong_type(given, expected(key.split("[")[0]))
    if match := UNKNOWN.search(whole):
        return place + unknown(key or match["key"] or match["one"], names())
    if key and ("support deletion" in whole or (f"Missing key {key}" in whole and expected(key) is not Any)):
        return _kept(key)
    return whole


def _deleted(word: str, names: Callable[[], list[str]]) -> str:
    """Return the sentence about ~word, which Hydra could not delete."""
    key = word.partition("=")[0]
    return _kept(key) if key in (known := names()) else unknown(key, known)


def _kept(key: str) -> str:
    return f"{key} is a setting of every run, so ~{key} cannot take it out; give it a value instead."


def unknown(key: str, names: list[str]) -> str:
    """Return the sentence for a setting that does not exist.

    It suggests the setting of the same name in another section, the one nearest to the top, else the most similar name.
    """
    others = [name for name in names if not f"{key}.".startswith(f"{name}.")]
    meant = OTHER_WORDS.get(key.split(".")[-1], key.split(".")[-1])
    same = sorted((n for n in others if n.split(".")[-1] == meant), key=lambda n: n.count("."))
    near = same[0] if same else nearest(key, others, least=0.5)
    hint = f" Did you mean {near}?" if near else ""
    return f"{key} is not a setting of this run.{hint} `{command.training()} --help` lists them all."


def wrong_type(given: str, hint: Any) -> str:
    """Return the sentence for a setting, `key=value`, of another type than `hint`."""
    return f"{given} has the wrong type; expected {type_name(hint)}."


def type_name(hint: Any) -> str:
    """Return a type hint in words."""
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    return getattr(hint, "__name__", str(hint)) if typing.get_origin(hint) is None else str(hint)


def expected(key: str) -> Any:
    """Return the type of a setting of the schema, by its dotted name; Any if it is not one of them."""
    hint: Any = RunConfig
    for part in key.split("."):
        hint = typing.get_type_hints(hint).get(part, Any) if is_dataclass(hint) else Any
    return hint


def names_of(node: DictConfig, prefix: str = "") -> list[str]:
    """Return the dotted names of all settings and sections."""
    found = []
    for key in node:
        name = f"{prefix}{key!s}"
        found.append(name)
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not (child._is_none() or child._is_interpolation() or child._is_missing()):
            found += names_of(child, f"{name}.")
    return found


def _cause(error: BaseException) -> BaseException | None:
    """Return the error of OmegaConf behind one of Hydra's, else its cause."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OmegaConfBaseException):
        found = found.__cause__
    return found or error.__cause__


def _value(cause: BaseException | None, text: str) -> str:
    """Return =VALUE of the refused setting; empty if the error does not name it."""
    if isinstance(cause, OmegaConfBaseException):
        return f"={cause.value!r}"
    match = re.search("Value '(.*?)' ", text)
    return f"={match[1]!r}" if match else ""


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())
