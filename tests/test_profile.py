"""`--profile`: traces of both phases, with the cycle's parts named in them, and nothing else."""

import gzip
import json

import jax
import pytest
from short_run import COMMAND

from lpw_jax import main
from lpw_jax.files.workdir import Workdir

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_network")]
PARTS = ("augment", "coast", "members", "all_reduce", "update_members", "update_shared")


def run(workdir, *flags):
    return main.main([*COMMAND, "--workdir", str(workdir), *flags])


@pytest.fixture(scope="module")
def workdir(tiny_network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    option = "jax_compilation_cache_include_metadata_in_key"
    before = getattr(jax.config, option)
    assert run(folder, "--profile") == 0
    assert getattr(jax.config, option) == before
    return folder


def traces(workdir, phase, ending):
    return sorted((workdir / "profile" / phase / "plugins" / "profile").glob(f"*/*{ending}"))


def test_a_profile_leaves_a_trace_of_each_phase_and_nothing_else(workdir):
    assert [path.name for path in workdir.iterdir()] == ["profile"]
    assert sorted(path.name for path in (workdir / "profile").iterdir()) == ["late", "tied"]


@pytest.mark.parametrize("phase", ["tied", "late"])
def test_every_part_of_a_cycle_is_named_in_the_traced_program(workdir, phase):
    (file,) = traces(workdir, phase, ".xplane.pb")
    programs = file.read_bytes()  # they are in it, with the names of their operations
    parts = PARTS if phase == "late" else set(PARTS) - {"coast", "update_members"}
    assert [part for part in parts if f"/{part}/".encode() not in programs] == []
    for differentiated in (b"/members/jvp(", b"/members/transpose("):
        assert differentiated in programs


@pytest.mark.parametrize("phase", ["tied", "late"])
def test_a_trace_for_perfetto_holds_whole_cycles_of_all_devices_and_no_compilation(workdir, phase):
    (file,) = traces(workdir, phase, "perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    named = [(event["name"], event.get("args", {})) for event in events if "name" in event]
    cycles = sorted(int(args["step_num"]) for name, args in named if name == "cycle")
    assert cycles == list(range(len(cycles))) and len(cycles) > 2
    devices = {int(args["device_ordinal"]) for _, args in named if "hlo_op" in args}
    assert devices == set(range(jax.device_count()))
    assert not [name for name, _ in named if "backend_compile" in name]


def test_a_profiled_folder_is_still_free_for_a_run(workdir):
    Workdir(workdir).known()


def test_a_trace_that_cannot_be_written_is_a_mistake_that_names_it(tmp_path, capsys):
    (tmp_path / "profile").write_text("a file, where a folder should be")
    assert run(tmp_path, "--profile") == 2
    assert f"--profile: {tmp_path}/profile/tied cannot be written" in capsys.readouterr().err
