"""Run `mtdrive` commands one after the other as processes of their own, so that a run which was stopped goes on."""
