"""Ensembles: several models used as one."""

from graphnet_icecube2nd.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, {"fit_ensemble": "ensemble_fit"})
