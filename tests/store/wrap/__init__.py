"""Tests of the wrappers around stores."""
