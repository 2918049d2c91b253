"""What a wheel holds of the folders beside the package; all else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["lpw_jax*"]), "lpw_jax.configs"],
    # As `lpw_jax.beside` looks for them. Other scripts need a clone.
    py_modules=[
        "lpw_jax.scripts.ablations",
        "lpw_jax.scripts.benchmark_pytorch",
        "lpw_jax.scripts.methods",
        "lpw_jax.scripts.run_table",
        "lpw_jax.scripts.show_batch",
    ],
    package_dir={"lpw_jax.configs": "configs", "lpw_jax.scripts": "scripts"},
)
