"""SAM's zero-shot transfer to lung segmentation in chest CT: the steps behind the scripts."""
