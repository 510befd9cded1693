"""Pictures: previews, planes of a report, plots."""
