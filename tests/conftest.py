from hypothesis import HealthCheck, settings

pytest_plugins = ["keyturn.testing.plugin"]

# How long an example takes says how busy the machine is, not whether the program is right.
settings.register_profile("keyturn", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("keyturn")
