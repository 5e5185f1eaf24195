"""Star out secrets before settings are written."""

from __future__ import annotations

import os
import re
from typing import Any


def without_secrets(value: Any) -> Any:
    """Return a tree of plain values in which the values of secret environment variables are starred out."""
    return _starred(value, _secrets())


def _starred(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _starred(item, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_starred(item, secrets) for item in value]
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "***")
    return value


def _secrets() -> list[str]:
    names = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL")
    return [value for name, value in os.environ.items() if names.search(name.upper()) and len(value) >= 8]
