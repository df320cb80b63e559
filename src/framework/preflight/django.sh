# Which Django is it, what are its settings called, and where does it keep sessions?

# has_django PYTHON
has_django() { command -v "$1" >/dev/null 2>&1 && "$1" -c 'import django' >/dev/null 2>&1; }

python=
for candidate in python3 python ./venv/bin/python ./.venv/bin/python /venv/bin/python /opt/venv/bin/python \
  /app/venv/bin/python /app/.venv/bin/python /usr/local/bin/python3 /usr/bin/python3; do
  if [ -z "$python" ] && has_django "$candidate"; then
    python=$candidate
  fi
done
if [ -z "$python" ]; then
  missing 'no Python of the image can import Django' \
    'put the Python that has Django first in PATH of the container, or set spec.client.containers to the container that runs Django'
fi

versions=$("$python" -c 'import django, sys; print("%d.%d %s" % (sys.version_info[0], sys.version_info[1], django.get_version()))')
case $versions in
3.[0-8]\ * | 2.*) missing "the image has Python ${versions%% *}, and the client for the store needs Python 3.9" 'use an image with Python 3.9 or newer' ;;
*\ [0-3].*) missing "the image has Django ${versions##* }, and its cache for Redis came with Django 4.0" 'use Django 4.0 or newer' ;;
esac

# named FILE…: the settings module that manage.py, wsgi.py or asgi.py names.
named() {
  sed -n "s/.*DJANGO_SETTINGS_MODULE[\"'][],) =]*[\"']\([A-Za-z_][A-Za-z0-9_.]*\)[\"'].*/\1/p" "$@" 2>/dev/null | sed -n 1p
}

settings=${DJANGO_SETTINGS_MODULE:-${given_settings:-$(named ./manage.py ./*/wsgi.py ./*/asgi.py ./*/manage.py)}}
if [ -z "$settings" ]; then
  missing "no settings module is known: DJANGO_SETTINGS_MODULE is not set, and no manage.py, wsgi.py or asgi.py under $PWD names one" \
    'set spec.client.settingsModule of the SessionPolicy'
fi

# Settings may need what only the real pod has; then nothing is known of the engine, and that is no failure.
engine=$(DJANGO_SETTINGS_MODULE=$settings PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} "$python" -c \
  'from django.conf import settings; print(settings.SESSION_ENGINE)' 2>/dev/null | sed -n '$p')
case $engine in
'' | django.contrib.sessions.backends.*) ;;
*) missing "the application has a session engine of its own, $engine, which must not be replaced" \
  'let the application use one of django.contrib.sessions.backends, or point its own engine at the store by spec.client.env with framework Generic' ;;
esac

fact settings "$settings"
fact django "${versions##* }"
fact engine "$engine"
variable DJANGO_SETTINGS_MODULE
variable PYTHONPATH
passed
