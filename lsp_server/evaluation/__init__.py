"""`starfill eval`: holes cut into source files, completed through the whole pipeline, and scored."""
