"""Images as arrays on a grid in the patient: volumes, boxes, orientation, resampling, normalization."""
