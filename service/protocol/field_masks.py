"""Read the update_mask of a request."""

from collections.abc import Sequence

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from service.domain.errors import FieldViolation, InvalidArgument

_MAX_PATHS = 100
"""Most paths in an update_mask."""


def changed_fields(mask: FieldMask, values: Message, changeable: Sequence[str], what: str) -> tuple[str, ...]:
    """Return the fields of `values` that a mask names, in the order of `changeable`; without a mask, all that are set.

    `what`: a word for `values`. Raises InvalidArgument for a path that is not of `changeable`.
    """
    if not mask.paths:
        given = {field.name for field, _ in values.ListFields()}
        return tuple(path for path in changeable if path in given)
    if len(mask.paths) > _MAX_PATHS:
        raise InvalidArgument([FieldViolation("update_mask", f"must not name more than {_MAX_PATHS} fields")])
    if list(mask.paths) == ["*"]:
        return tuple(changeable)
    wrong = sorted(set(mask.paths) - set(changeable))
    if wrong:
        known = values.DESCRIPTOR.fields_by_name
        problems = [(path, "cannot be changed" if path in known else f"is not a field of {what}") for path in wrong]
        these = ", ".join(changeable)
        raise InvalidArgument(
            [
                FieldViolation("update_mask", f"{path[:100]!r} {problem}; these can be: {these}")
                for path, problem in problems
            ]
        )
    return tuple(path for path in changeable if path in mask.paths)
