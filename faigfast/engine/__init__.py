"""The path engine: many points of the line, for many images, at once; see docs/engine.md."""
