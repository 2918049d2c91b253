"""Times the published PyTorch code of the paper, to read lpw_jax's benchmark beside it.

    git clone https://github.com/seijin-kobayashi/late-phase-weights published
    python scripts/benchmark_pytorch.py --code published --depth 28 --width 10 --num_members 10

Runs in any Python with torch 2; neither JAX nor lpw_jax is needed. Nothing in the clone is changed:
its own model, optimisers and training loop run with the settings of its cifar10_bn.json, members
released from the first step, on random images that already lie on the device, without its logging
and data loading. `--variant tuned` is the same code and loop, with channels-last memory,
bfloat16 autocast and torch.compile around the forward pass. One JSON object goes to stdout;
whatever the published code prints goes to stderr.
"""

import argparse
import contextlib
import importlib.util
import json
import platform
import shutil
import statistics
import subprocess
import sys
import time
import types
from pathlib import Path

MODULES = ("utils.model_utils", "utils.shell_utils", "utils.train_test")
CONFIG = "experiment/etc/cifar10_bn.json"
# Imported by the published code, not needed to train: what it takes from them.
OPTIONAL = {"termcolor": {"cprint": print}, "sklearn.metrics": {"roc_auc_score": None}}


def published_modules(code):
    """MODULES of the clone at `code`. Call it with torch already imported."""
    sys.dont_write_bytecode = True  # leaves the clone as it is
    sys.path.insert(0, str(code))
    stubs = {}
    for name, attributes in OPTIONAL.items():
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            stubs[name] = sys.modules[name] = types.ModuleType(name)
            vars(stubs[name]).update(attributes)
    modules = [importlib.import_module(name) for name in MODULES]
    for name in stubs:  # other packages look in sys.modules to see what is installed
        del sys.modules[name]
    return modules


