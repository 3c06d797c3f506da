"""What both extractors share: from arguments to fitted attributes, and from these to scores."""
