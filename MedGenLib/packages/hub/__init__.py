"""Published models: download, installation and conversion to packages."""
