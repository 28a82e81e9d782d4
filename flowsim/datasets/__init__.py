"""Bundled data and seeded generators."""
