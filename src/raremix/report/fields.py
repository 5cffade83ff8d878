"""What a record is made of: texts that can be shown, counts, shares, pictures; and how its file is checked."""

import base64
import binascii
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from raremix.core import files
from raremix.core.errors import CorruptError

Model = TypeVar("Model", bound=BaseModel)

PNG = b"\x89PNG\r\n\x1a\n"

# Control characters, lone surrogates (not encodable), and the bidirectional overrides, which can make one name read as
# another.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def printable(text: Any) -> Any:
    """Replace what cannot be shown faithfully in a text by U+FFFD; pass anything else on to the type check.

    Example:
        >>> printable("a\\x00b")
        'a\ufffdb'
    """
    return _UNPRINTABLE.sub("\ufffd", text) if isinstance(text, str) else text


def one_line(text: Any) -> Any:
    """Make a name printable and put it on one line; pass anything that is no text on to the type check.

    Example:
        >>> one_line(" basal\\n cell ")
        'basal cell'
    """
    return " ".join(printable(text).split()) if isinstance(text, str) else text


def _joined(value: Any) -> Any:
    return one_line(", ".join(str(part) for part in value) if isinstance(value, list | tuple) else value)


def _counted(value: Any) -> Any:
    return len(value) if isinstance(value, list | tuple) else value


def _png(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.strip().removeprefix("data:image/png;base64,")
    try:
        head = base64.b64decode(text, validate=True)[: len(PNG)]
    except (binascii.Error, ValueError):
        raise ValueError("should be a PNG file in base64, but is not base64") from None
    if head != PNG:
        raise ValueError("should be a PNG file in base64, but does not start as a PNG does")
    return text


Text = Annotated[str, BeforeValidator(printable)]
Name = Annotated[str, BeforeValidator(one_line), Field(min_length=1)]
Label = Annotated[str | None, BeforeValidator(one_line)]
Names = Annotated[str, BeforeValidator(_joined)]
Count = Annotated[int, Field(ge=0), BeforeValidator(_counted)]
Share = Annotated[float, Field(ge=0, le=1)]
Png = Annotated[str, BeforeValidator(_png)]


def read_checked(model: type[Model], path: Path) -> Model:
    """Read a JSON file and check it against a model.

    Raises:
        CorruptError: naming each place that does not fit.
    """
    raw = files.read_json(path)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise CorruptError(
            f"{path} does not fit: {_complaint(error)}. Run the study again: it redoes only what is missing"
        ) from None


def _complaint(error: ValidationError, *, most: int = 5) -> str:
    found = error.errors(include_url=False, include_context=False)
    lines = [f"{'.'.join(str(key) for key in item['loc']) or 'record'}: {item['msg']}" for item in found[:most]]
    more = f" (and {len(found) - most} more)" if len(found) > most else ""
    return "; ".join(lines) + more
