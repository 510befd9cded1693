"""Labels: vocabularies, mapping onto the labels of a model, the body around a segmentation."""
