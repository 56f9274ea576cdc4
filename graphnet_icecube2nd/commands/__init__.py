"""The commands of `icecube2nd`, a module each."""

from graphnet_icecube2nd.commands.app import app

__all__ = ["app"]
