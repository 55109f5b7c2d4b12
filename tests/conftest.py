pytest_plugins = ["keyturn.testing.plugin"]