def commit(code):
    """The clone's commit, with "-dirty" if its files were changed; None without git."""
    if not ((code / ".git").exists() and shutil.which("git")):
        return None
    command = ("git", "-C", code, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None


def peak_memory(device):
    """The most bytes that were in use, and what the number counts (None: unknown here)."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(), "torch.cuda.max_memory_allocated"
    try:
        import resource
    except ImportError:
        return None, None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "maximum resident set size"


def tune(model, *, device, num_members, compile):
    """Makes the model's forward pass channels-last, bfloat16 and, if asked, compiled; in place."""
    import torch

    published = type(model).forward
    model.to(memory_format=torch.channels_last)

    def forward(x, specialist):
        with torch.autocast(device, dtype=torch.bfloat16):
            return published(model, x, specialist=specialist).float()  # the loss is float32

    if compile:
        # Each member has a graph of its own; torch's limit on their number is often below K.
        limits = torch._dynamo.config
        limit = "recompile_limit" if hasattr(limits, "recompile_limit") else "cache_size_limit"
        setattr(limits, limit, max(getattr(limits, limit), num_members + 1))
        forward = torch.compile(forward, dynamic=False, fullgraph=True)
    model.forward = forward


def benchmark(
    *, code, depth, width, num_members, batch_size, device, variant, compile, cycles, repeats
):
    """Times `cycles` cycles of K = `num_members` minibatches, `repeats` times after a warm-up.

    Args:
      code: folder of the clone.
      device: "cpu" or "cuda".
      variant: "published" or "tuned".
      compile: use torch.compile; in the returned dict, whether it worked, and `compile_error` why
        not.

    Returns:
      what the command prints as JSON, less the settings.
    """
    import torch

    torch.backends.cudnn.benchmark = True  # as in the published set-up; without effect on a CPU
    torch.manual_seed(0)
    model_utils, shell_utils, train_test = published_modules(code)
    config = json.loads((code / CONFIG).read_text())
    overrides = {"wrn_depth": depth, "wrn_width": width, "num_specialists": num_members}
    overrides |= {"batch_size": batch_size, "cuda": device == "cuda", "coef_release_epoch": 0}
    shell_utils.update_config(config, overrides)

    layout = torch.channels_last if variant == "tuned" else torch.contiguous_format
    loader = cycles * [
        (
            torch.randn(batch_size, 3, 32, 32).to(device, memory_format=layout),
            torch.randint(config["num_classes_per_task"], (batch_size,)).to(device),
        )
        for _ in range(num_members)
    ]
    _, model, optimizers, _ = model_utils.setup_ensemble(config, torch.device(device), loader)
    criterion = model_utils.losses[config["loss"]]
    model.train()
    model.set_average_specialists(False)

    def seconds(epoch):
        """Of one call of the published loop, over the whole loader."""
        synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
        synchronize()
        start = time.perf_counter()
        train_test.hyper_train(
            *(config, None, loader, torch.device(device), model, optimizers, criterion, epoch),
            log=False,
            inner_loop_training=config["inner_training"],
        )
        synchronize()
        return time.perf_counter() - start

    warmup = reason = None
    if variant == "tuned":
        tune(model, device=device, num_members=num_members, compile=compile)
    if compile:
        try:
            warmup = seconds(1)
        except Exception as error:  # of any kind; one that is not the compiler's comes again below
            compile, reason = False, f"{type(error).__name__}: {str(error).strip()}".split("\n")[0]
            tune(model, device=device, num_members=num_members, compile=False)
    if warmup is None:
        warmup = seconds(1)  # the published loop releases the members at the start of epoch 1
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()  # without the trials that chose an algorithm
    per_cycle = [seconds(2 + repeat) / cycles for repeat in range(repeats)]
    peak, kind = peak_memory(device)
    cpu = f"cpu ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
    return {
        "images_per_second": num_members * batch_size / statistics.median(per_cycle),
        "seconds_per_cycle": per_cycle,
        "warmup_seconds": warmup,
        "compile": compile,
        "compile_error": reason,
        "peak_memory_bytes": peak,
        "peak_memory_kind": kind,
        "weights_finite": all(bool(p.isfinite().all()) for p in model.parameters()),
        "code": commit(code),
        "device": torch.cuda.get_device_name() if device == "cuda" else cpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "num_threads": torch.get_num_threads(),
        "tf32_convolution": torch.backends.cudnn.allow_tf32,
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
    }


def parse(argv):
    """The flags as a dict; a wrong one ends the program with one line and exit code 2."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("--code", type=Path, required=True, help="clone of the published code")
    numbers = {"depth": 28, "width": 10, "num_members": 10, "batch_size": 128}
    numbers |= {"cycles": 5, "repeats": 5}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there")
    parser.add_argument("--variant", choices=("published", "tuned"), default="published")
    parser.add_argument(
        "--no_compile", dest="compile", action="store_false", help="tuned, without torch.compile"
    )
    parser.add_argument("--output", type=Path, help="file to write the JSON to, as well")
    flags = vars(parser.parse_args(argv))
    for name in numbers:
        if flags[name] < 1:
            parser.error(f"--{name} must be >= 1, not {flags[name]}")
    if flags["depth"] < 10 or flags["depth"] % 6 != 4:
        parser.error(f"--depth must be 6 n + 4 with n >= 1, not {flags['depth']}")
    flags["code"] = flags["code"].resolve()
    for name in (*(f"{module.replace('.', '/')}.py" for module in MODULES), CONFIG):
        if not (flags["code"] / name).is_file():
            parser.error(f"--code must be a clone of the published code: no {flags['code'] / name}")
    output = flags["output"]
    if output and (output.is_dir() or not output.parent.is_dir()):
        parser.error(f"--output must be a file in a folder that exists, not {output}")
    if importlib.util.find_spec("torch") is None:
        parser.error(f"torch must be installed in the Python that runs this, {sys.executable}")
    import torch

    if flags["device"] == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device must be one that torch {torch.__version__} finds, not cuda")
    flags["device"] = flags["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
    flags["compile"] &= flags["variant"] == "tuned"
    return flags


def main(argv=None):
    flags = parse(argv)
    output = flags.pop("output")
    with contextlib.redirect_stdout(sys.stderr):
        text = json.dumps(flags | benchmark(**flags), indent=2)
    print(text)
    if output:
        output.write_text(text + "\n")


if __name__ == "__main__":
    main()
