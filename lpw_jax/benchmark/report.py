"""Tables of a benchmark's results, in Markdown; needs nothing but the results."""

import operator
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from lpw_jax.display.results_report import network_name
from lpw_jax.plain_text import markdown, markdown_code

Row = tuple[str, str, str, str]

_PEAK = "most memory so far, GB"  # of the process: contenders stay on the device


def table(results: Mapping[str, Any]) -> str:
    """All that was measured."""
    tables = [heading(results), targets(results)]
    return "\n\n".join(tables + ([steps(results)] if _contenders(results) else []))


def heading(results: Mapping[str, Any]) -> str:
    """Config, device and versions, in one line."""
    config, made = results["config"], results["environment"]
    train, packages = config["train"], made["packages"]
    return (
        f"{markdown_code(results['name'])}: {markdown(network_name(config['model']))}, minibatch "
        f"{train['batch_size']}, {train['compute_dtype']}; {made['num_devices']} x "
        f"{made['device_kind']}, {made['platform']}; jax {packages['jax']}, Python "
        f"{made['python']}, commit {(made['commit'] or 'unknown')[:7]}."
    )


def steps(results: Mapping[str, Any]) -> str:
    """A line for each bare step."""
    found = results["step"]
    titles = [
        "step",
        "compilation, s",
        "images/s",
        "cost per image, against K = 1",
        "planned memory, GB",
        "TFLOP/s",
        "of the matrix-product peak",
    ]
    by_name = {contender["name"]: contender for contender in found["contenders"]}
    if any("peak_memory_bytes" in contender for contender in found["contenders"]):
        titles.append(_PEAK)
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    one = _best_by_members(results).get(1)
    flops = found["flops_per_image"]["by_hand"]
    peak = _peak(results)
    for name, contender in by_name.items():
        if "not_run" in contender:
            lines.append(f"| {name} | - | {_why(contender)}" + " | -" * (len(titles) - 3) + " |")
            continue
        speed, memory = contender["images_per_second"], contender["memory_bytes"]
        cells = [
            f"{contender['compile_seconds']:.1f}",
            _speed(speed),
            f"{one / speed:.3f}" if one else "-",
            f"{memory / 1e9:.2f}" if memory else "-",
            f"{speed * flops / 1e12:.3g}",
            f"{speed * flops / peak:.0%}" if peak else "-",
        ]
        if "peak_memory_bytes" in contender:
            most = contender["peak_memory_bytes"]
            cells.append(f"{most / 1e9:.2f}" if most else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    compiled = found["flops_per_image"]["compiled"]
    counted = f", {compiled / 1e6:,.1f} in the compiled program" if compiled else ""
    lines += ["", f"A training step has {flops / 1e6:,.1f} MFLOP an image by hand{counted}."]
    return "\n".join(lines)


def targets(results: Mapping[str, Any]) -> str:
    """What is aimed at, and what was found; nothing of parts that were not asked for."""
    lines = ["| what | target | measured | |", "|---|---|---|---|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows(results))])


def rows(results: Mapping[str, Any]) -> Iterator[Row]:
    """What, its target, what was measured, and whether that is met; in words."""
    yield from _state(results)
    for part, (what, of_part) in _PARTS.items():
        found = results.get(part)
        if isinstance(found, Mapping) and "not_run" in found:
            yield (what, "", _why(found), "")
        elif found:
            yield from of_part(results)


def _state(results: Mapping[str, Any]) -> Iterator[Row]:
    state, num_members = results["state"], results["config"]["late_phase"]["num_members"]
    what = f"weights and optimiser state, K = {num_members}, against plain SGD"
    yield _row(what, state["late_phase_bytes"] / state["plain_bytes"], "<=", 1.03)


def _check(results: Mapping[str, Any]) -> Iterator[Row]:
    for dtype, found in results["check"].items():
        what = f"{dtype} training against the CPU's, largest part by which a change differs"
        if "not_run" in found:
            yield (what, "", _why(found), "")
        else:
            value = "not a number" if found["difference"] is None else f"{found['difference']:.2g}"
            met = "met" if found["agrees"] else f"missed at {markdown_code(found['where'])}"
            yield (what, f"<= {found['tolerance']}", value, met)


def _step(results: Mapping[str, Any]) -> Iterator[Row]:
    num_members, on_cpu = results["config"]["late_phase"]["num_members"], _on_cpu(results)
    best, plain = _best_by_members(results), _plain(results)
    if plain and num_members in best:
        what = f"cycle, K = {num_members}, against {num_members} plain SGD steps"
        yield _row(what, plain / best[num_members], "<=", 1.03)
    many = {k: best[1] / speed for k, speed in best.items() if k > 1 and 1 in best}
    if many:
        k = max(many, key=many.get)
        what = f"cost per image, at worst (K = {k} of {', '.join(map(str, many))}), against K = 1"
        yield _row(what, many[k], "<=", 1.15 if on_cpu else 1.05)
    counted, peak = results["step"]["flops_per_image"], _peak(results)
    if peak and num_members in best:
        what = f"K = {num_members}, of the matrix-product peak"
        rate = best[num_members] * counted["by_hand"] / peak
        yield (what, "-", f"{rate:.2f}", "") if on_cpu else _row(what, rate, ">=", 0.5)
    if counted["compiled"]:
        what = "operations by hand against the compiled program's, difference"
        yield _row(what, abs(counted["by_hand"] / counted["compiled"] - 1), "<=", 0.05)


def _program(results: Mapping[str, Any]) -> Iterator[Row]:
    found = results["program"]
    share = found["images_per_second"] / found["bare"]["images_per_second"]
    yield _row("whole program against the bare step", share, ">=", 0.97)


def _input(results: Mapping[str, Any]) -> Iterator[Row]:
    found = results["input"]
    speeds, ratios, areas = (found[name] for name in ("images_per_second", "ratios", "mean_areas"))

    def against(name, boxes):
        both = f"{_speed(speeds['ours'])} against {_speed(speeds[name])} images/s"
        return f"streamed input against a bare tf.data pipeline with {boxes} ({both})"

    yield _row(against("same_boxes", "the same boxes"), ratios["same_boxes"], ">=", 0.9)
    smaller = areas["tensorflow"] / areas["ours"]
    boxes = f"TensorFlow's own boxes, of {smaller:.2f} times the area"
    yield (against("tensorflow", boxes), "-", f"{ratios['tensorflow']:.3f}", "")


def _start(results: Mapping[str, Any]) -> Iterator[Row]:
    found = results["start"]
    for phase in ("tied", "late"):
        if f"warm_{phase}" in found:
            what = (
                f"from the start to the end of the first {phase} step, programs kept, s "
                f"(compiled anew: {found[f'cold_{phase}']:.1f})"
            )
            yield _row(what, found[f"warm_{phase}"], "<=", 20)


def _communication(results: Mapping[str, Any]) -> Iterator[Row]:
    num_members = results["config"]["late_phase"]["num_members"]
    found = results["collectives"]
    for run in found:
        if "not_run" in run:
            yield (f"communication, {run['devices']} devices", "", _why(run), "")
        if run["devices"] == 1:
            continue
        for layout in [name for name in run if name not in ("devices", "plain", "not_run")]:
            share = run[layout]["bytes_per_image"] / run["plain"]["bytes_per_image"]
            count = sum(kind["count"] for kind in run[layout]["collectives"].values())
            what = (
                f"all-reduced bytes per image, {run['devices']} devices, layout `{layout}` "
                f"({count} collectives a cycle), K times plain SGD's"
            )
            yield _row(what, share * num_members, "<=", 1.03)


def _memory(results: Mapping[str, Any]) -> Iterator[Row]:
    for found in results["memory"]:
        what = f"planned memory of a cycle, `{found['member_mode']}`, remat `{found['remat']}`, GB"
        cell = f"{found['bytes'] / 1e9:.2f}" if found.get("bytes") else _why(found)
        yield (what, "-", cell, "")


def _remat(results: Mapping[str, Any]) -> Iterator[Row]:
    found = results["remat"]
    what = f"time of a cycle, `{found['member_mode']}`, remat `batch_norm` against `none`"
    yield (what, "-", f"{found['ratio']:.3f}", "")


def _dispatch(results: Mapping[str, Any]) -> Iterator[Row]:
    for backend, found in results["dispatch"].items():
        what = f"microseconds to dispatch a step of 250 arrays, `{backend}`"
        yield (what, "-", f"{found['clock']:.0f} ({found['cpu']:.0f} of processors)", "")


def _pytorch(results: Mapping[str, Any]) -> Iterator[Row]:
    found, on_cpu = results["pytorch"], _on_cpu(results)
    limits = {"published": 1.0 if on_cpu else 3.0, "tuned": None if on_cpu else 1.2}
    for variant, limit in limits.items():
        what = f"images/s against the published PyTorch code, {variant}"
        target = f">= {limit}" if limit else "-"
        if not found.get(variant):
            yield (what, target, _why(found["runs"][variant][0]), "")
            continue
        ours, theirs = zip(*_turns(found, variant), strict=True)
        ratio = statistics.median(map(operator.truediv, ours, theirs))
        what += f" ({_speed(statistics.median(ours))} against {_speed(statistics.median(theirs))})"
        if limit:
            yield _row(what, ratio, ">=", limit)
        else:
            yield (what, target, f"{ratio:.3f}", "")


def _turns(found: Mapping[str, Any], variant: str) -> Iterator[tuple[float, float]]:
    """Images/s of ours and of the published code, where both were measured one after the other."""
    variants, rounds = [*found["runs"]], found["ours"]["rounds"]
    each = len(rounds) // len(variants) // max(map(len, found["runs"].values()))
    for turn, theirs in enumerate(found["runs"][variant]):
        if "images_per_second" in theirs:
            start = (turn * len(variants) + variants.index(variant)) * each
            seconds = statistics.median(rounds[start : start + each])
            yield found["ours"]["images_per_call"] / seconds, theirs["images_per_second"]


_PARTS = {
    "check": ("agreement with the CPU", _check),
    "step": ("bare steps", _step),
    "program": ("whole program", _program),
    "input": ("streamed input", _input),
    "collectives": ("communication", _communication),
    "memory": ("memory", _memory),
    "remat": ("time of remat", _remat),
    "dispatch": ("dispatch", _dispatch),
    "start": ("start", _start),
    "pytorch": ("published PyTorch code", _pytorch),
}


def _row(what: str, value: float, relation: str, limit: float) -> Row:
    met = value <= limit if relation == "<=" else value >= limit
    digits = 1 if limit >= 10 else 3
    return (what, f"{relation} {limit}", f"{value:.{digits}f}", "met" if met else "missed")


def _why(found: Any) -> str:
    reason = found.get("not_run") if isinstance(found, Mapping) else None
    return f"not run{f': {reason}' if reason else ''}"


def _on_cpu(results: Mapping[str, Any]) -> bool:
    return results["environment"]["backend"] == "cpu"


def _peak(results: Mapping[str, Any]) -> float | None:
    """FLOP/s of all devices with matrix products of the config's type and precision."""
    train = results["config"]["train"]
    name = train["compute_dtype"]
    if name == "float32" and train["matmul_precision"] != "highest":
        name += ", default precision"
    one = results.get("matmul", {}).get(name)
    return one and one * results["environment"]["num_devices"]


def _contenders(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    return results.get("step", {}).get("contenders", [])


def _plain(results: Mapping[str, Any]) -> float:
    """Images/s of plain SGD, with the faster convolutions; 0 if there is none."""
    plain = [c for c in _contenders(results) if c["name"].startswith("plain SGD")]
    return max((contender.get("images_per_second", 0.0) for contender in plain), default=0.0)


def _best_by_members(results: Mapping[str, Any]) -> dict[int, float]:
    """K: images/s in its fastest member mode."""
    best: dict[int, float] = {}
    for contender in _contenders(results):
        if "num_members" in contender and "images_per_second" in contender:
            k = contender["num_members"]
            best[k] = max(best.get(k, 0.0), contender["images_per_second"])
    return best


def _speed(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
