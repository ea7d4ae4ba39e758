"""What a restore left in the settings: taken back at once, later, or not at all."""

from __future__ import annotations

from pgkeep.restore.settings import RECOVERY, isolation_settings, recovery_settings
from pgkeep.restore.takeover import APART, plan_takeover
from pgkeep.restore.target import Target
from tests.restore.backups_of import server_info
from tests.restore.test_settings import PLACE, recovery


def test_a_restored_server_is_cleaned_and_let_out() -> None:
    written = (
        *recovery_settings(recovery(Target.immediate())),
        *isolation_settings(PLACE, server_info(), 17, {"ssl": "on"}),
    )
    takeover = plan_takeover(written)
    assert {"recovery_target", "recovery_target_timeline", "restore_command"} <= set(takeover.over) <= RECOVERY
    assert "primary_conninfo" not in takeover.over
    assert {"port", "listen_addresses", "unix_socket_directories", "ssl"} <= set(takeover.apart) <= set(APART)


def test_production_itself_keeps_its_settings() -> None:
    assert plan_takeover([("port", "5433"), ("work_mem", "64MB"), ("restore_command", "")]).over == ()
    assert plan_takeover([("port", "5433"), ("listen_addresses", "*")]).apart == ()
