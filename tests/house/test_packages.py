"""What is installed is every package that there is: a program started from elsewhere finds no other."""

import configparser
import tomllib

from tests.docs.test_pages import REPOSITORY

NOT_INSTALLED = {"benchmarks", "tests"}


def test_every_package_is_installed_and_under_the_import_contracts() -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    installed = {name.rstrip("*") for name in setup["options.packages.find"]["include"].split()}
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]
    present = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")} - NOT_INSTALLED

    assert installed == set(contracts["root_packages"]) == present
