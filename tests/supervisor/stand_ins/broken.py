"""A role that dies as soon as it is started."""

raise SystemExit(7)
