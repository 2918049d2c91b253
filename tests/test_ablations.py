"""Ablations of scripts/run_table.py: sweeps around a base config."""

import functools
from pathlib import Path

import pytest
import table_program
from table_program import parsed

from lpw_jax import config as config_lib

program, printed = table_program.program, table_program.printed
ROOT = Path(__file__).parents[1]
DIGITS = f"--base={ROOT}/configs/digits_bn.py"


def swept(commands, field):
    """Of ablations' commands what each row's folder makes of a field, for all seeds alike."""
    found = {}
    for command in commands:
        if command[2] == "lpw_jax.main":
            workdir, config = parsed(command)
            value = functools.reduce(getattr, field.split("."), config)
            assert found.setdefault(workdir.split("/")[-2], value) == value
    return found


@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("num_members", "late_phase.num_members", [4, 1, 2, 5, 10, 20]),
        ("release", "late_phase.release_epoch", [8, 0, 5, 10, 12, 15, 18]),
        ("sigma", "late_phase.sigma", [0.0, 0.1, 0.25, 0.5, 1.0]),
        ("coasting", "late_phase.coasting", ["reference", "every_minibatch", "none"]),
    ],
)
def test_ablations_sweep_one_field_around_a_base_that_is_trained_once(name, field, values, printed):
    commands = printed(
        "ablations",
        DIGITS,
        "--only",
        name,
        "--seeds=2",
        "--config.train.epochs=20",
        f"--runs=x/{name}",
    )
    found = swept(commands, field)
    assert list(found.values()) == values
    folders = ["ablation_base", *(f"ablation_{name}_{value}" for value in values[1:])]
    assert list(found) == folders and len(commands) == 2 * len(folders) + 1
    base = config_lib.to_dict(parsed(commands[0])[1])
    for command in commands[:-1]:
        differing = config_lib.differences(base, config_lib.to_dict(parsed(command)[1]))
        assert {line.split(":")[0] for line in differing} <= {field, "seed"}
    *compared, flag, swept_field, _, out = commands[-1][3:]
    assert compared == [f"x/{name}/{folder}/seed{s}" for folder in folders for s in (0, 1)]
    assert (flag, swept_field) == ("--sweep", field)
    assert out == f"x/{name}/ablation_{name}_comparison"


def test_ablations_leave_out_what_the_config_or_its_network_does_not_allow(program, capsys):
    flags = ["--config.swa.start_epoch=9", "--config.late_phase.kind_patterns=nothing"]
    assert program.main(["ablations", DIGITS, "--only=kind,release", "--seeds=1", *flags]) == 0
    out, err = capsys.readouterr()
    assert "ablation_kind_rank_one is left out: " in err and "'nothing'" in err
    assert "ablation_kind_rank_one" not in out and "ablation_kind_templates" in out
    assert "ablation_release_9 is left out: swa.start_epoch = 9: must be after" in err
    assert "ablation_release_6" in out and "ablation_release_9" not in out


@pytest.mark.slow
def test_templates_are_left_out_where_the_network_has_none(program, capsys):
    base = f"--base={ROOT}/configs/imagenet_resnet50.py"
    assert program.main(["ablations", base, "--only=kind", "--seeds=1"]) == 0
    out, err = capsys.readouterr()
    assert "ablation_kind_templates is left out: late_phase.kind" in err
    assert "ablation_kind_templates" not in out and "ablation_kind_low_rank" in out


def test_baselines_are_what_they_are_called(printed):
    flags = ["--config.late_phase.sigma=0.2", "--config.train.epochs=20"]
    *trainings, comparison = printed("ablations", DIGITS, "--only=baselines", "--seeds=1", *flags)
    found = {}
    for command in trainings:
        workdir, config = parsed(command)
        found[workdir.split("/")[1]] = config
        assert config.train.epochs == 20
    base, sgd, ema, lawa, last_layer, batch_ensemble = found.values()
    assert list(found)[1:] == [
        f"baseline_{name}" for name in ("sgd", "ema", "lawa", "last_layer", "batch_ensemble")
    ]
    assert base.late_phase.release_epoch == 8
    for config, swa in ((sgd, (0, 0.0)), (ema, (1, 0.99)), (lawa, (19, 0.0))):
        assert config.late_phase.release_epoch == -1
        assert (config.swa.start_epoch, config.swa.decay) == swa
    assert last_layer.late_phase.patterns == ("head/(kernel|bias)",)
    for config in (last_layer, batch_ensemble):
        assert config.late_phase.release_epoch == 0
    assert batch_ensemble.late_phase.same_minibatch and not base.late_phase.same_minibatch
    assert batch_ensemble.late_phase.shared_grad_scale == 0.25
    assert batch_ensemble.late_phase.patterns == ("(.*/)?bn[^/]*/(scale|bias)",)
    assert batch_ensemble.late_phase.sigma == 0.5 and last_layer.late_phase.sigma == 0.2
    assert "--sweep" not in comparison and comparison[-1] == "runs/baselines_comparison"


def test_ablations_of_two_fields_share_the_base(printed):
    commands = printed("ablations", DIGITS, "--only=sigma,coasting", "--seeds=1")
    workdirs = [parsed(command)[0] for command in commands[:-2]]
    assert len(workdirs) == len(set(workdirs)) == 1 + 4 + 2
    assert [command[3] for command in commands[-2:]] == ["runs/ablation_base/seed0"] * 2
