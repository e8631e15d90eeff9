"""Deletes old rows, monitors what blocks Watch, and counts sessions."""
