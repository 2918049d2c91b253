"""Networks of templates and of shared batch norm from and to the published code's names."""

import json

import numpy as np
import pytest
from test_golden import GOLDEN, assert_agrees
from test_import_late_phase import FLOAT64, counters, run_export, run_import

import lpw_jax

TEMPLATES = (
    "--config.model.depth=16",
    "--config.late_phase.patterns=head/.*",
    "--config.late_phase.kind=templates",
    FLOAT64,
)
HEAD_ONLY = ("--config.late_phase.patterns=head/.*", FLOAT64)


def entries(name, prefix="final/"):
    """All that the published code's state dict has of a recorded network.

    Banks stand under every layer that uses them, with biases, and batch norms have counters.
    """
    golden = np.load(GOLDEN / f"{name}.npz")
    found = {k.removeprefix(prefix): golden[k] for k in golden.files if k.startswith(prefix)}
    banks = {k: a for k, a in found.items() if ".bank." in k}
    if banks:
        for layer, place in json.loads(str(golden["banks"])).items():
            bank = banks[f"{place}.bank.templates.weight"]
            found[f"{layer}.bank.templates.weight"] = bank
            found[f"{layer}.bank.templates.bias"] = np.zeros((bank.shape[0], bank.shape[-1]))
    return golden, found | counters(found, 0)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        pytest.param("cifar_templates", TEMPLATES, marks=pytest.mark.slow),
        ("cifar_head_only", HEAD_ONLY),
    ],
)
def test_a_network_is_imported_evaluated_and_exported_as_it_was(float64, name, flags, tmp_path):
    golden, recorded = entries(name)
    assert run_import(recorded, tmp_path, *flags) == 0
    run = lpw_jax.load(tmp_path / "run")
    x = (golden["test_images"] / 255.0 - run.mean) / np.array(run.std)
    logits = run.model.apply(run.collapsed, x)
    assert_agrees(logits, golden["average_logits"], "collapsed")
    for k in range(3):
        assert_agrees(
            run.model.apply(run.member(k), x), golden[f"member_logits/{k}"], f"member {k}"
        )
    code, exported = run_export(tmp_path)
    assert code == 0
    assert exported.keys() == recorded.keys()
    for key, array in recorded.items():
        np.testing.assert_array_equal(exported[key], array, err_msg=key)


def test_what_the_published_code_has_no_names_for_is_refused(tmp_path, capsys):
    _, recorded = entries("cifar_head_only")
    assert run_import(recorded, tmp_path, *HEAD_ONLY, "--config.late_phase.kind=rank_one") == 2
    assert "late_phase.kind: must be 'copies' or 'templates'" in capsys.readouterr().err
    _, recorded = entries("cifar_templates")
    shared = "--config.late_phase.late_template_groups=adapter"
    assert run_import(recorded, tmp_path, *TEMPLATES, shared) == 2
    assert "late_phase.late_template_groups: must have all of" in capsys.readouterr().err
