"""Rank-one factors without a release on enwik8 with SWA, over three epochs at a higher final rate.

    python -m lpw_jax.main --config configs/enwik8_lstm_rank1_swa.py

Otherwise `enwik8_lstm_rank1` and its data.manual_dir. Published: 1.616 bits per character.
Not run here; `enwik8_lstm` says what is published and what we chose.
"""

from configs import enwik8_lstm_rank1


def get_config(variant=""):
    config = enwik8_lstm_rank1.get_config(variant)
    config.swa.start_epoch = 8
    config.train.end_learning_rate = 1e-3
    return config
