# SPDX-License-Identifier: Apache-2.0
"""Whether a document of netavark is as its schema says, with all its problems at once.

`schemas/netavark.schema.json` describes the documents, and the parts of those of CNI that become
parts of them. `validate` has the engine: this module only chooses the document and writes the
error.
"""

from __future__ import annotations

from .. import decoding
from ..errors import INVALID_NETWORK_CONFIG, ShimError, in_few_words
from ..validate import quick

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..decoding import Json


def check(
    value: Any, kind: str, what: str, *, within: str = "", code: int = INVALID_NETWORK_CONFIG
) -> Any:
    """Give a document as `settled` does, if it is a `kind` of the schema.

    Raises ShimError with all problems: `what` is the beginning of its message, such as "invalid
    request", and `within` the place of the document in what the caller knows.
    """
    found = settled(value)
    refuse(what, problems(found, kind, within), code)
    return found


def problems(value: Any, kind: str, within: str = "") -> list[str]:
    """List what is wrong with a settled document, a line each, in the order of the places."""
    definitions = decoding.one(quick.schema_text("netavark"))["$defs"]
    schema: Json = {"$ref": f"#/$defs/{kind}", "$defs": definitions}
    if quick.is_valid(value, schema):
        return []
    from ..validate import explain  # only to say what is wrong

    return [
        f"{explain.show_place(place, within).lstrip('.') or 'it'}: {why}"
        for place, why in explain.broken_rules(value, schema)
    ]


def refuse(what: str, problems: list[str], code: int = INVALID_NETWORK_CONFIG) -> None:
    """Raise ShimError with all of them, if there are any."""
    if problems:
        raise ShimError(code, *in_few_words(what, problems))


def settled(value: Any) -> Any:
    """Give a JSON value without the keys that are null, and with whole numbers as integers.

    netavark up to 1.17 writes null for what is absent. In JSON 1.0 is the same number as 1.
    """
    if isinstance(value, dict):
        return {key: settled(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [settled(item) for item in value]
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53
    return int(value) if is_whole else value
