"""Sessions in Django's cache, by Django's own engine but for one thing: a store that does not answer is an error.

The engine itself takes it for a session that has ended, and logs the user out for good (load() of
django.contrib.sessions.backends.cache catches every exception).
"""

from django.contrib.sessions.backends import cache


class SessionStore(cache.SessionStore):
    def load(self):
        return self._taken(self._cache.get(self.cache_key))

    async def aload(self):
        # Since Django 5.1.
        return self._taken(await self._cache.aget(await self.acache_key()))

    def _taken(self, data):
        if data is not None:
            return data
        self._session_key = None
        return {}
