"""A shop on Flask with Flask-Session: flask_shop.py redis or flask_shop.py memcached."""

import os
import sys

import pymemcache
import redis
from flask import Flask, Response, request, session
from flask_session import Session

from serve import serve_wsgi

app = Flask(__name__)
app.config["SESSION_TYPE"] = sys.argv[1]
app.config["SESSION_REDIS"] = redis.Redis(port=int(os.environ["REDIS_PORT"]))
# By default this client does not wait for the answer to a write: nobody could say when it is done.
app.config["SESSION_MEMCACHED"] = pymemcache.Client(
    ("127.0.0.1", int(os.environ["MEMCACHED_PORT"])), default_noreply=False
)
Session(app)


def state():
    return Response(f"{session.get('user', '')} {session.get('items', 0)}", content_type="text/plain")


@app.post("/login")
def login():
    app.session_interface.regenerate(session)
    session["user"] = request.args["user"]
    return state()


@app.post("/add")
def add():
    session["items"] = session.get("items", 0) + 1
    return state()


@app.post("/logout")
def logout():
    session.clear()
    return state()


app.get("/state")(state)
serve_wsgi(app)
