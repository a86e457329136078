"""What the shop sells, in which currency, and where it delivers. Money is integer minor units (cents)."""

from dataclasses import dataclass

CURRENCY = "EUR"
MAX_QUANTITY = 100
COUNTRIES = frozenset({"AT", "BE", "CH", "DE", "DK", "FR", "IT", "NL", "NO", "PL", "SE"})


@dataclass(frozen=True, slots=True)
class Article:
    sku: str
    price_minor_units: int
    initial_stock_units: int


ARTICLES = (
    Article("desk-lamp", 4_900, 1_000_000),
    Article("office-chair", 24_900, 1_000_000),
    Article("standing-desk", 59_900, 1_000_000),
    Article("monitor-arm", 8_900, 1_000_000),
    Article("limited-print", 12_000, 100),
    Article("sold-out-radio", 7_500, 0),
)
PRICES = {article.sku: article.price_minor_units for article in ARTICLES}
