"""Workers for a cohort: processes of this computer, or actors of a Ray cluster."""
