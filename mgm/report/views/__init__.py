"""Kinds of views: one module each, which a view of a study names by its `kind`.

A module has these parts. All but the first two may be absent:

    Options              the fields of the view beside those of `mgm.study.schema.View`
    data(frame, view)    what is shown, as a frame
    draw(data, view)     a matplotlib figure of it, in the style of all figures. Without it, `data`
                         is shown as a table
    format_of(view)      of the picture on the page: svg, which is the default, or png
    fault(view)          what is wrong with the view; empty: nothing
    ARRAYS               True: `frame` has the runs that write the arrays of the view's `show`

`frame` has a row per dataset, column and row of the study that the view selects
(`mgm.report.estimates.selected`). `data` is called for every report, and `draw` if its
result has changed, so modules import drawing libraries in `draw`.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from mgm.errors import UserError, nearest, valid
from mgm.study.schema import Study, View


def kinds() -> list[str]:
    return [module.name for module in iter_modules(__path__)]


def module_of(view: View) -> Any:
    """Return the module of a view's kind."""
    return import_module(f"{__name__}.{view.kind}")


def is_table(view: View) -> bool:
    """Return whether a view is shown as a table, and not as a picture."""
    return not hasattr(module_of(view), "draw")


def options_of(view: View) -> Any:
    """Return the options of a view, with their defaults."""
    return module_of(view).Options(**view.options)


def check_views(study: Study) -> None:
    """Refuse a view of an unknown kind, or with options that its kind does not have.

    Raises:
        UserError: the first such view.
    """
    for name, view in study.views.items():
        where = f"study {study.study}: views.{name}"
        if view.kind not in kinds():
            raise UserError(f"{where}.kind: {view.kind!r}; {nearest(view.kind, kinds())}")
        known = module_of(view).Options.model_fields
        if unknown := [option for option in view.options if option not in known]:
            advice = nearest(unknown[0], [*View.model_fields, *known])
            raise UserError(f"{where}.{unknown[0]}: {view.kind} has no such option; {advice}")
        if view.show and not hasattr(module_of(view), "ARRAYS"):
            raise UserError(f"{where}.show: {view.kind} has no such field; kind clips has it")
        with valid(f"{where}."):
            options_of(view)
        if wrong := getattr(module_of(view), "fault", lambda view: "")(view):
            raise UserError(f"{where}: {wrong}")
