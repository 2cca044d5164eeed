"""How long to wait after a failure, see `skerry.carrier.retrying`."""

from skerry.carrier.retrying import Retry

__all__ = ["Retry"]
