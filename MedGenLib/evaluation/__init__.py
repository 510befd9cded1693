"""Reports about images: evaluate a pair or two folders, and write HTML, CSV, JSON and pictures."""
