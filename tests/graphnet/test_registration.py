from __future__ import annotations

import pytest

pytest.importorskip(
    "graphnet.models",
    reason="GraphNeT is not installed; README.md says how to have it",
    exc_type=ImportError,
)

from graphnet.utilities.config import model_config, parsing

import graphnet_icecube2nd.graphnet_adapter as adapter
from graphnet_icecube2nd.graphnet_adapter.registration import COMPONENTS

pytestmark = pytest.mark.graphnet


def test_registering_again_changes_nothing() -> None:
    before = parsing.get_graphnet_classes
    adapter.register()
    assert parsing.get_graphnet_classes is before


def test_every_public_component_is_found_by_name() -> None:
    import graphnet.models

    found = model_config.get_all_grapnet_classes(graphnet.models)
    public = {
        name for name in adapter.__all__ if isinstance(getattr(adapter, name), type)
    } - {"StoreDataModule"}  # GraphNeT's configurations know no data modules
    assert public == set(COMPONENTS)
    for name in public:
        assert found[name] is getattr(adapter, name)
    assert "DynEdge" in found, "GraphNeT's own classes are still there"


def test_no_component_takes_a_name_that_graphnet_has() -> None:
    import graphnet.data
    import graphnet.models
    import graphnet.training

    lookup = parsing.get_graphnet_classes
    parsing.get_graphnet_classes = lookup.__wrapped__
    try:
        own = parsing.get_all_grapnet_classes(
            graphnet.data, graphnet.models, graphnet.training
        )
    finally:
        parsing.get_graphnet_classes = lookup
    assert not set(own) & set(COMPONENTS)


def test_a_changed_lookup_is_an_error_that_says_what_was_expected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.delattr(parsing, "get_graphnet_classes")
        with pytest.raises(RuntimeError, match=r"parsing has get_graphnet_classes"):
            adapter.register()
    with monkeypatch.context() as patch:
        patch.setattr(model_config, "get_all_grapnet_classes", dict)
        with pytest.raises(RuntimeError, match=r"model_config looks classes up"):
            adapter.register()
    with monkeypatch.context() as patch:
        patch.setattr(parsing, "list_all_submodules", lambda *packages: [])
        with pytest.raises(RuntimeError, match=r"not found: AngularDistance"):
            adapter.register()
    adapter.register()
