"""Converts the library's events other than messages and receipts to frames."""
