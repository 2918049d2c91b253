"""Late-phase factors of rank one on the matrices of the paper's LSTM, on enwik8.

    python -m lpw_jax.main --config configs/enwik8_lstm_late_phase.py --config.data.manual_dir=DIR

`enwik8_lstm_rank1` with ten members from epoch 7 on. Published: 1.633 bits per character. Not run
here; `enwik8_lstm` says what is published and what we chose.
"""

from configs import enwik8_lstm_rank1


def get_config(variant=""):
    config = enwik8_lstm_rank1.get_config(variant)
    config.late_phase.release_epoch = 6
    return config
