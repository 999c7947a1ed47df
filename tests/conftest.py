"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of real recordings, or skip: it is no part of the project."""
    folder = os.environ.get("ECGBYTE_TEST_DATA")
    if not folder:
        pytest.skip("ECGBYTE_TEST_DATA is not set")
    return Path(folder)
