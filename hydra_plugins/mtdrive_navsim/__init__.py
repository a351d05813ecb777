"""Lets Hydra, and so navsim's scripts, find mtdrive's agent by name: `agent=mtdrive_agent`."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class MTDriveSearchPath(SearchPathPlugin):
    """Adds the configuration in `mtdrive.navsim_bridge` behind the paths of the program that runs."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """See Hydra."""
        search_path.append(provider="mtdrive", path="pkg://mtdrive.navsim_bridge.config")
