"""Tasks: the quantities reconstructed from an event, one file each."""

from graphnet_icecube2nd.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "BinaryTask": "classification",
        "Calibration": "task",
        "Column": "task",
        "Curve": "section",
        "Panel": "section",
        "Section": "section",
        "Task": "task",
        "WidthTask": "width",
        "build_task": "catalogue",
        "list_tasks": "catalogue",
        "make_label": "label",
        "register_task": "task",
    },
)
