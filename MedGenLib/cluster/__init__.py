"""Workers for a cohort or a training: processes of this computer, or of a Ray cluster."""
