"""The order saga, once as parallel as its graph allows and once one step after another."""

from collections.abc import Callable
from dataclasses import replace

from actors.definition import Kind, Retry, Saga, Step, View

TIMEOUT_SECONDS = 3.0
BRIEF = Retry(attempts=8, first_delay_seconds=0.1, max_delay_seconds=2.0)


def _fields(*names: str) -> Callable[[View], object]:
    """A payload of some fields of the order."""

    def payload(view: View) -> object:
        assert isinstance(view.input, dict)
        return {name: view.input[name] for name in names}

    return payload


_BEFORE = (
    Step("open", "order", "open", compensation="cancel", payload=_fields()),
    Step("reserve", "inventory", "reserve", compensation="release", payload=_fields("items")),
    Step("authorize", "payment", "authorize", compensation="void", payload=_fields("amount", "currency", "card")),
    Step("prepare", "shipping", "prepare_shipment", compensation="cancel_shipment", payload=_fields("address")),
)
_PIVOT = Step("confirm", "order", "confirm", kind=Kind.PIVOT, payload=_fields())
_AFTER = (
    Step("commit_stock", "inventory", "commit_stock", kind=Kind.RETRIABLE, payload=_fields("items")),
    Step("capture", "payment", "capture", kind=Kind.RETRIABLE, payload=_fields()),
    Step("dispatch", "shipping", "dispatch", kind=Kind.RETRIABLE, payload=_fields()),
)


def _timed(step: Step, after: tuple[str, ...]) -> Step:
    retry = step.retry if step.kind is Kind.RETRIABLE else BRIEF
    return replace(step, after=after, timeout_seconds=TIMEOUT_SECONDS, retry=retry)


ORDER = Saga(
    "order",
    (
        *(_timed(step, ()) for step in _BEFORE),
        _timed(_PIVOT, tuple(step.name for step in _BEFORE)),
        *(_timed(step, ("confirm",)) for step in _AFTER),
    ),
)

_CHAIN = (*_BEFORE, _PIVOT, *_AFTER)
ORDER_SEQUENTIAL = Saga(
    "order-sequential",
    tuple(_timed(step, (_CHAIN[i - 1].name,) if i else ()) for i, step in enumerate(_CHAIN)),
)

SAGAS = {saga.name: saga for saga in (ORDER, ORDER_SEQUENTIAL)}
