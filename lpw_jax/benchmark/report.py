"""Tables of a benchmark's results, in Markdown; needs nothing but the results."""

from collections.abc import Iterator, Mapping
from typing import Any

Row = tuple[str, str, str, str]


def table(results: Mapping[str, Any]) -> str:
    """All that was measured."""
    return "\n".join([heading(results), "", targets(results), "", steps(results)])


def heading(results: Mapping[str, Any]) -> str:
    """Config, device and versions, in one line."""
    config, made = results["config"], results["environment"]
    model, train, packages = config["model"], config["train"], made["packages"]
    return (
        f"`{results['name']}`: WRN-{model['depth']}-{model['width']}, minibatch "
        f"{train['batch_size']}, {train['compute_dtype']}; {made['num_devices']} x "
        f"{made['device_kind']}, {made['platform']}; jax {packages['jax']}, Python "
        f"{made['python']}, commit {(made['commit'] or 'unknown')[:7]}."
    )


def steps(results: Mapping[str, Any]) -> str:
    """A line for each bare step."""
    found = results.get("step", {})
    lines = [
        "| step | compilation, s | images/s | cost per image, against K = 1 | planned memory, GB | "
        "TFLOP/s | "
        "of the matrix-product peak |",
        "|---|---|---|---|---|---|---|",
    ]
    if "contenders" not in found:
        return f"Bare steps: {_why(found)}"
    by_name = {contender["name"]: contender for contender in found["contenders"]}
    one = _best_by_members(results).get(1)
    flops = found["flops_per_image"]["by_hand"]
    peak = _peak(results)
    for name, contender in by_name.items():
        if "not_run" in contender:
            lines.append(f"| {name} | - | {_why(contender)} | - | - | - | - |")
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
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    compiled = found["flops_per_image"]["compiled"]
    counted = f", {compiled / 1e6:,.1f} in the compiled program" if compiled else ""
    lines += ["", f"A training step has {flops / 1e6:,.1f} MFLOP an image by hand{counted}."]
    return "\n".join(lines)


def targets(results: Mapping[str, Any]) -> str:
    """What is aimed at, and what was found."""
    lines = ["| what | target | measured | |", "|---|---|---|---|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in _rows(results))])


def _rows(results: Mapping[str, Any]) -> Iterator[Row]:
    config = results["config"]
    num_members, on_cpu = config["late_phase"]["num_members"], _on_cpu(results)
    best = _best_by_members(results)
    plain = _contender(results, "plain SGD")
    if plain and num_members in best:
        cost = plain / best[num_members]
        what = f"cycle, K = {num_members}, against {num_members} plain SGD steps"
        yield _row(what, cost, "<=", 1.03)
    else:
        yield ("cycle against plain SGD steps", "<= 1.03", _why(results.get("step", {})), "")
    many = {k: best[1] / speed for k, speed in best.items() if k > 1 and 1 in best}
    if many:
        k = max(many, key=many.get)
        what = f"cost per image, at worst (K = {k} of {', '.join(map(str, many))}), against K = 1"
        yield _row(what, many[k], "<=", 1.15 if on_cpu else 1.05)
    found = results.get("program", {})
    what = "whole program against the bare step"
    if "images_per_second" in found:
        share = found["images_per_second"] / found["bare"]["images_per_second"]
        yield _row(what, share, ">=", 0.97)
    else:
        yield (what, ">= 0.97", _why(found), "")
    state = results["state"]
    what = f"weights and optimiser state, K = {num_members}, against plain SGD"
    yield _row(what, state["late_phase_bytes"] / state["plain_bytes"], "<=", 1.03)
    yield from _communication(results, num_members)
    found = results.get("start", {})
    for phase in ("tied", "late"):
        what = f"from the start to the end of the first {phase} step, programs kept, s"
        if f"warm_{phase}" in found:
            what += f" (compiled anew: {found[f'cold_{phase}']:.1f})"
            yield _row(what, found[f"warm_{phase}"], "<=", 20)
        elif not found or "not_run" in found:
            yield (what, "<= 20", _why(found), "")
    peak, speed = _peak(results), best.get(num_members)
    what = f"K = {num_members}, of the matrix-product peak"
    if peak and speed:
        rate = speed * results["step"]["flops_per_image"]["by_hand"] / peak
        yield (what, "-", f"{rate:.2f}", "") if on_cpu else _row(what, rate, ">=", 0.5)
    counted = results.get("step", {}).get("flops_per_image", {})
    if counted.get("compiled"):
        error = abs(counted["by_hand"] / counted["compiled"] - 1)
        yield _row(
            "operations by hand against the compiled program's, difference", error, "<=", 0.05
        )
    yield from _pytorch(results, on_cpu)


def _communication(results: Mapping[str, Any], num_members: int) -> Iterator[Row]:
    found = results.get("collectives", {})
    if not isinstance(found, list):
        yield ("all-reduced bytes per image, against plain SGD", "<= 1.03 / K", _why(found), "")
        return
    for run in found:
        if run["devices"] == 1:
            continue
        for layout in ("data", "members"):
            if layout in run and "plain" in run:
                share = run[layout]["bytes_per_image"] / run["plain"]["bytes_per_image"]
                count = sum(kind["count"] for kind in run[layout]["collectives"].values())
                what = (
                    f"all-reduced bytes per image, {run['devices']} devices, layout `{layout}` "
                    f"({count} collectives a cycle), K times plain SGD's"
                )
                yield _row(what, share * num_members, "<=", 1.03)


def _pytorch(results: Mapping[str, Any], on_cpu: bool) -> Iterator[Row]:
    found = results.get("pytorch", {})
    limits = {"published": 1.0 if on_cpu else 3.0, "tuned": None if on_cpu else 1.2}
    for variant, limit in limits.items():
        what = f"images/s against the published PyTorch code, {variant}"
        target = f">= {limit}" if limit else "-"
        if not found.get(variant):
            runs = found.get("runs", {}).get(variant)
            yield (what, target, _why(runs[0] if runs else found), "")
            continue
        ours, theirs = found["ours"]["images_per_second"], found[variant]
        what += f" ({_speed(ours)} against {_speed(theirs)})"
        if limit:
            yield _row(what, ours / theirs, ">=", limit)
        else:
            yield (what, target, f"{ours / theirs:.3f}", "")


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


def _contender(results: Mapping[str, Any], name: str) -> float | None:
    for contender in results.get("step", {}).get("contenders", ()):
        if contender["name"] == name:
            return contender.get("images_per_second")
    return None


def _best_by_members(results: Mapping[str, Any]) -> dict[int, float]:
    """K: images/s in its fastest member mode."""
    best: dict[int, float] = {}
    for contender in results.get("step", {}).get("contenders", ()):
        if "num_members" in contender and "images_per_second" in contender:
            k = contender["num_members"]
            best[k] = max(best.get(k, 0.0), contender["images_per_second"])
    return best


def _speed(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
