"""Late-phase rank-one weights for a small LSTM of bytes, on Python's own sources: no download, CPU.

    python -m lpw_jax.main --config configs/text_small.py

Variants, as in configs/text_small.py:base_swa, are the paper's six methods at this size:
'' (late-phase rank-one), 'rank1' (the same weights without a release), 'base' (without them), and
each with SWA: 'swa', 'rank1_swa', 'base_swa'.

The text is 500,000 bytes of the standard library of the Python that runs this. An LSTM of
64 units with embeddings of 32 numbers: 49,664 weights, and 608 factors of rank one.
"""

from configs import base

VARIANTS = ("", "swa", "rank1", "rank1_swa", "base", "base_swa")


def get_config(variant=""):
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r}: must be one of {', '.join(VARIANTS[1:])}, or none")
    config = base.get_config()
    config.data.name = "python_sources"
    config.data.num_bytes = 500_000
    config.data.sequence_length = 64
    config.data.context = 64
    config.model.name = "lstm"
    config.model.width = 64
    config.model.embedding = 32
    config.train.epochs = 5
    config.train.batch_size = 32
    config.train.optimizer = "adam"
    config.train.learning_rate = 5e-3
    config.train.schedule = "cosine"
    config.train.anneal_start = 2
    config.train.anneal_end = 4
    config.train.end_learning_rate = 5e-4
    config.train.weight_decay = 0.0
    config.late_phase.num_members = 4
    config.late_phase.release_epoch = 3
    config.late_phase.learning_rate = 5e-3
    config.late_phase.weight_decay = 0.0
    config.late_phase.coasting = "none"
    config.late_phase.patterns = ()
    config.late_phase.kind = "rank_one"
    config.late_phase.kind_patterns = ("lstm/(inputs|recurrent)/kernel",)
    config.evaluate.batch_size = 64
    config.evaluate.every_epochs = 1
    if variant.startswith("base"):
        # Nothing is late-phase; a weight must be named, and without a release it is as any other.
        config.late_phase.kind = "copies"
        config.late_phase.patterns = ("head/bias",)
    if variant.startswith(("base", "rank1")):
        config.late_phase.release_epoch = -1
    if variant.endswith("swa"):
        config.swa.start_epoch = 4
        config.train.end_learning_rate = 2.5e-3
    return config
