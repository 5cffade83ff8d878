"""The [train] table of a study, of an arm or of a generator, checked."""

from raremix.core.errors import ConfigError
from raremix.train import TrainSpec


def check_train(train: TrainSpec, *, where: str) -> None:
    """Refuse values of a [train] table that would train nothing, or nonsense.

    Raises:
        ConfigError: naming the key, the value, and what is expected.
    """
    expected = {
        "learning_rate": (train.rate > 0, "more than 0"),
        "weight_decay": (train.weight_decay >= 0, "at least 0"),
        "warmup": (0 <= train.warmup <= 1, "a share of the steps, 0 to 1"),
        "clip": (train.clip is None or train.clip >= 0, "at least 0; 0 switches clipping off"),
        "average": (train.average is None or 0 <= train.average < 1, "0 to below 1; 0 keeps the raw weights"),
        "workers": (train.workers >= 0, "at least 0"),
        "devices": (train.devices >= 1, "at least 1"),
    }
    for key, (fits, words) in expected.items():
        if not fits:
            raise ConfigError(f"{where}.{key} = {getattr(train, key)}: expected {words}")
