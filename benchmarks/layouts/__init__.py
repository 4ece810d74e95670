"""Layouts, suffix budgets and healing, by quality: the same holes, laid out in each way, completed and shaped."""
