"""The version of tt-migrate."""

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str | None:
    """The version, None where the package is not installed or its metadata is not packed."""
    try:
        return version("tt-migrate")
    except PackageNotFoundError:
        return None
