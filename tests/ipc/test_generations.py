"""Where the backup, the generations and the templates of a policy file are."""

from ipc.generations import backup_of, directory_of, generation_at, templates_of


def test_all_that_belongs_to_a_policy_file_lies_beside_it() -> None:
    spd = "/etc/ipsec.spd"
    assert (backup_of(spd), directory_of(spd)) == ("/etc/ipsec.spd.bak", "/etc/ipsec.spd.generations")
    generation = generation_at(directory_of(spd), 7, 1795340096)
    assert generation.path == "/etc/ipsec.spd.generations/000007-20261122T093456Z.spd"
    assert generation.templates_path == "/etc/ipsec.spd.generations/000007-20261122T093456Z.templates"


def test_each_policy_has_the_templates_that_belong_to_it() -> None:
    generation = generation_at(directory_of("/etc/ipsec.spd"), 7, 1795340096)
    assert templates_of("/etc/ipsec.spd") == templates_of(backup_of("/etc/ipsec.spd")) == "/etc/ipsec.templates"
    assert templates_of(generation.path) == generation.templates_path
    assert templates_of("/etc/x.generations/mine.spd") == "/etc/x.generations/ipsec.templates"
