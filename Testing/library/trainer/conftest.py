"""Each module of these tests installs its models in a folder of its own."""

import pytest
from workers import temporary_environment


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with temporary_environment(MEDGEN_HOME=str(tmp_path_factory.mktemp("home"))):
        yield
