"""A bench for people: tables, bars, and one line for each of the other parts."""

from rich.text import Text

from scenarios.bench.parts import Report
from scenarios.page import Page

BAR_COLUMNS = 40
LOAD_HEADINGS = (
    "in flight", "orders/s", "limit", "ratio", "to pivot p50/p95/p99 ms", "to end p50/p95/p99 ms", "commits",
    "messages", "peak MB", "",
)  # fmt: skip


def text_of(report: Report) -> str:
    page = Page()
    results = [result for result in report.get("results", ()) if "violations" not in result]
    if results:
        _load(page, results)
        _bars(page, results)
        _cpu(page, results)
    for name, words in _WORDS.items():
        part = report.get(name)
        if part is not None and "violations" not in part:
            page.say((f"{name}: ", "bold"), words.format(**part))
    return page.text()


def _load(page: Page, results: list[Report]) -> None:
    rows = []
    for result in results:
        figures = [
            f"{result['concurrency']:,}", f"{result['sagas_per_second']:,.0f}",
            f"{result['limit_sagas_per_second']:,.0f}", f"{result['ratio_to_limit']:.2f}",
            _percentiles(result["latency_to_pivot_ms"]), _percentiles(result["latency_ms"]),
            f"{result['commits_per_saga']:.3f}", f"{result['messages_per_saga']:.3f}",
            f"{result['peak_rss_mb']:.0f}", "",
        ]  # fmt: skip
        rows.append([Text(figure) for figure in figures])
    page.table(LOAD_HEADINGS, rows, right=LOAD_HEADINGS)


def _percentiles(latency_ms: dict[str, float]) -> str:
    return " / ".join(f"{value:,.1f}" for value in latency_ms.values())


def _bars(page: Page, results: list[Report]) -> None:
    """Orders a second, full, up to the limit of the same run, empty; all by one scale."""
    page.say()
    page.say(("orders a second, of the limit", "bold"))
    scale = max(max(result["limit_sagas_per_second"], result["sagas_per_second"]) for result in results)
    for result in results:
        rate, limit = result["sagas_per_second"], result["limit_sagas_per_second"]
        full = max(1, round(BAR_COLUMNS * rate / scale))
        empty = max(0, round(BAR_COLUMNS * limit / scale) - full)
        bar = page.glyphs.full * full + page.glyphs.empty * empty
        page.say(f"{result['concurrency']:>9,}  {bar:{BAR_COLUMNS}}  {rate:,.0f} of {limit:,.0f}")


def _cpu(page: Page, results: list[Report]) -> None:
    page.say()
    page.say(("CPU, ms an order", "bold"), " (in brackets: of the limit)")
    names = list(results[0]["cpu_ms_per_saga"])
    rows = []
    for result in results:
        limit = result["limit"]["cpu_ms_per_saga"]
        cells = [f"{result['cpu_ms_per_saga'][name]:.3f} ({limit[name]:.3f})" for name in names]
        rows.append([Text(cell) for cell in (f"{result['concurrency']:,}", *cells, "")])
    headings = ("in flight", *names, "")
    page.table(headings, rows, right=headings)
    page.say()


_WORDS = {
    "sequential": (
        "p50 {order_latency_ms[p50]} ms, order-sequential {sequential_latency_ms[p50]} ms at {concurrency} in flight:"
        " {times_as_fast:.2f} times as fast"
    ),
    "failing": (
        "{failing_sagas_per_second:,.0f} sagas/s of which 30 % fail, {good_sagas_per_second:,.0f} of which none does,"
        " at {concurrency} in flight: {share_of_good:.0%}"
    ),
    "alone": (
        "p50 to the pivot {p50_to_pivot_ms} ms; {sequential_commits} commits of {raw_commit_ms[p50]} ms and"
        " {sequential_hops} hops of {raw_hop_ms[p50]} ms are {sum_ms} ms: {times_the_sum:.2f} times the sum"
    ),
    "recovery": (
        "{in_flight} in flight when the coordinator was killed; from its restart, ready in {ready_seconds:.2f} s, all"
        " ended in {all_ended_seconds:.2f} s"
    ),
    "growth": (
        "{full_sagas_per_second:,.0f} sagas/s with {finished:,} orders in the store, {empty_sagas_per_second:,.0f}"
        " with none, at {concurrency} in flight: {share_of_empty:.0%}; p99 {full_latency_ms[p99]} and"
        " {empty_latency_ms[p99]} ms; an order leaves {kb_per_order[coordinator]} KB at the coordinator,"
        " {kb_per_order[services]} KB at the services"
    ),
    "memory": "{kb_per_saga} KB a saga in flight in the coordinator, {in_flight:,} at a time, {growth_mb} MB in all",
}
