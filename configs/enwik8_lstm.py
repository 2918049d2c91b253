"""Base training of the paper's LSTM on enwik8: bytes, 90 MB to train on, 5 and 5 MB held out.

    python -m lpw_jax.main --config configs/enwik8_lstm.py --config.data.manual_dir=DIR

DIR holds enwik8.zip or enwik8. One LSTM of 500 units, embeddings of 190 numbers and a head for 256
bytes have 1,558,896 weights. The paper says about 1.56 million; its embedding's size is not known.

Published: 1.695 bits per character (base). Not run here. Published are the network's size and these
figures; optimiser, rates, batch, sequence length, release, K, sigma and the start of SWA are our
choices, so that figures are to be compared with those of these six configs alone.
"""

from configs import base


def get_config(variant=""):
    config = base.get_config(variant)
    config.data.name = "enwik8"
    config.data.sequence_length = 100
    config.data.context = 200
    config.model.name = "lstm"
    config.model.width = 500
    config.model.embedding = 190
    config.train.epochs = 10
    config.train.batch_size = 64
    config.train.optimizer = "adam"
    config.train.learning_rate = 2e-3
    config.train.end_learning_rate = 1e-4
    config.train.schedule = "cosine"
    config.train.anneal_start = 5
    config.train.anneal_end = 10
    config.train.weight_decay = 0.0
    config.late_phase.release_epoch = -1
    config.late_phase.num_members = 10
    config.late_phase.sigma = 0.0
    config.late_phase.coasting = "none"
    config.late_phase.learning_rate = 2e-3
    config.late_phase.weight_decay = 0.0
    # What is late-phase must be named; without a release it is trained as all else.
    config.late_phase.patterns = ("head/bias",)
    return config
