"""The paper's LSTM on enwik8 with factors of rank one on its matrices, and no release.

    python -m lpw_jax.main --config configs/enwik8_lstm_rank1.py --config.data.manual_dir=DIR

All else as in `enwik8_lstm`, which says what is published and what we chose. The factors of the
input and the recurrent matrix are 4,690 weights more. Published: 1.663 bits per character. Not run
here.
"""

from configs import enwik8_lstm


def get_config(variant=""):
    config = enwik8_lstm.get_config(variant)
    config.late_phase.patterns = ()
    config.late_phase.kind = "rank_one"
    config.late_phase.kind_patterns = ("lstm/(inputs|recurrent)/kernel",)
    return config
