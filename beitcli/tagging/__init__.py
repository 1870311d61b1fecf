"""Labels as keywords in XMP, where photo tools look for them."""
