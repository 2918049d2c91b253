"""Times a training step of the network of bytes beside PyTorch's `nn.LSTM` of the same size.

    python scripts/benchmark_lstm.py --torch_python OTHER/bin/python --output FILE.json

The steps are those of configs/enwik8_lstm.py as the program takes them, on the sources of Python,
and in PyTorch an embedding, `nn.LSTM`, a linear layer, cross-entropy and Adam, with a state that is
carried and detached. The two take turns, a few steps each; PyTorch is a process of OTHER, any
Python with torch 2, that waits meanwhile; it takes all cores or one, whichever was faster. The
result is one JSON object: bytes per second of every turn, and the median of ours over theirs.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def torch_side(options):
    """Takes `steps` steps for every line of its input, and answers with the seconds they took."""
    import torch

    device, size = options.torch_device, (options.length, options.batch_size)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(256, options.embedding)
            self.lstm = torch.nn.LSTM(options.embedding, options.units)
            self.head = torch.nn.Linear(options.units, 256)

        def forward(self, text, state):
            hidden, state = self.lstm(self.embedding(text), state)
            return self.head(hidden), state

    network = Network().to(device)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    text = torch.randint(0, 256, size, device=device)
    state = (torch.zeros(1, options.batch_size, options.units, device=device),) * 2

    def take(steps):
        nonlocal state
        start = time.perf_counter()
        for _ in range(steps):
            logits, state = network(text, state)
            state = tuple(part.detach() for part in state)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), text.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
        return time.perf_counter() - start

    # On a busy machine one thread may be the faster.
    seconds = {}
    for threads in (os.cpu_count(), 1):
        torch.set_num_threads(threads)
        take(1)
        seconds[threads] = take(options.steps)
    best = min(seconds, key=seconds.get)
    torch.set_num_threads(best)
    print(json.dumps({"torch": torch.__version__, "torch_threads": best}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(take(options.steps)), flush=True)


def our_steps(options):
    """A function that takes `steps` steps of the program and returns the seconds they took."""
    sys.path.insert(0, str(ROOT))
    import jax

    from lpw_jax import config as config_lib
    from lpw_jax import experiment
    from lpw_jax.devices.parallel import Devices
    from lpw_jax.training.train import Training

    fields = {
        "data.name": "python_sources",
        "data.num_bytes": options.num_bytes,
        "data.sequence_length": options.length,
        "model.width": options.units,
        "model.embedding": options.embedding,
        "train.batch_size": options.batch_size,
        "train.matmul_precision": "default" if options.fast else "highest",
    }
    config = config_lib.load_config(
        str(ROOT / "configs" / "enwik8_lstm.py"),
        [f"--config.{name}={value}" for name, value in fields.items()],
    )
    with experiment.pinned(config):
        devices = Devices.over(jax.devices()[:1])
        training = Training(config, experiment.load_dataset(config), devices)

    def cycles():
        state = training.runner.place(training.initial_state, num_members=1)
        rates = training.timeline.rates(1)
        while True:
            order = training.order(1)
            for newest, metrics in training.runner.cycles(
                state, order, rates, epoch=1, num_members=1
            ):
                state = newest
                yield metrics

    taken = cycles()

    def take():
        with experiment.pinned(config):
            start = time.perf_counter()
            for _ in range(options.steps):
                jax.block_until_ready(next(taken))
            return time.perf_counter() - start

    return take, {"jax": jax.__version__, "device": jax.devices()[0].device_kind}


def main():
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--torch_python", metavar="FILE", help="a Python that has torch 2")
    flags.add_argument("--output", metavar="FILE", help="where the JSON goes, too")
    flags.add_argument("--torch_device", default="cpu", help="cpu (default) or cuda")
    flags.add_argument("--units", type=int, default=500)
    flags.add_argument("--embedding", type=int, default=190)
    flags.add_argument("--batch_size", type=int, default=64)
    flags.add_argument("--length", type=int, default=100, help="bytes in a sequence")
    flags.add_argument("--num_bytes", type=int, default=2_000_000, help="of the text")
    flags.add_argument("--steps", type=int, default=2, help="in a turn")
    flags.add_argument("--turns", type=int, default=5)
    flags.add_argument("--fast", action="store_true", help="products of JAX's default precision")
    flags.add_argument("--torch_side", action="store_true", help=argparse.SUPPRESS)
    options = flags.parse_args()
    if options.torch_side:
        torch_side(options)
        return
    if not options.torch_python:
        flags.error("--torch_python must name a Python that has torch")
    take, about = our_steps(options)
    command = [options.torch_python, __file__, "--torch_side"]
    for name in ("torch_device", "units", "embedding", "batch_size", "length", "steps"):
        command.append(f"--{name}={getattr(options, name)}")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"OMP_WAIT_POLICY": "PASSIVE"}  # so that it waits without taking a core
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as other:

        def theirs():
            other.stdin.write("\n")
            other.stdin.flush()
            return json.loads(other.stdout.readline())

        about |= json.loads(other.stdout.readline())
        take(), theirs()  # compiles, and warms up
        size = options.steps * options.batch_size * options.length
        turns = [(size / take(), size / theirs()) for _ in range(options.turns)]
        other.stdin.close()
    found = {
        **about,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "sizes": {
            name: getattr(options, name)
            for name in ("units", "embedding", "batch_size", "length", "steps", "fast")
        },
        "bytes_per_second": {
            "lpw_jax": [round(ours) for ours, _ in turns],
            "pytorch": [round(theirs) for _, theirs in turns],
        },
        "ours_over_theirs": statistics.median(ours / theirs for ours, theirs in turns),
    }
    text = json.dumps(found, indent=2)
    print(text)
    if options.output:
        Path(options.output).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
