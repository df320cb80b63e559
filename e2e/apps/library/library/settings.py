"""A library whose readers note the books that they want. Sessions are where Django keeps them by default: in the database."""

import os

SECRET_KEY = "of this library"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "library.urls"
WSGI_APPLICATION = "library.wsgi.application"
ASGI_APPLICATION = "library.asgi.application"
INSTALLED_APPS = ["django.contrib.sessions"]
MIDDLEWARE = [
    "library.views.served_by",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [os.path.dirname(__file__)]}]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.path.join(os.environ.get("LIBRARY_DATA", "/var/lib/library"), "library.sqlite3"),
        "OPTIONS": {"timeout": 20},
    }
}
USE_TZ = True
