"""For all tests: the same examples every time, and none fails because the machine is busy."""

from hypothesis import settings

settings.register_profile("project", deadline=None, derandomize=True, database=None)
settings.load_profile("project")

pytest_plugins = ["demo_client", "server_session"]  # fixtures
