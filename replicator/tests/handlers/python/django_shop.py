"""A shop on Django: django_shop.py CACHE, which is one of CACHES."""

import os
import sys

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from serve import serve_wsgi

REDIS = f"redis://127.0.0.1:{os.environ['REDIS_PORT']}/1"
CACHES = {
    "django": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS},
    "django-redis": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": REDIS},
    "django-memcached": {
        "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
        "LOCATION": f"127.0.0.1:{os.environ['MEMCACHED_PORT']}",
    },
}


def state(session):
    return HttpResponse(f"{session.get('user', '')} {session.get('items', 0)}", content_type="text/plain")


def login(request):
    request.session.cycle_key()
    request.session["user"] = request.GET["user"]
    return state(request.session)


def add(request):
    request.session["items"] = request.session.get("items", 0) + 1
    return state(request.session)


def logout(request):
    request.session.flush()
    return state(request.session)


urlpatterns = [
    path("login", login),
    path("add", add),
    path("logout", logout),
    path("state", lambda request: state(request.session)),
]

settings.configure(
    ALLOWED_HOSTS=["*"],
    CACHES={"default": CACHES[sys.argv[1]]},
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="the same on every replica",
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
)
serve_wsgi(get_wsgi_application())
