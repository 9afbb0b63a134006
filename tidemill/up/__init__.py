"""The embedded set: all processes of Tidemill on this machine, started, watched and stopped by `tidemill up`."""
