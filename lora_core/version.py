"""The version that files record. The same as in pyproject.toml, which the host does not install."""

VERSION = "0.1.0"
