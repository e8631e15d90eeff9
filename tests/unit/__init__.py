"""Tests of single pieces, without servers."""
