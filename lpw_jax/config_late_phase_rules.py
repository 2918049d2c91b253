"""The rules of a config's late-phase weights; in the form of `config_rules`."""

import re
from collections.abc import Callable

_TEMPLATE_GROUPS = {"input_layer", "adapter", "conv_block", "head"}


def _is_pattern(text: str) -> bool:
    try:
        return re.compile(text) is not None and text != ""
    except (re.error, OverflowError, RecursionError):
        return False


RULES: tuple[tuple[tuple[str, ...], Callable[..., bool], str], ...] = (
    (
        ("late_phase.patterns", "late_phase.kind"),
        lambda patterns, kind: bool(patterns or kind != "copies"),
        "must be one or more regular expressions, unless late_phase.kind is another than 'copies'",
    ),
    *(
        (
            (field,),
            lambda patterns: all(map(_is_pattern, patterns)),
            "must be valid regular expressions, none of them empty",
        )
        for field in ("late_phase.patterns", "late_phase.kind_patterns")
    ),
    (
        ("late_phase.kind", "model.name"),
        lambda kind, name: kind != "templates" or name == "wide_resnet",
        "templates are defined for wide_resnet",
    ),
    (
        ("late_phase.template_groups",),
        lambda groups: bool(groups) and set(groups) <= _TEMPLATE_GROUPS,
        f"must be one or more of {', '.join(sorted(_TEMPLATE_GROUPS))}",
    ),
    (
        ("late_phase.late_template_groups",),
        lambda groups: set(groups) <= _TEMPLATE_GROUPS,
        f"must be some of {', '.join(sorted(_TEMPLATE_GROUPS))}",
    ),
    (
        (
            "late_phase.late_template_groups",
            "late_phase.template_groups",
            "late_phase.patterns",
            "late_phase.kind",
        ),
        lambda late, groups, patterns, kind: (
            kind != "templates" or bool(patterns or set(late) & set(groups))
        ),
        "must have one of late_phase.template_groups, so that something is late-phase",
    ),
)
