"""The demo: a small text-to-image model of our own, two LoRAs on it, and checks that they learned."""
