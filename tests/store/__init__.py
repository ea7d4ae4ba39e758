"""Tests of the stores: `contract` is the suite that every store and wrapper passes, `faulty` the store that breaks."""

import pytest

pytest.register_assert_rewrite("tests.store.contract")
