"""GeoJEPA: self-supervised joint-embedding prediction over map entities and aerial images."""
