"""The example domain: orders that go through Order, Inventory, Payment and Shipping."""
