"""Django settings of an application, with its sessions in the store of a SessionPolicy.

DJANGO_SETTINGS_MODULE names this module, which takes everything from the application's own one and changes only what is
about where sessions are kept.
"""

import importlib
import os
import sys

from django.core.exceptions import ImproperlyConfigured

# redis-py and pymemcache, after all that the application brings itself.
sys.path.append("/session-operator/agent/lib")

_ALIAS = "session_operator"


def _needed(name):
    value = os.environ.get(name, "")
    if not value:
        raise ImproperlyConfigured(f"{name} is not set: the pod has the files of a SessionPolicy without its variables")
    return value


def _application():
    name = _needed("SESSION_OPERATOR_DJANGO_SETTINGS")
    if name == __name__:
        raise ImproperlyConfigured("SESSION_OPERATOR_DJANGO_SETTINGS names this module instead of the application's own")
    return importlib.import_module(name)


def _cache():
    # Django puts a colon after it.
    cache = {"KEY_PREFIX": _needed("SESSION_OPERATOR_KEY_PREFIX")}
    speaks_memcached = os.environ.get("SESSION_OPERATOR_PROTOCOL") == "memcached"
    return {**cache, **(_memcached() if speaks_memcached else _redis())}


def _address():
    return f"{_needed('SESSION_OPERATOR_HOST')}:{_needed('SESSION_OPERATOR_PORT')}"


def _memcached():
    return {
        "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
        "LOCATION": _address(),
        # A server that does not answer is tried again by the next request, and not a minute later.
        "OPTIONS": {"connect_timeout": 5, "timeout": 5, "retry_attempts": 0, "dead_timeout": 0},
    }


def _redis():
    options = {"socket_connect_timeout": 5, "socket_timeout": 5, "health_check_interval": 30}
    for option, variable in (("username", "USERNAME"), ("password", "PASSWORD"), ("ssl_ca_certs", "CA_FILE")):
        value = os.environ.get(f"SESSION_OPERATOR_{variable}", "")
        if value:
            options[option] = value
    scheme = "rediss" if os.environ.get("SESSION_OPERATOR_TLS") == "true" else "redis"
    return {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": f"{scheme}://{_address()}/0",
        "OPTIONS": options,
    }


_settings = _application()
globals().update({name: getattr(_settings, name) for name in dir(_settings) if name.isupper()})

CACHES = {**getattr(_settings, "CACHES", {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}})}
CACHES[_ALIAS] = _cache()
SESSION_ENGINE = "session_operator_sessions"
SESSION_CACHE_ALIAS = _ALIAS

if os.environ.get("SESSION_OPERATOR_TTL_SECONDS"):
    SESSION_COOKIE_AGE = int(os.environ["SESSION_OPERATOR_TTL_SECONDS"])
    # Django counts from the last change of a session; an idle life counts from the last request.
    SESSION_SAVE_EVERY_REQUEST = True
