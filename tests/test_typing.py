"""What type checkers are told of the package; that it holds is checked by mypy in `.ci/run`."""

import ast
from pathlib import Path

import lpw_jax


def test_checkers_see_each_public_name_in_its_module():
    (checked,) = (
        node
        for node in ast.parse(Path(lpw_jax.__file__).read_text()).body
        if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING"
    )
    seen = {
        alias.asname: line.module
        for line in checked.body
        for alias in line.names
        if alias.name == alias.asname
    }
    assert seen == lpw_jax._MODULES
    assert Path(lpw_jax.__file__).with_name("py.typed").exists()
